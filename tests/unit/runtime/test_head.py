"""What the head of a request says."""

import math

import pytest

from nomadserve_runtime.errors import Fault, TooLarge, Unsupported
from nomadserve_runtime.head import read_head

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_head_that_says_nothing() -> None:
    head = read_head({}, nbytes_max=100)
    assert (head.nbytes, head.timeout_s) == (math.inf, math.inf)
    assert (head.coding, head.accept_encoding, head.json_nbytes, head.traceparent) == ("", "", None, "")


def test_a_head_that_says_all() -> None:
    head = read_head(
        {
            "content-length": "99",
            "content-type": "application/octet-stream",
            "content-encoding": "gzip",
            "accept-encoding": "gzip",
            "inference-header-content-length": "40",
            "x-nomadserve-timeout-ms": "250",
            "traceparent": TRACE,
        },
        nbytes_max=100,
    )
    assert (head.nbytes, head.timeout_s) == (99, 0.25)
    assert (head.coding, head.accept_encoding, head.json_nbytes, head.traceparent) == ("gzip", "gzip", "40", TRACE)


@pytest.mark.parametrize("text", ["", "00", TRACE.upper(), TRACE + "\r\nx: y", TRACE.replace("-", "_"), TRACE[:-1]])
def test_a_malformed_trace_counts_as_none(text: str) -> None:
    assert read_head({"traceparent": text}, nbytes_max=1).traceparent == ""


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"content-length": "101"}, TooLarge),
        ({"content-type": "text/plain"}, Unsupported),
        ({"content-type": "application/octet-stream"}, Unsupported),
        ({"content-encoding": "br"}, Unsupported),
    ],
)
def test_what_the_body_could_only_confirm(headers: dict[str, str], kind: type[Fault]) -> None:
    with pytest.raises(kind):
        read_head(headers, nbytes_max=100)


@pytest.mark.parametrize("name", ["application/json", "Application/JSON; charset=utf-8", ""])
def test_types_that_are_json(name: str) -> None:
    assert read_head({"content-type": name} if name else {}, nbytes_max=1).json_nbytes is None
