"""The builder's half of TensorRT 10 and 11, as far as it is called: it keeps what it was told, and builds a text."""

import enum
from collections.abc import Callable
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

Flags10 = enum.IntEnum("BuilderFlag", ["FP16", "INT8", "TF32", "BF16", "FP8"], start=0)
Flags11 = enum.IntEnum("BuilderFlag", ["TF32", "REFIT"], start=0)


class Config:
    def __init__(self) -> None:
        self.flags: set[str] = {"TF32"}
        self.profiles: list[Any] = []
        self.limits: dict[Any, int] = {}
        self.calibration_profile: Any = None
        self.int8_calibrator: Any = None
        self.progress_monitor: Any = None
        self.builder_optimization_level = 3
        self.timing = b""

    def set_flag(self, flag: Any) -> None:
        self.flags.add(flag.name)

    def clear_flag(self, flag: Any) -> None:
        self.flags.discard(flag.name)

    def add_optimization_profile(self, profile: Any) -> int:
        self.profiles.append(profile)
        return len(self.profiles) - 1

    def set_calibration_profile(self, profile: Any) -> bool:
        self.calibration_profile = profile
        return True

    def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
        self.limits[pool] = pool_size

    def create_timing_cache(self, serialized_timing_cache: bytes) -> bytes:
        return serialized_timing_cache

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        self.timing = cache
        return not cache.startswith(b"of another GPU")

    def get_timing_cache(self) -> Any:
        return SimpleNamespace(serialize=lambda: self.timing + b"+")


class Profile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[Any, Any, Any]] = {}

    def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
        self.shapes[input] = (tuple(min), tuple(opt), tuple(max))


class Network:
    num_inputs = 1

    def __init__(self, flags: int) -> None:
        self.flags = flags

    def get_input(self, index: int) -> Any:
        return SimpleNamespace(name="x", shape=(-1, 8), is_shape_tensor=False, dtype="FLOAT")


class ILogger:
    Severity = enum.IntEnum("Severity", ["INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE"], start=0)


class FakeTensorRT(ModuleType):
    """A module that stands for `tensorrt`.

    Attributes:
        built: the networks and configurations that were built, in order.
        on_build: called with the logger and the configuration before a plan is given; answers whether there is one.
    """

    def __init__(self, version: str) -> None:
        super().__init__("tensorrt")
        self.__version__ = version
        self.built: list[tuple[Network, Config]] = []
        self.on_build: Callable[[Any, Config], bool] = lambda logger, config: True
        self.ILogger = ILogger
        self.BuilderFlag = Flags10 if version.startswith("10") else Flags11
        self.NetworkDefinitionCreationFlag = enum.IntEnum("Creation", {"STRONGLY_TYPED": 1})
        self.MemoryPoolType = enum.IntEnum("MemoryPoolType", {"WORKSPACE": 0})
        self.nptype = {"FLOAT": np.float32}.__getitem__
        self.IProgressMonitor = type("IProgressMonitor", (), {})
        self.OnnxParser = lambda network, logger: SimpleNamespace(parse_from_file=lambda model: True)
        self.init_libnvinfer_plugins = lambda logger, namespace: True
        if version.startswith("10"):
            self.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (), {})

    def Builder(self, logger: Any) -> Any:
        def build(network: Network, config: Config) -> bytes | None:
            self.built.append((network, config))
            return b"a plan" if self.on_build(logger, config) else None

        return SimpleNamespace(
            create_network=Network,
            create_builder_config=Config,
            create_optimization_profile=Profile,
            build_serialized_network=build,
        )
