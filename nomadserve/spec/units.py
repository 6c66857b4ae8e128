"""Quantities with units: what a user writes (`"5ms"`, `">= 24 GiB"`) becomes a number that can't be misread.

Every class says what it expects and shows an example, so that an error about it can name the way out.
`parse` raises `ValueError` for anything else; the caller knows the key and the line.
"""

import re
from typing import Any, ClassVar, Self

_SECONDS_PER = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h)\s*")
_BYTES_PER = {
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
}
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)")
_BOUND = re.compile(r"(>=|<=|>|<|=)?\s*(.+)")


class Seconds(float):
    """A duration in seconds, written as `"250ms"`, `"5s"`, `"1m30s"`."""

    expected: ClassVar[str] = "a time with its unit"

    @classmethod
    def like(cls, value: object) -> str:
        """An example, with the number that the user gave."""
        return f"{_number(value, '30')}s"

    @classmethod
    def parse(cls, text: Any) -> Self:
        """Read a Go-style duration; the units are ms, s, m and h."""
        parts = _DURATION.findall(text) if isinstance(text, str) else []
        if not parts or _DURATION.sub("", text).strip():
            raise ValueError(cls.expected)
        # Rounded to the nanosecond: 3 * 0.1 must not become 0.30000000000000004.
        return cls(round(sum(float(number) * _SECONDS_PER[unit] for number, unit in parts), 9))

    @property
    def text(self) -> str:
        """The shortest Go-style duration, as Nomad, Consul and the runtime read it: `5m`, `90s`, `1500ms`."""
        for unit in ("h", "m", "s"):
            count = self / _SECONDS_PER[unit]
            if count.is_integer() and (count or unit == "s"):
                return f"{count:.0f}{unit}"
        return f"{round(self * 1000, 6):.12g}ms"


class Mebibytes(int):
    """An amount of memory in MiB, written as `"512 MiB"` or `"2 GiB"`; rounded up to whole MiB."""

    expected: ClassVar[str] = "an amount of memory with its unit"

    @classmethod
    def like(cls, value: object) -> str:
        """An example, with the number that the user gave."""
        return f"{_number(value, '512')} MiB"

    @classmethod
    def parse(cls, text: Any) -> Self:
        """Read a positive amount in MiB, GiB, TiB (powers of 1024) or MB, GB, TB (powers of 1000)."""
        match = _MEMORY.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match or match[2] not in _BYTES_PER or float(match[1]) == 0:
            raise ValueError(cls.expected)
        nbytes = round(float(match[1]) * _BYTES_PER[match[2]])
        return cls(-(-nbytes // 2**20))

    @property
    def text(self) -> str:
        """The amount with its unit: `24 GiB`, `1536 MiB`."""
        return f"{self // 1024} GiB" if self % 1024 == 0 else f"{int(self)} MiB"


class MemoryBound(str):
    """A condition on a device's memory: `">= 24 GiB"`; without an operator, at least that much."""

    expected: ClassVar[str] = "a bound on memory with its unit"

    @classmethod
    def like(cls, value: object) -> str:
        """An example, with the number that the user gave."""
        return f">= {_number(value, '24')} GiB"

    @classmethod
    def parse(cls, text: Any) -> Self:
        """Read an operator (>=, >, =, <, <=) and an amount of memory."""
        match = _BOUND.fullmatch(text.strip()) if isinstance(text, str) else None
        if not match:
            raise ValueError(cls.expected)
        try:
            return cls(f"{match[1] or '>='} {Mebibytes.parse(match[2]).text}")
        except ValueError:
            raise ValueError(cls.expected) from None

    @property
    def operator(self) -> str:
        """How the memory compares to the amount."""
        return self.partition(" ")[0]

    @property
    def amount(self) -> Mebibytes:
        """The amount that the memory is compared to."""
        return Mebibytes.parse(self.partition(" ")[2])


def _number(value: object, otherwise: str) -> str:
    found = re.search(r"\d+(?:\.\d+)?", str(value))
    return found[0] if found and float(found[0]) else otherwise
