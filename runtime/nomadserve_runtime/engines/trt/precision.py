"""Which network and which builder flags give a precision, on the TensorRT that is here; or why there is no way."""

from dataclasses import dataclass
from typing import Literal

from nomadserve_runtime.engines.trt.bindings import Bindings
from nomadserve_runtime.engines.trt.model import OnnxModel
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.errors import WrongSetting

QUANTIZE_HINT = (
    "quantize it with NVIDIA's Model Optimizer (`python -m modelopt.onnx.quantization --onnx_path model.onnx "
    "--quantize_mode {mode} --calibration_data data.npz`) and build what comes of it"
)
_BF16_HINT = (
    "`python -m modelopt.onnx.autocast --onnx_path model.onnx --low_precision_type bf16` converts it, and so does an "
    "export of the model in bfloat16"
)


@dataclass(frozen=True)
class Recipe:
    """How the network is made.

    Attributes:
        is_strongly_typed: whether the model's own types are all there is; else TensorRT picks among those that `flags`
            allow, layer by layer.
        flags: members of BuilderFlag to set. TF32 is cleared where it is not among them.
        converts_to_fp16: whether the model is converted before it is parsed; inputs and outputs keep their types.
        calibrates: whether ranges for INT8 are measured with the calibration data.
    """

    is_strongly_typed: bool = True
    flags: frozenset[str] = frozenset({"TF32"})
    converts_to_fp16: bool = False
    calibrates: bool = False


def recipe_for(options: BuildOptions, model: OnnxModel, bindings: Bindings) -> Recipe:
    """What to do for `options.precision`.

    Raises:
        WrongSetting: this TensorRT can't, with this model; the hint names what can.
    """
    if options.calibration and options.precision != "int8":
        raise WrongSetting("calibration data without the precision int8", hint="add it, or leave the data away")
    match options.precision:
        case "fp32":
            return Recipe(flags=frozenset())
        case "tf32":
            return Recipe()
        case "fp16":
            return _half("FP16", "FLOAT16", model, bindings) or Recipe(converts_to_fp16=True)
        case "bf16":
            return _half("BF16", "BFLOAT16", model, bindings) or _refuse_bf16(model, bindings)
        case "int8":
            return _int8(options, model, bindings)
        case "fp8":
            return _fp8(model)


def _half(flag: Literal["FP16", "BF16"], onnx_type: str, model: OnnxModel, bindings: Bindings) -> Recipe | None:
    """Taken as it is where it holds the format already, else left to TensorRT where it still has the flag."""
    if onnx_type in model.formats:
        return Recipe()
    if bindings.has("BuilderFlag", flag):
        return Recipe(is_strongly_typed=False, flags=frozenset({"TF32", flag}))
    return None


def _refuse_bf16(model: OnnxModel, bindings: Bindings) -> Recipe:
    raise WrongSetting(
        f"{bindings.title} takes types from the model alone, and `{model.path.name}` holds no BF16", hint=_BF16_HINT
    )


def _int8(options: BuildOptions, model: OnnxModel, bindings: Bindings) -> Recipe:
    if model.is_quantized:
        if options.calibration:
            hint = "leave the calibration data away"
            raise WrongSetting(f"`{model.path.name}` is quantized already: its own ranges count", hint=hint)
        return Recipe()
    can_calibrate = bindings.has("BuilderFlag", "INT8") and hasattr(bindings.module, "IInt8EntropyCalibrator2")
    if not can_calibrate:
        message = f"{bindings.title} can't calibrate, and `{model.path.name}` holds no quantization of its own"
        raise WrongSetting(message, hint=QUANTIZE_HINT.format(mode="int8"))
    if not options.calibration:
        raise WrongSetting(
            f"`{model.path.name}` holds no quantization of its own, so int8 needs calibration data",
            hint="`--calibration data.npz`: an array for each input, with the rows of a few hundred real requests",
        )
    flags = frozenset({"TF32", "INT8", "FP16"})
    return Recipe(is_strongly_typed=False, flags=flags, calibrates=True)


def _fp8(model: OnnxModel) -> Recipe:
    if not any(name.startswith("FLOAT8") for name in model.formats):
        message = f"`{model.path.name}` holds no FP8: TensorRT takes that from the model alone"
        raise WrongSetting(message, hint=QUANTIZE_HINT.format(mode="fp8"))
    return Recipe()
