"""FP32 models as FP16, for a TensorRT that takes types from the model alone: the converter of ONNX Runtime does it."""

import logging
import warnings
from pathlib import Path
from typing import Any

from nomadserve_runtime.engines.trt.model import require_onnx
from nomadserve_runtime.errors import CannotStart, WrongSetting

log = logging.getLogger("nomadserve.tensorrt")

# protobuf can't write messages of 2 GiB; weights of this much are written beside the model.
INSIDE_NBYTES_MAX = 1 << 30


def convert_to_fp16(path: Path, folder: Path) -> Path:
    """Write an FP16 copy of the model into `folder`; its inputs and outputs keep their types.

    Raises:
        CannotStart: the converter is not there.
        WrongSetting: it can't convert this model.
    """
    onnx = require_onnx()
    convert = _converter()
    target = folder / path.name
    try:
        with warnings.catch_warnings():
            # Numbers too small or too large for FP16 are clipped, each with a warning: one line says it all.
            warnings.simplefilter("ignore")
            model = convert(onnx.load(str(path)), keep_io_types=True)
        is_large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > INSIDE_NBYTES_MAX
        onnx.save(model, str(target), save_as_external_data=is_large, location=f"{path.name}.weights")
    except Exception as error:  # onnx, protobuf and the converter each have classes of their own
        reason = (str(error) or repr(error)).splitlines()[0][:300]
        raise WrongSetting(
            f"`{path.name}` can't be converted to FP16: {reason}",
            hint="export it in FP16, or `python -m modelopt.onnx.autocast --onnx_path model.onnx` converts it",
        ) from error
    log.info("%s: converted to FP16, inputs and outputs as they were", path.name)
    return target


def _converter() -> Any:
    try:
        from onnxruntime.transformers.float16 import convert_float_to_float16
    except ImportError as error:
        raise CannotStart(
            "FP16 needs a model in FP16 here, or the package onnxruntime to convert one",
            hint="`pip install onnxruntime`, or export the model in FP16",
        ) from error
    return convert_float_to_float16
