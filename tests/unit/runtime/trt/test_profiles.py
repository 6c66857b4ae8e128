import msgspec
import pytest

from nomadserve_runtime.engines.trt.options import BuildOptions, ShapeRange
from nomadserve_runtime.engines.trt.profiles import Input, profiles_for
from nomadserve_runtime.errors import WrongSetting

IMAGE = Input("image", (-1, 3, 8, 8))
TEXT = Input("text", (-1, -1))
FIXED = Input("fixed", (4, 8))


def options(**given: object) -> BuildOptions:
    return msgspec.convert(given, BuildOptions)


def covering(*shapes: list[int]) -> dict[str, list[int]]:
    return dict(zip(("min", "opt", "max"), shapes, strict=True))


def test_an_open_batch_is_covered_from_one_row_to_the_largest_batch() -> None:
    (profile,) = profiles_for([IMAGE, FIXED], options(max_batch=16))
    assert profile == {"image": ShapeRange((1, 3, 8, 8), (16, 3, 8, 8), (16, 3, 8, 8))}


def test_a_model_of_fixed_shapes_needs_no_profile() -> None:
    assert profiles_for([FIXED], options(max_batch=16)) == ()


def test_other_open_sizes_must_be_said() -> None:
    with pytest.raises(WrongSetting, match=r"the input `text` \[\?, \?\] has open sizes beside its first") as caught:
        profiles_for([TEXT], options(max_batch=8))
    assert "`text=1,16:8,16:8,16`" in caught.value.hint


def test_several_profiles_are_taken_in_their_order() -> None:
    short = {"text": covering([1, 1], [8, 16], [8, 32])}
    long = {"text": covering([1, 33], [8, 128], [8, 512])}
    found = profiles_for([TEXT], options(profiles=[short, long]))
    assert [profile["text"].max for profile in found] == [(8, 32), (8, 512)]


def test_a_profile_may_repeat_what_is_fixed() -> None:
    whole = {"text": covering([1, 1], [8, 16], [8, 32]), "fixed": covering([4, 8], [4, 8], [4, 8])}
    assert profiles_for([TEXT, FIXED], options(profiles=[whole]))[0]["fixed"].opt == (4, 8)


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"txt": covering([1], [1], [1])}, "names an input `txt`, which the model has not"),
        ({}, r"says nothing about the input `text` \[\?, \?\]"),
        ({"text": covering([1], [2], [3])}, "gives 1 sizes for the input `text`"),
        (
            {"text": covering([1, 1], [2, 2], [3, 3]), "fixed": covering([1, 8], [2, 8], [4, 8])},
            r"asks for sizes other than 4 on axis 0 of the input `fixed` \[4, 8\]",
        ),
    ],
)
def test_a_profile_that_contradicts_the_model_is_refused(profile: dict[str, object], message: str) -> None:
    with pytest.raises(WrongSetting, match=f"the profile {message}") as caught:
        profiles_for([TEXT, FIXED], options(profiles=[profile]))
    assert caught.value.hint


def test_one_of_several_profiles_is_named_by_its_number() -> None:
    good = {"text": covering([1, 1], [8, 16], [8, 32])}
    with pytest.raises(WrongSetting, match=r"^profile 2 says nothing"):
        profiles_for([TEXT], options(profiles=[good, {}]))
