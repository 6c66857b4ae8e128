"""Which shapes a plan covers: the profiles asked for, checked against the model, or one made of `max_batch`."""

from collections.abc import Sequence
from dataclasses import dataclass

from nomadserve_runtime.engines.trt.options import BuildOptions, Profile, ShapeRange
from nomadserve_runtime.errors import WrongSetting


@dataclass(frozen=True)
class Input:
    """An input of a parsed network; -1 stands for a size that the model leaves open."""

    name: str
    shape: tuple[int, ...]

    @property
    def is_dynamic(self) -> bool:
        """Whether a profile has to say something about it."""
        return -1 in self.shape

    def __str__(self) -> str:
        sizes = ", ".join("?" if size < 0 else str(size) for size in self.shape)
        return f"`{self.name}` [{sizes}]"


def profiles_for(inputs: Sequence[Input], options: BuildOptions) -> tuple[Profile, ...]:
    """The profiles to build with; none where every shape is fixed.

    Raises:
        WrongSetting: a profile contradicts the model, or the model leaves open what nothing says.
    """
    dynamic = [each for each in inputs if each.is_dynamic]
    if not options.profiles:
        return (_from_max_batch(dynamic, options.max_batch),) if dynamic else ()
    for number, profile in enumerate(options.profiles, 1):
        title = "the profile" if len(options.profiles) == 1 else f"profile {number}"
        _check(profile, title, inputs)
    return options.profiles


def _from_max_batch(dynamic: Sequence[Input], max_batch: int) -> Profile:
    """One profile, best at full batches: those are the ones that count under load."""
    for each in dynamic:
        if -1 in each.shape[1:]:
            sizes = ",".join("16" if size < 0 else str(size) for size in each.shape[1:])
            raise WrongSetting(
                f"the input {each} has open sizes beside its first, the batch: which ones to build for must be said",
                hint=f"add a profile, such as `{each.name}=1,{sizes}:{max_batch},{sizes}:{max_batch},{sizes}` "
                "(min:opt:max), in `profiles` or as `--profile`",
            )
    return {
        each.name: ShapeRange((1, *each.shape[1:]), (max_batch, *each.shape[1:]), (max_batch, *each.shape[1:]))
        for each in dynamic
    }


def _check(profile: Profile, title: str, inputs: Sequence[Input]) -> None:
    known = {each.name: each for each in inputs}
    listed = ", ".join(map(str, inputs))
    for name in profile:
        if name not in known:
            raise WrongSetting(f"{title} names an input `{name}`, which the model has not", hint=f"it has {listed}")
    for each in inputs:
        shapes = profile.get(each.name)
        if shapes is None:
            if each.is_dynamic:
                hint = "give `min`, `opt` and `max` for every input with open sizes"
                raise WrongSetting(f"{title} says nothing about the input {each}, whose sizes are open", hint=hint)
            continue
        _check_shapes(shapes, title, each)


def _check_shapes(shapes: ShapeRange, title: str, each: Input) -> None:
    if len(shapes.opt) != len(each.shape):
        raise WrongSetting(
            f"{title} gives {len(shapes.opt)} sizes for the input {each}, which has {len(each.shape)}",
            hint="the batch is the first size of each shape",
        )
    for axis, (size, *wanted) in enumerate(zip(each.shape, shapes.min, shapes.opt, shapes.max, strict=True)):
        if size >= 0 and set(wanted) != {size}:
            raise WrongSetting(
                f"{title} asks for sizes other than {size} on axis {axis} of the input {each}, which is fixed there",
                hint=f"write {size} there in `min`, `opt` and `max`, or export the model with that size open",
            )
