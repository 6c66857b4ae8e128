"""The one door to CUDA: pycuda finds the driver, and this says in our words where there is none.

Whatever CUDA gives belongs to the thread whose context is current.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np

from nomadserve_runtime.errors import CannotStart
from nomadserve_runtime.gpu import SHOWN

missing: Exception | None = None
try:
    from pycuda import driver as driver
except ImportError as error:  # the package, or the driver's library that it is linked to
    missing = error

# CU_STREAM_NON_BLOCKING of cuda.h: nothing that runs on the null stream, such as another library's copies, holds it up.
NON_BLOCKING = 1

PYCUDA_HINT = (
    "`pip install 'nomadserve[tensorrt]'`; pycuda is compiled while it is installed, which needs CUDA's `nvcc` and a "
    "C++ compiler"
)
DRIVER_HINT = "`nvidia-smi` must work on this node; a container has to be run with NVIDIA's runtime"


def start() -> int:
    """Start CUDA; how many GPUs it sees. They are numbered from 0, in the order of CUDA_VISIBLE_DEVICES.

    Raises:
        CannotStart: pycuda, the driver, or a GPU is missing.
    """
    if isinstance(missing, ModuleNotFoundError):
        raise CannotStart("the engine `tensorrt` needs the package pycuda, which is not there", hint=PYCUDA_HINT)
    if missing is not None:
        raise CannotStart(f"CUDA can't be used here: {_first_line(missing)}", hint=DRIVER_HINT)
    try:
        driver.init()
        gpus = driver.Device.count()
    except driver.Error as error:
        raise CannotStart(f"CUDA does not start: {_first_line(error)}", hint=_visible_hint()) from error
    if not gpus:
        raise CannotStart("CUDA sees no GPU", hint=_visible_hint())
    return gpus


@cache
def library() -> Any:
    """The driver's own library, for what pycuda lacks. pycuda is linked to it, so it is there once CUDA has started."""
    return ctypes.CDLL("libcuda.so.1")


def context_of(gpu: int) -> "driver.Context":
    """The context that a GPU has for the whole process, which TensorRT uses too; raises `CannotStart`."""
    try:
        return driver.Device(gpu).retain_primary_context()
    except driver.Error as error:
        raise CannotStart(f"GPU {gpu} can't be used: {_first_line(error)}", hint=_visible_hint()) from error


@contextmanager
def current(context: "driver.Context") -> Iterator[None]:
    """Make a context that of this thread while entered; pycuda aborts the process where one is left behind."""
    context.push()
    try:
        yield
    finally:
        driver.Context.pop()


def stream() -> "driver.Stream":
    """A stream that runs beside all others."""
    return driver.Stream(NON_BLOCKING)


def event() -> "driver.Event":
    """An event without a clock. Who waits for it sleeps: spinning would take a core from decoding requests."""
    return driver.Event(driver.event_flags.BLOCKING_SYNC | driver.event_flags.DISABLE_TIMING)


def zeroed(nbytes: int) -> "driver.DeviceAllocation":
    """Memory of the GPU. Zeros, because padding is read before it is ever written, and is an index in some models."""
    buffer = driver.mem_alloc(nbytes)
    driver.memset_d8(int(buffer), 0, nbytes)
    driver.Context.synchronize()  # the null stream, which our streams don't wait for
    return buffer


def page_locked(nbytes: int) -> np.ndarray:
    """Bytes that the GPU copies without the processor. Given back by `free`, and never by themselves."""
    return driver.pagelocked_empty(max(nbytes, 1), np.uint8, mem_flags=driver.host_alloc_flags.PORTABLE)


def free(array: np.ndarray) -> None:
    """Give page-locked memory back, in the thread that asked for it; whatever still looks at it must not."""
    array.base.free()  # type: ignore[union-attr]  # pycuda's own object holds the memory


def free_share() -> str:
    """How much memory of the GPU is free, for people."""
    free, total = driver.mem_get_info()
    return f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def is_broken() -> bool:
    """Whether the context is lost for good. Blocks until the GPU has nothing to do.

    CUDA repeats the error of a crashed kernel at every later call in the process: whoever merely asks gets it.
    https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__TYPES.html (CUDA_ERROR_ILLEGAL_ADDRESS and others)
    """
    try:
        driver.Context.synchronize()
    except driver.Error:
        return True
    return False


def _visible_hint() -> str:
    shown = os.environ.get(SHOWN)
    return DRIVER_HINT if shown is None else f"{DRIVER_HINT}; `{SHOWN}` is `{shown}` here"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
