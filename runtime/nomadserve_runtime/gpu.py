"""The GPUs of this replica: which of them CUDA shall see, and what the driver tells of them while it serves."""

import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any

import pynvml

log = logging.getLogger("nomadserve.gpu")

# Nomad's device plugin, and container runtimes, name the GPUs of a task in the first; CUDA reads only the second.
GIVEN = "NVIDIA_VISIBLE_DEVICES"
SHOWN = "CUDA_VISIBLE_DEVICES"
UUID_STARTS = ("GPU-", "MIG-")

# The driver itself averages over a part of a second; scrapes come every few seconds, and must not fall into gaps.
SAMPLE_EVERY_S = 1.0
SAMPLES = 10


def show_only_given(environ: MutableMapping[str, str]) -> None:
    """Have CUDA see only the GPUs that this task was given. Call it before anything starts CUDA.

    A `CUDA_VISIBLE_DEVICES` that is there wins. Names (UUIDs) mean the same everywhere, so they are passed on, also in
    a container. Numbers are left alone: they count the GPUs of the host, and in a container those that it got are
    counted anew. `all` and `void` hide nothing (`void` only tells a container runtime that others bring the GPUs in).
    """
    given = environ.get(GIVEN, "").strip()
    if SHOWN in environ:
        return
    if given == "none":
        environ[SHOWN] = ""
    elif given and all(part.strip().startswith(UUID_STARTS) for part in given.split(",")):
        environ[SHOWN] = given
    if SHOWN in environ:
        log.info("CUDA sees the GPUs that this task was given: %s", environ[SHOWN] or "none")


def are_given(environ: Mapping[str, str]) -> bool:
    """Whether somebody gave this process GPUs."""
    if SHOWN in environ:
        return environ[SHOWN].strip() not in ("", "-1")
    return environ.get(GIVEN, "") not in ("", "none", "void")


@dataclass(frozen=True, slots=True)
class GpuReading:
    """What the driver tells of one GPU; None where it does not: a slice of a GPU (MIG) has no power of its own.

    Attributes:
        gpu: its UUID, as `nvidia-smi -L` prints it.
        utilization: percent of the last seconds in which it computed anything, whoever had it compute.
        power_watts, temperature_celsius: of the whole card.
    """

    gpu: str
    utilization: float | None
    memory_used_bytes: float | None
    memory_total_bytes: float | None
    power_watts: float | None
    temperature_celsius: float | None


class GpuSampler:
    """Asks the driver every second, in a thread of its own: some answers take milliseconds.

    Attributes:
        readings: the latest, one for each GPU.
    """

    def __init__(self, handles: Iterable[Any]) -> None:
        self._gpus = [_Gpu(handle) for handle in handles]
        self._ended = Event()
        self.readings: tuple[GpuReading, ...] = ()
        self.sample()
        self._thread = Thread(target=self._work, name="gpu-sampler", daemon=True)
        self._thread.start()

    def sample(self) -> None:
        """Ask now."""
        self.readings = tuple(gpu.reading() for gpu in self._gpus)

    def close(self) -> None:
        """Ask no more."""
        self._ended.set()
        self._thread.join()
        pynvml.nvmlShutdown()

    def _work(self) -> None:
        while not self._ended.wait(SAMPLE_EVERY_S):
            self.sample()


def start_sampling(environ: Mapping[str, str]) -> GpuSampler | None:
    """Sample the GPUs that `environ` shows to CUDA; where no driver answers, say so in the log, once."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        log.warning("no GPU metrics: the NVIDIA driver does not answer: %s", error)
        return None
    return GpuSampler(_shown_handles(environ.get(SHOWN)))


class _Gpu:
    """One GPU, and its utilization over the last samples."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle
        self._uuid: str = pynvml.nvmlDeviceGetUUID(handle)
        self._utilizations: deque[float] = deque(maxlen=SAMPLES)

    def reading(self) -> GpuReading:
        """What the driver tells now."""
        utilization = self._ask(pynvml.nvmlDeviceGetUtilizationRates)
        if utilization is not None:
            self._utilizations.append(utilization.gpu)
        memory = self._ask(pynvml.nvmlDeviceGetMemoryInfo)
        milliwatts = self._ask(pynvml.nvmlDeviceGetPowerUsage)
        return GpuReading(
            self._uuid,
            None if utilization is None else sum(self._utilizations) / len(self._utilizations),
            None if memory is None else memory.used,
            None if memory is None else memory.total,
            None if milliwatts is None else milliwatts / 1000,
            self._ask(pynvml.nvmlDeviceGetTemperature, pynvml.NVML_TEMPERATURE_GPU),
        )

    def _ask(self, question: Callable[..., Any], *details: Any) -> Any:
        try:
            return question(self._handle, *details)
        except pynvml.NVMLError:  # not told for this kind of device, or the GPU is gone
            return None


def _shown_handles(shown: str | None) -> list[Any]:
    """The GPUs that CUDA sees: all, or those of the list up to the first that is none, as CUDA reads it.

    Numbers count as `nvidia-smi` does, which is CUDA's own order where the GPUs are alike, or `CUDA_DEVICE_ORDER` is
    `PCI_BUS_ID`.
    """
    handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
    if shown is None:
        return handles
    found = []
    for part in shown.split(","):
        handle = _handle_of(part.strip(), handles)
        if handle is None:
            break
        found.append(handle)
    return found


def _handle_of(part: str, handles: list[Any]) -> Any:
    if part.isdigit():
        return handles[int(part)] if int(part) < len(handles) else None
    if not part.startswith(UUID_STARTS):
        return None
    try:
        return pynvml.nvmlDeviceGetHandleByUUID(part)
    except pynvml.NVMLError:  # CUDA takes the beginning of a name, too
        return next((handle for handle in handles if pynvml.nvmlDeviceGetUUID(handle).startswith(part)), None)
