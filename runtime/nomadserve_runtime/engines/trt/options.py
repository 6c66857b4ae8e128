"""How a model is to be built: what the service file, the command line and the environment may ask for."""

from typing import Annotated, Any, Literal

import msgspec

from nomadserve_runtime.config import ModelConfig
from nomadserve_runtime.errors import WrongSetting

Precision = Literal["fp32", "tf32", "fp16", "bf16", "int8", "fp8"]
PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")

Sizes = tuple[Annotated[int, msgspec.Meta(ge=0)], ...]


class ShapeRange(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The shapes of one input that a profile covers, batch dimension included; the plan is fastest at `opt`."""

    min: Sizes
    opt: Sizes
    max: Sizes

    def __post_init__(self) -> None:
        if not len(self.min) == len(self.opt) == len(self.max):
            raise ValueError("`min`, `opt` and `max` differ in their number of dimensions")
        if not all(low <= best <= high for low, best, high in zip(self.min, self.opt, self.max, strict=True)):
            raise ValueError("`min`, `opt` and `max` are not in that order")


Profile = dict[str, ShapeRange]
"""Name of an input → the shapes of it that one optimization profile covers."""


class BuildOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes the plan that comes of a model.

    Attributes:
        precision: the fastest number format that layers may compute in. `tf32` is TensorRT's own default: FP32 in
            memory, 10 bits of mantissa inside of matrix products; `fp32` forbids that.
        profiles: in the order in which the engine numbers them; none makes one of `max_batch`.
        max_batch: rows of the largest batch, where `profiles` does not say.
        compute_capability: of the GPU to build for, such as "8.9"; empty for the one that is here.
        calibration: path of an .npz file with rows of every input, for `int8` of a model without quantization of its
            own; empty for none.
        optimization_level: 0 (builds fast) to 5 (runs fast); None for TensorRT's own choice.
        workspace_mib: scratch memory that layers may use; None for all there is.
    """

    precision: Precision = "tf32"
    profiles: tuple[Profile, ...] = ()
    max_batch: Annotated[int, msgspec.Meta(ge=1)] = 32
    compute_capability: str = ""
    calibration: str = ""
    optimization_level: Annotated[int, msgspec.Meta(ge=0, le=5)] | None = None
    workspace_mib: Annotated[int, msgspec.Meta(ge=1)] | None = None


def options_of(model: ModelConfig) -> BuildOptions:
    """How the model of a job is built. Whoever builds it ahead, and its replicas, must find the same plan.

    Raises:
        WrongSetting: no plan can be like that.
    """
    asked: dict[str, Any] = {"max_batch": model.max_batch, "profiles": model.profiles}
    if model.precision:
        asked["precision"] = model.precision
    try:
        return msgspec.convert(asked, BuildOptions)
    except msgspec.ValidationError as error:
        raise WrongSetting(
            f"the model `{model.name}` can't be built like that: {error}", hint="see docs/tensorrt.md"
        ) from error
