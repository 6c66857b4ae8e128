"""What can go wrong between a plan and a GPU, in words that name the way out."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.bindings import Bindings
from nomadserve_runtime.engines.trt.cache import Plan
from nomadserve_runtime.engines.trt.executions import Refused
from nomadserve_runtime.engines.trt.metadata import Metadata
from nomadserve_runtime.errors import CannotStart, WrongSetting

if TYPE_CHECKING:
    import tensorrt as trt

MEMORY_HINT = "a smaller `max_batch`, fewer `instances`, or a GPU with more memory; `nvidia-smi` shows who else uses it"
GPU_HINT = "`nvidia-smi` must work on this node, with a driver that is new enough for this TensorRT"
REBUILD_HINT = (
    "a plan runs on the version of TensorRT and the kind of GPU that it was built with: build it again on this node, "
    "`nomadserve build model.onnx`, or serve the `.onnx` itself"
)


class PlanRefused(WrongSetting):
    """A plan was made for something else, or is damaged."""


def deserialized(bindings: Bindings, plan: Plan, title: str) -> "trt.ICudaEngine":
    """The engine of a plan, on the GPU whose context is current.

    Raises:
        PlanRefused: it was made for something else, or is damaged.
        CannotStart: the GPU has too little memory for it, or can't be used.
    """
    bindings.errors.clear()
    engine: trt.ICudaEngine | None = bindings.module.Runtime(bindings.logger).deserialize_cuda_engine(plan.data)
    if engine is not None:
        return engine
    said = _said(bindings)
    if _is_about_memory(said):
        raise _no_memory(title, said)
    if "cuda runtime" in said.lower():
        raise CannotStart(f"{bindings.title} can't use the GPU: {said}", hint=GPU_HINT)
    origin = _origin(plan.metadata)
    here = f"here is {bindings.title}"
    raise PlanRefused(
        f"{bindings.title} can't load {title}: {said or 'it does not say why'}"
        + (f"\n{origin}; {here}" if origin else ""),
        hint=REBUILD_HINT,
    )


@contextmanager
def translated(bindings: Bindings, title: str) -> Iterator[None]:
    """Turn what TensorRT and CUDA do while a model is set up into errors with a way out."""
    bindings.errors.clear()
    try:
        yield
    except cuda.driver.MemoryError as error:
        raise _no_memory(title, str(error)) from error
    except (Refused, cuda.driver.Error) as error:
        said = _said(bindings) or str(error).strip()
        if _is_about_memory(said):
            raise _no_memory(title, said) from error
        raise CannotStart(
            f"{title} can't be set up on the GPU: {said}",
            hint="`nvidia-smi` shows whether the GPU is well; a plan built again on this node rules the plan out",
        ) from error


def no_page_locked_memory(shape: tuple[int, ...], dtype: np.dtype, error: Exception) -> CannotStart:
    """A slot of the queue has no place."""
    mib = math.prod(shape) * dtype.itemsize / 2**20
    return CannotStart(
        f"not enough page-locked memory for the queue: {mib:.1f} MiB more can't be had: {error}",
        hint="a smaller `max_batch` or queue (`--queue-max`, `max` in `queue`), or more `memory` in `resources`",
    )


def _no_memory(title: str, said: str) -> CannotStart:
    return CannotStart(
        f"not enough memory on the GPU for {title} ({cuda.free_share()}): {said}",
        hint=MEMORY_HINT,
    )


def _is_about_memory(text: str) -> bool:
    lowered = text.lower().replace(" ", "")
    return "outofmemory" in lowered or "cudamalloc" in lowered


def _said(bindings: Bindings) -> str:
    """What TensorRT called an error, on one line; its first one says the cause, later ones what follows of it."""
    return " ".join(bindings.errors[0].split())[:400] if bindings.errors else ""


def _origin(metadata: Metadata | None) -> str:
    if metadata is None:
        return ""
    flavour = "TensorRT-RTX" if metadata.flavour == "tensorrt_rtx" else "TensorRT"
    gpu = f" for {metadata.gpu or 'a GPU'}" if metadata.gpu or metadata.compute_capability else ""
    capability = f" (compute capability {metadata.compute_capability})" if metadata.compute_capability else ""
    return f"it was built with {flavour} {metadata.version}{gpu}{capability}"
