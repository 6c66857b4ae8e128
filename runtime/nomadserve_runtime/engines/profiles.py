"""The profiles of a model in the configuration → the row shapes that its engine takes."""

from collections.abc import Mapping, Sequence

from nomadserve_runtime.errors import WrongSetting
from nomadserve_runtime.tensors import Profile, RowShape, RowShapes, TensorSpec

BOUNDS = ("min", "opt", "max")

# Input → `min`, `opt` and `max` → shape, with the batch in it.
Given = Mapping[str, Mapping[str, Sequence[int]]]


def profiles_of(given: Sequence[Given], inputs: Sequence[TensorSpec], *, title: str) -> tuple[Profile, ...]:
    """One for each that is given; none where the rows of all inputs are fixed, whatever is given.

    title: what the model is called in messages.

    Raises:
        WrongSetting: a profile does not fit the inputs, or there is none and an input needs one.
    """
    open_inputs = [spec for spec in inputs if not spec.is_fixed]
    if open_inputs and not given:
        raise WrongSetting(
            f"the rows of {title} may differ, and nothing says how much: {', '.join(map(str, open_inputs))}",
            hint=f"give `profiles`: {_example(open_inputs)}",
        )
    found = tuple(_profile(each, inputs, f"profile {number} of {title}") for number, each in enumerate(given, 1))
    return found if open_inputs else ()


def batch_max_of(given: Sequence[Given], wanted: int) -> int:
    """Rows of the largest batch: as many as wanted, where a profile reaches that far."""
    return min(wanted, max((min(each["max"][0] for each in profile.values()) for profile in given), default=wanted))


def _profile(given: Given, inputs: Sequence[TensorSpec], title: str) -> Profile:
    known = {spec.name: spec for spec in inputs}
    if unknown := [name for name in given if name not in known]:
        raise WrongSetting(f"{title} names `{unknown[0]}`, which is no input", hint=f"inputs: {', '.join(known)}")
    for name, bounds in given.items():
        _check(bounds, known[name], title)
    if missing := [spec for spec in inputs if not spec.is_fixed and spec.name not in given]:
        raise WrongSetting(
            f"{title} does not say which sizes `{missing[0].name}` has", hint=f"give them: {_example(missing)}"
        )
    least, usual, most = (tuple(_row_shape(given.get(spec.name), spec, bound) for spec in inputs) for bound in BOUNDS)
    for shapes, bound in zip((least, usual, most), BOUNDS, strict=True):
        _require_agreement(shapes, inputs, bound, title)
    return Profile(least, usual, most)


def _check(bounds: Mapping[str, Sequence[int]], spec: TensorSpec, title: str) -> None:
    """Raise where the bounds of one input are not whole, not in order, or not of its shape."""
    example = f"write it like {_example([spec])}"
    if sorted(bounds) != sorted(BOUNDS):
        raise WrongSetting(f"{title} has not just `min`, `opt` and `max` for `{spec.name}`", hint=example)
    for bound in BOUNDS:
        shape = bounds[bound]
        if len(shape) != 1 + len(spec.row_shape) or not spec.fits(shape[1:]) or shape[0] < 1:
            raise WrongSetting(f"{title} gives {list(shape)} as `{bound}` of the input {spec}", hint=example)
    least, usual, most = (bounds[bound] for bound in BOUNDS)
    if not all(low <= best <= high for low, best, high in zip(least, usual, most, strict=True)):
        raise WrongSetting(f"{title}: `min`, `opt` and `max` of `{spec.name}` are not in that order", hint=example)


def _row_shape(bounds: Mapping[str, Sequence[int]] | None, spec: TensorSpec, bound: str) -> RowShape:
    return tuple(bounds[bound][1:]) if bounds is not None else spec.row_shape


def _require_agreement(shapes: RowShapes, inputs: Sequence[TensorSpec], bound: str, title: str) -> None:
    """Raise where dimensions of one name differ."""
    known: dict[str, int] = {}
    for spec, shape in zip(inputs, shapes, strict=True):
        for symbol, size in zip(spec.symbols, shape, strict=False):
            if symbol and known.setdefault(symbol, size) != size:
                raise WrongSetting(
                    f"{title} has `{symbol}` as {known[symbol]} and as {size} in `{bound}`",
                    hint=f"the model calls them the same, so their sizes are: change `{spec.name}`",
                )


def _example(specs: Sequence[TensorSpec]) -> str:
    def shape(rows: int, size: int) -> str:
        return str([rows, *(size if wanted < 0 else wanted for wanted in spec.row_shape)])

    parts = []
    for spec in specs:
        parts.append(f'"{spec.name}": {{"min": {shape(1, 1)}, "opt": {shape(8, 64)}, "max": {shape(32, 512)}}}')
    return f"[{{{', '.join(parts)}}}]"
