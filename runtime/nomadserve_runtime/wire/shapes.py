"""Row shapes that differ from request to request: within the bounds of a profile, and the same under the same name."""

from collections.abc import Sequence

import numpy as np

from nomadserve_runtime.errors import BadRequest
from nomadserve_runtime.tensors import VARIABLE, Profile, RowShape, RowShapes, TensorSpec


class Shaping:
    """What the requests of one model may look like, whose profiles are not none."""

    def __init__(self, inputs: Sequence[TensorSpec], profiles: Sequence[Profile]) -> None:
        assert profiles
        self._inputs = tuple(inputs)
        self._profiles = tuple(profiles)

    def of(self, arrays: Sequence[np.ndarray], paths: Sequence[str]) -> RowShapes:
        """The row shapes of a request; `paths` are those of its inputs in the JSON.

        Raises:
            BadRequest: the model does not take them, or not together.
        """
        shapes = tuple(array.shape[1:] for array in arrays)
        if not any(profile.takes(shapes) for profile in self._profiles):
            self._refuse(shapes, paths)
        self._require_agreement(shapes, paths)
        return shapes

    def _require_agreement(self, shapes: RowShapes, paths: Sequence[str]) -> None:
        known: dict[str, tuple[int, str]] = {}
        for spec, shape, path in zip(self._inputs, shapes, paths, strict=True):
            for symbol, size, wanted in zip(spec.symbols, shape, spec.row_shape, strict=False):
                if not symbol or wanted != VARIABLE:
                    continue
                first_size, first = known.setdefault(symbol, (size, spec.name))
                if size != first_size:
                    raise BadRequest(
                        f"`{symbol}` is {first_size} in `{first}` and {size} in `{spec.name}` - at `{path}`"
                    )

    def _refuse(self, shapes: RowShapes, paths: Sequence[str]) -> None:
        for place, (spec, shape, path) in enumerate(zip(self._inputs, shapes, paths, strict=True)):
            bounds = [(profile.least[place], profile.most[place]) for profile in self._profiles]
            if not any(_is_between(least, shape, most) for least, most in bounds):
                ranges = " or ".join(dict.fromkeys(f"{list(least)} to {list(most)}" for least, most in bounds))
                raise BadRequest(
                    f"input `{spec.name}` has rows of the shape {list(shape)}, where this model takes {ranges} - "
                    f"at `{path}`"
                )
        each = ", ".join(f"`{spec.name}` {list(shape)}" for spec, shape in zip(self._inputs, shapes, strict=True))
        raise BadRequest(f"no profile of this model takes these row shapes together: {each} - at `$.inputs`")


def _is_between(least: RowShape, shape: RowShape, most: RowShape) -> bool:
    return all(low <= size <= high for low, size, high in zip(least, shape, most, strict=True))
