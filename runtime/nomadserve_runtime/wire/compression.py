"""gzip and deflate around bodies and replies."""

import zlib

from nomadserve_runtime.errors import BadRequest, TooLarge, Unsupported

# Content coding → window bits of zlib: 16 more stand for gzip. HTTP's deflate is the zlib format (RFC 9110, 8.4.1.2).
CODINGS = {"gzip": 16 + zlib.MAX_WBITS, "x-gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}

# What fits into one packet gains nothing; level 1 takes a fifth of the time of zlib's default, for a tenth more bytes.
COMPRESS_NBYTES_MIN = 1400
LEVEL = 1

NEVER = ("q=0", "q=0.0", "q=0.00", "q=0.000")


def check_coding(coding: str) -> str:
    """The value of `content-encoding` as a key of `CODINGS`, or empty where there is nothing to undo.

    Raises:
        Unsupported: it is another coding.
    """
    name = coding.strip().lower()
    if name in ("", "identity"):
        return ""
    if name not in CODINGS:
        raise Unsupported(
            f"the body is in `{coding[:40]}`: send it as it is, or in gzip or deflate",
            headers=(("accept-encoding", "gzip, deflate"),),
        )
    return name


def decompress(body: bytes | memoryview, coding: str, *, nbytes_max: int) -> bytes:
    """The body behind a coding that `check_coding` returned; never more than `nbytes_max` bytes are unpacked.

    Raises:
        BadRequest: it is not what it says, is cut off, or goes on behind its end.
        TooLarge: it unpacks to more.
    """
    unpacker = zlib.decompressobj(CODINGS[coding])
    try:
        plain = unpacker.decompress(body, nbytes_max + 1)
    except zlib.error:
        raise BadRequest(f"the body is not {coding}") from None
    if len(plain) > nbytes_max:
        raise TooLarge(f"the body unpacks to more than any that fits this model: {nbytes_max} bytes")
    if not unpacker.eof:
        raise BadRequest(f"the body ends in the middle of its {coding}")
    if unpacker.unused_data:
        raise BadRequest(f"{len(unpacker.unused_data)} bytes follow the {coding} of the body")
    return plain


def accepted_coding(accept_encoding: str) -> str:
    """The coding in which a client that sends this header wants its reply: gzip, deflate, or none (empty).

    The first of ours counts that is not forbidden by `q=0`: both cost the same.
    """
    for item in accept_encoding.lower().split(","):
        name, _, weight = item.partition(";")
        if name.strip() in ("gzip", "deflate") and weight.strip() not in NEVER:
            return name.strip()
    return ""


def compress(body: bytes, coding: str) -> bytes:
    """The body in a coding that `accepted_coding` returned."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, CODINGS[coding])
    return packer.compress(body) + packer.flush()
