"""Bodies ⇄ rows: plain JSON, the Open Inference Protocol v2 in JSON, and the protocol's binary tensors.

- `plain` and `infer`: the two forms of a body;
- `numbers`: JSON lists → arrays, by types made for the model; finds every mistake and says where it is;
- `simd`: the same for large bodies without a mistake, more than twice as fast;
- `binary`: tensors as bytes behind the JSON;
- `compression`: gzip and deflate around all of them.
"""

from nomadserve_runtime.wire.binary import Encoded
from nomadserve_runtime.wire.model import ENVELOPE_NBYTES_MAX, ModelWire
from nomadserve_runtime.wire.plain import model_named_in
from nomadserve_runtime.wire.query import Query

__all__ = ["ENVELOPE_NBYTES_MAX", "Encoded", "ModelWire", "Query", "model_named_in"]
