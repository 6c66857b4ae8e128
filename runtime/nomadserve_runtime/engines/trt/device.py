"""The GPU of this process, asked of its driver itself: neither a CUDA context nor a package is needed to know it."""

import ctypes
from dataclasses import dataclass
from typing import Any

import numpy as np

from nomadserve_runtime.errors import CannotStart

# CUdevice_attribute of cuda.h
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_SUCCESS = 0


@dataclass(frozen=True)
class Gpu:
    """The first GPU that CUDA_VISIBLE_DEVICES leaves to this process.

    Attributes:
        name: as its driver calls it: "NVIDIA H200".
        compute_capability: "9.0".
    """

    name: str
    compute_capability: str


def find_gpu(driver: Any = None) -> Gpu | None:
    """The GPU that a build would run on; None where there is no driver, or it shows none.

    driver: libcuda.so.1, or what stands for it in a test.
    """
    try:
        cuda = driver or ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    device, number = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != _SUCCESS or cuda.cuDeviceGet(ctypes.byref(device), 0) != _SUCCESS:
        return None
    name = ctypes.create_string_buffer(256)
    cuda.cuDeviceGetName(name, len(name), device)
    parts = []
    for attribute in (_CAPABILITY_MAJOR, _CAPABILITY_MINOR):
        cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
        parts.append(str(number.value))
    return Gpu(name.value.decode(), ".".join(parts))


class DeviceArrays:
    """Arrays copied to the GPU, one buffer for each name; in the context that TensorRT's builder works in."""

    def __init__(self, driver: Any = None) -> None:
        self._cuda = driver or None
        self._buffers: dict[str, tuple[ctypes.c_uint64, int]] = {}

    def put(self, name: str, array: np.ndarray) -> int:
        """The address on the GPU of a copy of `array`, whose memory is dense; a later one of that name replaces it.

        Raises:
            CannotStart: the GPU has no memory for it.
        """
        cuda = self._driver()
        if name not in self._buffers or self._buffers[name][1] < array.nbytes:
            address = ctypes.c_uint64()
            self._check(cuda.cuMemAlloc_v2(ctypes.byref(address), ctypes.c_size_t(array.nbytes)))
            self._buffers[name] = address, array.nbytes
        address = self._buffers[name][0]
        self._check(cuda.cuMemcpyHtoD_v2(address, ctypes.c_void_p(array.ctypes.data), ctypes.c_size_t(array.nbytes)))
        return address.value

    def free(self) -> None:
        """Give the memory back."""
        for address, _ in self._buffers.values():
            self._check(self._driver().cuMemFree_v2(address))
        self._buffers.clear()

    def _driver(self) -> Any:
        """The driver, with the device's primary context current in this thread: that is the one the builder uses."""
        self._cuda = self._cuda or ctypes.CDLL("libcuda.so.1")
        device, context = ctypes.c_int(), ctypes.c_void_p()
        self._check(self._cuda.cuDeviceGet(ctypes.byref(device), 0))
        if not self._buffers:
            self._check(self._cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), device))
            self._check(self._cuda.cuCtxSetCurrent(context))
        return self._cuda

    def _check(self, status: int) -> None:
        if status != _SUCCESS:
            raise CannotStart(
                f"the GPU refuses the calibration data: CUDA error {status}", hint="stop what else runs on the GPU"
            )
