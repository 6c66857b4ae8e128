"""CUDA graphs: a batch that was recorded once is launched by one call instead of one for each kernel.

pycuda has no graphs, so this calls the driver itself. All of it in the thread whose context is current.
https://docs.nvidia.com/cuda/cuda-driver-api/group__CUDA__GRAPH.html
"""

import ctypes
from collections.abc import Callable
from typing import Any

# CU_STREAM_CAPTURE_MODE_THREAD_LOCAL of cuda.h: what other threads do meanwhile, for other GPUs, spoils nothing.
THREAD_LOCAL = 1


class CaptureFailed(Exception):
    """The batch can't be recorded; it still runs without a graph."""


class Graph:
    """A recorded batch, bound to the buffers, shapes and scratch memory that it was recorded with."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library = library
        self._handle = handle

    def launch(self, stream: int) -> None:
        """Run it on a stream, given by its handle; returns at once.

        Raises:
            RuntimeError: the driver refuses.
        """
        code = self._library.cuGraphLaunch(self._handle, ctypes.c_void_p(stream))
        if code:
            raise RuntimeError(f"cuGraphLaunch failed: {_name_of(self._library, code)}")

    def free(self) -> None:
        """Forget it; nothing of it may be running."""
        self._library.cuGraphExecDestroy(self._handle)


def capture(library: Any, stream: int, enqueue: Callable[[], bool]) -> Graph:
    """Record what `enqueue` puts on a stream; nothing of it runs.

    Raises:
        CaptureFailed: `enqueue` does something that can't be recorded, or answers False.
    """
    on = ctypes.c_void_p(stream)
    graph, executable = ctypes.c_void_p(), ctypes.c_void_p()
    _call(library, "cuStreamBeginCapture_v2", on, THREAD_LOCAL)
    try:
        is_enqueued = enqueue()
    finally:
        # Whatever happened: a stream that still records takes nothing else.
        code = library.cuStreamEndCapture(on, ctypes.byref(graph))
    if code:
        raise CaptureFailed(f"cuStreamEndCapture failed: {_name_of(library, code)}")
    try:
        if not is_enqueued:
            raise CaptureFailed("TensorRT can't enqueue the batch while it is recorded")
        _call(library, "cuGraphInstantiateWithFlags", ctypes.byref(executable), graph, ctypes.c_ulonglong(0))
    finally:
        library.cuGraphDestroy(graph)
    return Graph(library, executable)


def _call(library: Any, name: str, *arguments: Any) -> None:
    code = getattr(library, name)(*arguments)
    if code:
        raise CaptureFailed(f"{name} failed: {_name_of(library, code)}")


def _name_of(library: Any, code: int) -> str:
    text = ctypes.c_char_p()
    library.cuGetErrorName(code, ctypes.byref(text))
    return text.value.decode() if text.value else f"error {code}"
