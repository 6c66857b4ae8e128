import json

import pytest

from nomadserve.errors import WrongInput
from nomadserve.operations.bench.payload import from_metadata, from_text

PLAIN = {"inputs": {"image": [[1, 2], [3, 4]]}}
PROTOCOL = {"inputs": [{"name": "image", "shape": [3, 2], "datatype": "FP32", "data": [1, 2, 3, 4, 5, 6]}]}


def metadata(datatype: str = "FP32", shape: list[int] | None = None) -> dict[str, object]:
    return {"name": "digits", "inputs": [{"name": "image", "datatype": datatype, "shape": shape or [-1, 2, 3]}]}


@pytest.mark.parametrize(
    "text",
    [json.dumps(PLAIN), json.dumps([PLAIN]), json.dumps(PLAIN) + "\n" + json.dumps(PLAIN) + "\n\n"],
    ids=["one", "list", "lines"],
)
def test_a_file_holds_one_body_a_list_or_lines(text: str) -> None:
    payload = from_text(text.encode(), model="digits", origin="requests.json")
    assert payload.path == "/v1/inference"
    assert {json.dumps(json.loads(body)) for body in payload.bodies} == {json.dumps(PLAIN)}
    assert payload.rows == 2


def test_an_indented_body_is_one_body() -> None:
    assert len(from_text(json.dumps(PLAIN, indent=1).encode(), model="digits", origin="f").bodies) == 1


def test_protocol_bodies_go_to_the_models_own_path() -> None:
    payload = from_text(json.dumps(PROTOCOL).encode(), model="digits", origin="f")
    assert payload.path == "/v2/models/digits/infer"
    assert payload.rows == 3


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"[]", "holds no request body"),
        (b"", "holds no request body"),
        (b"{", "is no JSON"),
        (b"[1]", "no JSON object"),
        (json.dumps([PLAIN, PROTOCOL]).encode(), "mixes"),
    ],
)
def test_what_is_no_payload_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(WrongInput, match=said):
        from_text(text, model="digits", origin="requests.json")


def test_bodies_are_made_in_the_shapes_of_the_model() -> None:
    payload = from_metadata(metadata(), rows=4)
    image = json.loads(payload.bodies[0])["inputs"]["image"]
    assert (len(image), len(image[0]), len(image[0][0])) == (4, 2, 3)
    assert all(0 <= number < 1 for row in image for line in row for number in line)
    assert payload.rows == 4


def test_made_bodies_differ_and_are_the_same_in_every_run() -> None:
    first, second = from_metadata(metadata(), rows=1), from_metadata(metadata(), rows=1)
    assert first == second
    assert len(set(first.bodies)) == len(first.bodies)


def test_the_model_is_named_where_there_are_several() -> None:
    assert json.loads(from_metadata(metadata(), rows=1, model="digits").bodies[0])["model"] == "digits"


@pytest.mark.parametrize(("datatype", "kind"), [("INT64", int), ("UINT8", int), ("BOOL", bool), ("FP16", float)])
def test_numbers_are_of_the_inputs_kind(datatype: str, kind: type) -> None:
    body = from_metadata(metadata(datatype, [-1, 3]), rows=1).bodies[0]
    assert {type(number) for number in json.loads(body)["inputs"]["image"][0]} == {kind}


@pytest.mark.parametrize(("datatype", "shape"), [("BYTES", [-1, 1]), ("FP32", [-1, -1])])
def test_what_can_not_be_made_up_is_refused(datatype: str, shape: list[int]) -> None:
    with pytest.raises(WrongInput, match="no request can be made up for input `image`") as caught:
        from_metadata(metadata(datatype, shape), rows=1)
    assert "--data" in caught.value.hint
