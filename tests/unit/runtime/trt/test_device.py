import ctypes
from typing import Any

import numpy as np
import pytest

from nomadserve_runtime.engines.trt.device import DeviceArrays, Gpu, find_gpu
from nomadserve_runtime.errors import CannotStart


class Driver:
    """As much of libcuda as is called, with one GPU; `memory` holds what was copied to it."""

    def __init__(self, *, status: int = 0, gpus: int = 1) -> None:
        self.status, self.gpus = status, gpus
        self.memory: dict[int, bytes] = {}
        self.current = None

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDeviceGet(self, device: Any, ordinal: int) -> int:
        return 0 if ordinal < self.gpus else 101

    def cuDeviceGetName(self, name: Any, length: int, device: Any) -> int:
        name.value = b"NVIDIA L4"
        return 0

    def cuDeviceGetAttribute(self, value: Any, attribute: int, device: Any) -> int:
        value._obj.value = {75: 8, 76: 9}[attribute]
        return 0

    def cuDevicePrimaryCtxRetain(self, context: Any, device: Any) -> int:
        context._obj.value = 77
        return 0

    def cuCtxSetCurrent(self, context: Any) -> int:
        self.current = context.value
        return 0

    def cuMemAlloc_v2(self, address: Any, nbytes: Any) -> int:
        address._obj.value = 0x1000 * (len(self.memory) + 1)
        self.memory[address._obj.value] = b""
        return self.status

    def cuMemcpyHtoD_v2(self, address: Any, source: Any, nbytes: Any) -> int:
        self.memory[address.value] = ctypes.string_at(source.value, nbytes.value)
        return 0

    def cuMemFree_v2(self, address: Any) -> int:
        del self.memory[address.value]
        return 0


def test_the_gpu_of_the_process_is_known_by_name_and_compute_capability() -> None:
    assert find_gpu(Driver()) == Gpu("NVIDIA L4", "8.9")


@pytest.mark.parametrize("driver", [Driver(status=35), Driver(gpus=0)], ids=["driver too old", "no GPU"])
def test_without_a_gpu_there_is_none(driver: Driver) -> None:
    assert find_gpu(driver) is None


def test_rows_reach_the_gpu_in_the_context_of_the_builder() -> None:
    driver = Driver()
    arrays = DeviceArrays(driver)
    rows = np.arange(6, dtype=np.float32).reshape(2, 3)
    address = arrays.put("x", rows)
    assert driver.current == 77
    assert driver.memory[address] == rows.tobytes()
    assert arrays.put("x", rows + 1) == address, "the memory of a name is used again"
    assert driver.memory[address] == (rows + 1).tobytes()
    arrays.free()
    assert not driver.memory


def test_a_gpu_without_memory_ends_the_build_with_a_word() -> None:
    with pytest.raises(CannotStart, match="CUDA error 2"):
        DeviceArrays(Driver(status=2)).put("x", np.zeros(4, np.float32))
