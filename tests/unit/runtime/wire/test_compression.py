"""gzip and deflate, and that nobody unpacks more here than a body may have."""

import gzip
import zlib

import pytest

from nomadserve_runtime.errors import BadRequest, Fault, TooLarge, Unsupported
from nomadserve_runtime.wire.compression import accepted_coding, check_coding, compress, decompress

TEXT = b'{"inputs": {"x": [[1, 2, 3]]}}' * 50
PACKED = {"gzip": gzip.compress(TEXT), "x-gzip": gzip.compress(TEXT), "deflate": zlib.compress(TEXT)}


@pytest.mark.parametrize("coding", PACKED)
def test_what_was_packed_is_unpacked(coding: str) -> None:
    assert decompress(PACKED[coding], coding, nbytes_max=len(TEXT)) == TEXT


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_is_packed_here_can_be_unpacked(coding: str) -> None:
    assert decompress(compress(TEXT, coding), coding, nbytes_max=len(TEXT)) == TEXT


def test_a_bomb_is_not_unpacked() -> None:
    bomb = gzip.compress(bytes(50_000_000))
    assert len(bomb) < 60_000
    with pytest.raises(TooLarge, match="unpacks to more than any that fits this model: 70000 bytes"):
        decompress(bomb, "gzip", nbytes_max=70_000)


@pytest.mark.parametrize(
    ("body", "coding", "error"),
    [
        (TEXT, "gzip", "the body is not gzip"),
        (PACKED["gzip"], "deflate", "the body is not deflate"),
        (PACKED["gzip"][:-9], "gzip", "the body ends in the middle of its gzip"),
        (b"", "deflate", "the body ends in the middle of its deflate"),
        (PACKED["gzip"] + b"more", "gzip", "4 bytes follow the gzip of the body"),
    ],
)
def test_what_is_not_what_it_says_is_refused(body: bytes, coding: str, error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        decompress(body, coding, nbytes_max=10**6)
    assert caught.value.message == error


@pytest.mark.parametrize(("header", "coding"), [("identity", ""), ("", ""), ("GZIP", "gzip"), (" deflate ", "deflate")])
def test_known_codings(header: str, coding: str) -> None:
    assert check_coding(header) == coding


@pytest.mark.parametrize("header", ["br", "gzip, deflate", "zstd"])
def test_another_coding_is_refused_and_the_reply_says_which_would_do(header: str) -> None:
    with pytest.raises(Unsupported) as caught:
        check_coding(header)
    fault: Fault = caught.value
    assert fault.headers == (("accept-encoding", "gzip, deflate"),)


@pytest.mark.parametrize(
    ("header", "coding"),
    [
        ("", ""),
        ("identity", ""),
        ("br, zstd", ""),
        ("gzip", "gzip"),
        ("deflate", "deflate"),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip"),
        ("gzip;q=0, deflate", "deflate"),
        ("GZip; q=0.0", ""),
    ],
)
def test_the_client_says_how_it_takes_its_reply(header: str, coding: str) -> None:
    assert accepted_coding(header) == coding
