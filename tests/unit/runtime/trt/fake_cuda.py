"""A GPU that is not there: just the calls of pycuda and of the driver's library that the runtime makes.

Streams run nothing until somebody waits, and then only what that wait needs: the worst order that CUDA may take. So a
missing event gives wrong numbers, and host memory that is touched too early is seen to be. Every call needs a current
context in its thread, as with the real one; fresh device memory is full of garbage; a crashed GPU stays crashed.
"""

import ctypes
import itertools
import threading
import weakref
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np

GARBAGE = 0xA5
CRASH = "an illegal memory access was encountered"

Operation = Callable[[], None]


class Machine:
    """All GPUs, and what tests want of them and want to know.

    Attributes:
        gpus: how many there are; none is a driver without one.
        capacity: bytes on each.
        crashed: whether every call fails from now on.
        capture_fails: whether recording a graph ends with an error.
        memory: address → the bytes there.
        pinned: pieces of page-locked memory that are out, of `pinned_max`.
        problems: what must never happen, and did.
        threads: those that called CUDA.
        launches: graphs that were launched.
    """

    def __init__(self, *, gpus: int = 1, capacity: int = 2**30) -> None:
        self.gpus = gpus
        self.capacity = capacity
        self.crashed = False
        self.capture_fails = False
        self.memory: dict[int, np.ndarray] = {}
        self.pinned = 0
        self.pinned_max = 1000
        self.problems: list[str] = []
        self.threads: set[str] = set()
        self.launches = 0
        self.graphs: dict[int, list[Operation]] = {}
        self.executables: dict[int, list[Operation]] = {}
        self.streams: Any = weakref.WeakValueDictionary()
        self.lock = threading.RLock()
        self.here = threading.local()
        self.numbers = itertools.count(1)

    def stack(self) -> list[int]:
        """The contexts of this thread, by the number of their GPU."""
        if not hasattr(self.here, "stack"):
            self.here.stack = []
        stack: list[int] = self.here.stack
        return stack

    def used(self, gpu: int) -> int:
        return sum(len(array) for address, array in self.memory.items() if address >> 40 == gpu + 1)

    def bytes_at(self, address: int, nbytes: int) -> np.ndarray:
        """Device memory, from anywhere inside of an allocation."""
        for start, array in self.memory.items():
            if start <= address and address + nbytes <= start + len(array):
                return array[address - start : address - start + nbytes]
        raise AssertionError(f"{nbytes} bytes at {address:#x} are not allocated")

    def drain(self) -> None:
        for stream in list(self.streams.values()):
            stream.run(len(stream.operations))


def fake_driver(machine: Machine) -> ModuleType:
    """The module `pycuda.driver` of that machine."""
    module: Any = ModuleType("pycuda.driver")
    for kind in (Error, MemoryError_, LogicError, LaunchError, RuntimeError_):
        setattr(module, kind.__name__.strip("_"), kind)

    def call(name: str) -> None:
        """What every call of CUDA begins with."""
        machine.threads.add(threading.current_thread().name)
        if machine.crashed:
            raise LogicError(f"{name} failed: {CRASH}")
        if not machine.stack():
            raise LogicError(f"{name} failed: invalid device context")

    class Device:
        def __init__(self, ordinal: int, /) -> None:
            assert 0 <= ordinal < machine.gpus
            self._gpu = ordinal

        @staticmethod
        def count() -> int:
            return machine.gpus

        def name(self) -> str:
            return "Fake GPU"

        def compute_capability(self) -> tuple[int, int]:
            return (9, 0)

        def retain_primary_context(self) -> "Context":
            if machine.crashed:
                raise LogicError(f"cuDevicePrimaryCtxRetain failed: {CRASH}")
            return Context(self._gpu)

    class Context:
        def __init__(self, gpu: int) -> None:
            self._gpu = gpu

        def push(self) -> None:
            machine.stack().append(self._gpu)

        @staticmethod
        def pop() -> None:
            machine.stack().pop()

        @staticmethod
        def synchronize() -> None:
            call("cuCtxSynchronize")
            with machine.lock:
                machine.drain()
            call("cuCtxSynchronize")

    class Stream:
        def __init__(self, flags: int = 0) -> None:
            call("cuStreamCreate")
            assert flags == 1
            self.handle = next(machine.numbers)
            self.operations: list[Operation] = []
            self.recording: list[Operation] | None = None
            self._ran = 0
            machine.streams[self.handle] = self

        def add(self, operation: Operation) -> None:
            if self.recording is not None:
                self.recording.append(operation)
            else:
                self.operations.append(operation)

        def run(self, until: int) -> None:
            """Run what was enqueued first, up to that many operations."""
            while self._ran < until and not machine.crashed:
                self._ran += 1
                self.operations[self._ran - 1]()

        def synchronize(self) -> None:
            call("cuStreamSynchronize")
            with machine.lock:
                self.run(len(self.operations))
            call("cuStreamSynchronize")

        def wait_for_event(self, event: "Event", /) -> None:
            call("cuStreamWaitEvent")
            stream, until = event.point
            self.add(lambda: stream.run(until))

        def __del__(self) -> None:
            _check_thread(machine, "a stream")

    class Event:
        def __init__(self, flags: int = 0) -> None:
            call("cuEventCreate")
            assert flags == module.event_flags.BLOCKING_SYNC | module.event_flags.DISABLE_TIMING
            self.point: Any = None

        def record(self, stream: Any = None) -> "Event":
            call("cuEventRecord")
            self.point = (stream, len(stream.operations))
            return self

        def synchronize(self) -> "Event":
            call("cuEventSynchronize")
            with machine.lock:
                stream, until = self.point
                stream.run(until)
            call("cuEventSynchronize")
            return self

        def __del__(self) -> None:
            _check_thread(machine, "an event")

    class DeviceAllocation:
        def __init__(self, address: int) -> None:
            self._address = address

        def __int__(self) -> int:
            return self._address

        def free(self) -> None:
            call("cuMemFree")
            del machine.memory[self._address]

    class PagelockedHostAllocation:
        def __init__(self, nbytes: int) -> None:
            self._memory: Any = (ctypes.c_ubyte * nbytes)()
            self.__array_interface__ = np.frombuffer(self._memory, np.uint8).__array_interface__
            machine.pinned += 1

        def free(self) -> None:
            call("cuMemFreeHost")
            assert self._memory is not None
            machine.pinned -= 1

    def init(flags: int = 0) -> None:
        if not machine.gpus:
            raise RuntimeError_("cuInit failed: no CUDA-capable device is detected")

    def mem_alloc(nbytes: int, /) -> DeviceAllocation:
        call("cuMemAlloc")
        gpu = machine.stack()[-1]
        assert nbytes > 0
        if machine.used(gpu) + nbytes > machine.capacity:
            raise MemoryError_("cuMemAlloc failed: out of memory")
        address = (gpu + 1 << 40) + (next(machine.numbers) << 24)
        machine.memory[address] = np.full(nbytes, GARBAGE, np.uint8)
        return DeviceAllocation(address)

    def mem_get_info() -> tuple[int, int]:
        call("cuMemGetInfo")
        return machine.capacity - machine.used(machine.stack()[-1]), machine.capacity

    def memset_d8(dest: int, data: int, size: int) -> None:
        call("cuMemsetD8")
        machine.bytes_at(dest, size)[:] = data

    def memcpy_htod_async(dest: int, src: np.ndarray, stream: Any = None) -> None:
        call("cuMemcpyHtoDAsync")
        target, source = machine.bytes_at(dest, src.nbytes), _plain(src)
        stream.add(lambda: np.copyto(target, source))

    def memcpy_dtoh_async(dest: np.ndarray, src: int, stream: Any = None) -> None:
        call("cuMemcpyDtoHAsync")
        source, target = machine.bytes_at(src, dest.nbytes), _plain(dest)
        stream.add(lambda: np.copyto(target, source))

    def pagelocked_empty(shape: int, dtype: Any, order: str = "C", mem_flags: int = 0) -> np.ndarray:
        call("cuMemHostAlloc")
        if machine.pinned >= machine.pinned_max:
            raise MemoryError_("cuMemHostAlloc failed: out of memory")
        assert (dtype, mem_flags) == (np.uint8, 1)
        return np.asarray(PagelockedHostAllocation(shape))

    module.event_flags = SimpleNamespace(BLOCKING_SYNC=1, DISABLE_TIMING=2)
    module.host_alloc_flags = SimpleNamespace(PORTABLE=1)
    for thing in (Device, Context, Stream, Event, DeviceAllocation, PagelockedHostAllocation, init, mem_alloc):
        setattr(module, thing.__name__, thing)
    for thing in (mem_get_info, memset_d8, memcpy_htod_async, memcpy_dtoh_async, pagelocked_empty):
        setattr(module, thing.__name__, thing)
    return module


class FakeLibrary:
    """`libcuda.so.1`, as `ctypes` opens it: functions that answer 0, or the number of an error."""

    NAMES: ClassVar = {900: b"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"}

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def cuStreamBeginCapture_v2(self, stream: ctypes.c_void_p, mode: int) -> int:
        assert mode == 1
        self._stream(stream).recording = []
        return 0

    def cuStreamEndCapture(self, stream: ctypes.c_void_p, graph: Any) -> int:
        found = self._stream(stream)
        operations, found.recording = found.recording, None
        if self._machine.capture_fails:
            return 900
        graph._obj.value = next(self._machine.numbers)
        self._machine.graphs[graph._obj.value] = operations
        return 0

    def cuGraphInstantiateWithFlags(self, executable: Any, graph: ctypes.c_void_p, flags: ctypes.c_ulonglong) -> int:
        assert graph.value is not None
        executable._obj.value = next(self._machine.numbers)
        self._machine.executables[executable._obj.value] = self._machine.graphs[graph.value]
        return 0

    def cuGraphLaunch(self, executable: ctypes.c_void_p, stream: ctypes.c_void_p) -> int:
        assert executable.value is not None
        self._machine.launches += 1
        for operation in self._machine.executables[executable.value]:
            self._stream(stream).add(operation)
        return 0

    def cuGraphDestroy(self, graph: ctypes.c_void_p) -> int:
        assert graph.value is not None
        del self._machine.graphs[graph.value]
        return 0

    def cuGraphExecDestroy(self, executable: ctypes.c_void_p) -> int:
        assert executable.value is not None
        del self._machine.executables[executable.value]
        return 0

    def cuGetErrorName(self, code: int, text: Any) -> int:
        text._obj.value = self.NAMES[code]
        return 0

    def _stream(self, handle: ctypes.c_void_p) -> Any:
        assert handle.value is not None
        return self._machine.streams[handle.value]


class Error(Exception):
    pass


class MemoryError_(Error):
    pass


class LogicError(Error):
    pass


class LaunchError(Error):
    pass


class RuntimeError_(Error):
    pass


def _plain(array: np.ndarray) -> np.ndarray:
    """A view of the same bytes in one row; a copy would hide what happens to them later."""
    assert array.flags.c_contiguous
    flat = array.reshape(-1)
    assert np.shares_memory(flat, array)
    return flat


def _check_thread(machine: Machine, what: str) -> None:
    """pycuda only warns where something goes without its context, and leaks it."""
    if not machine.stack() and not machine.crashed:
        machine.problems.append(f"{what} went in {threading.current_thread().name}, where no context is current")
