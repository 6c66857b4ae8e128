"""What the head of an inference request says, and what can be refused by it alone."""

import math
import re

import msgspec

from nomadserve_runtime.errors import BadRequest, TooLarge, Unsupported
from nomadserve_runtime.rsgi import Headers
from nomadserve_runtime.wire import binary
from nomadserve_runtime.wire.compression import check_coding

# Forms are what `curl -d` says when nobody tells it better; what it sends is the JSON that it was given.
JSON_TYPES = ("application/json", "application/x-www-form-urlencoded")

# With binary tensors behind the JSON.
BINARY_TYPE = "application/octet-stream"

TIMEOUT = "x-nomadserve-timeout-ms"
# Envoy tells by it how long it will wait for the reply:
# https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_filters/router_filter
ENVOY_TIMEOUT = "x-envoy-expected-rq-timeout-ms"


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Head(msgspec.Struct, frozen=True, gc=False):
    """The head of one request.

    Attributes:
        nbytes: of the body; infinite where the head does not tell.
        timeout_s: until its batch must be launched; infinite where the head names no deadline.
        coding: gzip or deflate around the body, or empty.
        accept_encoding: which codings the client takes, in its own words; empty for none.
        json_nbytes: where the JSON of a body with binary tensors ends, in the client's own words; None where it says
            nothing of them.
        traceparent: of W3C trace context, as it came; empty for none, or for one that is malformed.
    """

    nbytes: float
    timeout_s: float
    coding: str = ""
    accept_encoding: str = ""
    json_nbytes: str | None = None
    traceparent: str = ""


def read_head(headers: Headers, *, nbytes_max: int) -> Head:
    """Read it, and refuse what the body could only confirm.

    Raises:
        TooLarge, Unsupported, BadRequest: the request can't be answered, whatever its body says.
    """
    length = headers.get("content-length")
    nbytes = math.inf if length is None else int(length)
    if nbytes > nbytes_max and length is not None:
        raise too_large(nbytes_max)
    content_type = headers.get("content-type")
    json_nbytes = headers.get(binary.HEADER)
    # The usual one first: nothing is taken apart for it.
    if content_type is not None and content_type != "application/json":
        _check_content_type(content_type, is_binary=json_nbytes is not None)
    coding = headers.get("content-encoding")
    return Head(
        nbytes,
        _timeout_s(headers),
        "" if coding is None else check_coding(coding),
        headers.get("accept-encoding") or "",
        json_nbytes,
        _traceparent(headers.get("traceparent")),
    )


def too_large(nbytes_max: int) -> TooLarge:
    """The fault of a body that is longer than any valid one."""
    return TooLarge(f"the body is longer than any that fits this model: {nbytes_max} bytes")


def _check_content_type(content_type: str, *, is_binary: bool) -> None:
    name = content_type.partition(";")[0].strip().lower()
    if name in JSON_TYPES or (is_binary and name == BINARY_TYPE):
        return
    if name == BINARY_TYPE:
        raise Unsupported(f"the body is {name}: the header `{binary.HEADER}` must say where its JSON ends")
    raise Unsupported(f"the body is {content_type[:80]}: send `content-type: application/json`")


def _timeout_s(headers: Headers) -> float:
    """The sooner one of what the client and the gateway say."""
    ours, envoys = headers.get(TIMEOUT), headers.get(ENVOY_TIMEOUT)
    timeout_s = math.inf
    if ours is not None:
        timeout_s = _seconds(ours)
        if not timeout_s > 0:
            raise BadRequest(f"`{TIMEOUT}` is `{ours[:40]}`, and no number of milliseconds above 0")
    if envoys is not None:
        gateway_s = _seconds(envoys)
        # 0 is Envoy's word for none; what can't be read is not the client's mistake.
        if 0 < gateway_s < timeout_s:
            return gateway_s
    return timeout_s


def _traceparent(text: str | None) -> str:
    """A malformed one counts as none: https://www.w3.org/TR/trace-context/#traceparent-header."""
    return text if text is not None and _TRACEPARENT.fullmatch(text) else ""


def _seconds(text: str) -> float:
    """Milliseconds → seconds; not a number where it can't be read."""
    try:
        return float(text) / 1000
    except ValueError:
        return math.nan
