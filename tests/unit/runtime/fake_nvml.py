"""A stand-in for `libnvidia-ml.so.1`: the real `pynvml` calls these functions as it calls those of the driver.

https://docs.nvidia.com/deploy/nvml-api/
"""

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pynvml
import pytest

OK = pynvml.NVML_SUCCESS


@dataclass
class Card:
    """A GPU as the driver sees it; what is None is not told."""

    uuid: str
    utilization: int | None = 50
    used: int = 3 * 2**30
    total: int = 24 * 2**30
    milliwatts: int | None = 61_500
    celsius: int | None = 44
    is_slice: bool = False  # MIG: known by its name only, not among the numbered ones


class FakeDriver:
    """The library. A handle is the place of the card in `cards`, plus 1: 0 would be a null pointer."""

    def __init__(self, cards: Sequence[Card]) -> None:
        self.cards = list(cards)
        self.users = 0

    def nvmlInitWithFlags(self, flags: int) -> int:
        self.users += 1
        return OK

    def nvmlShutdown(self) -> int:
        self.users -= 1
        return OK

    def nvmlDeviceGetCount_v2(self, count: Any) -> int:
        count._obj.value = len(self._numbered())
        return OK

    def nvmlDeviceGetHandleByIndex_v2(self, index: Any, handle: Any) -> int:
        return self._find(lambda card: card is self._numbered()[index.value], handle)

    def nvmlDeviceGetHandleByUUID(self, uuid: Any, handle: Any) -> int:
        return self._find(lambda card: card.uuid.encode() == uuid.value, handle)

    def nvmlDeviceGetUUID(self, handle: Any, text: Any, size: Any) -> int:
        text.value = self._card(handle).uuid.encode()
        return OK

    def nvmlDeviceGetUtilizationRates(self, handle: Any, rates: Any) -> int:
        return self._tell(self._card(handle).utilization, lambda value: setattr(rates._obj, "gpu", value))

    def nvmlDeviceGetMemoryInfo(self, handle: Any, memory: Any) -> int:
        card = self._card(handle)
        memory._obj.used, memory._obj.total = card.used, card.total
        return OK

    def nvmlDeviceGetPowerUsage(self, handle: Any, milliwatts: Any) -> int:
        return self._tell(self._card(handle).milliwatts, lambda value: setattr(milliwatts._obj, "value", value))

    def nvmlDeviceGetTemperature(self, handle: Any, sensor: Any, celsius: Any) -> int:
        assert sensor.value == pynvml.NVML_TEMPERATURE_GPU
        return self._tell(self._card(handle).celsius, lambda value: setattr(celsius._obj, "value", value))

    def _numbered(self) -> list[Card]:
        return [card for card in self.cards if not card.is_slice]

    def _card(self, handle: Any) -> Card:
        address = ctypes.cast(handle, ctypes.c_void_p).value
        assert address is not None
        return self.cards[address - 1]

    def _find(self, is_it: Callable[[Card], bool], handle: Any) -> int:
        for place, card in enumerate(self.cards):
            if is_it(card):
                ctypes.cast(handle, ctypes.POINTER(ctypes.c_void_p))[0] = place + 1
                return OK
        return int(pynvml.NVML_ERROR_NOT_FOUND)

    def _tell(self, value: int | None, put: Callable[[int], None]) -> int:
        if value is None:
            return int(pynvml.NVML_ERROR_NOT_SUPPORTED)
        put(value)
        return OK


def install(monkeypatch: pytest.MonkeyPatch, *cards: Card) -> FakeDriver:
    """Have `pynvml` find a driver with these GPUs."""
    driver = FakeDriver(cards)
    monkeypatch.setattr(pynvml, "nvmlLib", driver)
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    return driver


def remove(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `pynvml` find no driver."""
    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", _no_library)


def _no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")
