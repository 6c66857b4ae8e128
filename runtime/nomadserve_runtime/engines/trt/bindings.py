"""The one door to TensorRT: the package `tensorrt`, or `tensorrt_rtx`, which has nearly the same API.

What a release can do is asked of the package itself, never derived from its version: 10 has builder flags for FP16 and
INT8, 11 and RTX have strongly typed networks only.
"""

import importlib
import logging
import os
from collections import deque
from dataclasses import dataclass
from functools import cache
from typing import Any

from nomadserve_runtime.errors import CannotStart, WrongSetting

log = logging.getLogger("nomadserve.tensorrt")

FLAVOURS = ("tensorrt", "tensorrt_rtx")
CHOICE = "NOMADSERVE_TENSORRT"

INSTALL_HINT = (
    "`pip install 'nomadserve[tensorrt]'` on data-centre GPUs, `pip install 'nomadserve[tensorrt-rtx]'` on RTX cards"
)

# What the builder said last; an error is often explained by the lines before it.
ERRORS_KEPT = 20
_errors: deque[str] = deque(maxlen=ERRORS_KEPT)  # one for the process, like the logger that fills it


@dataclass(frozen=True)
class Bindings:
    """An imported TensorRT.

    Attributes:
        module: the package itself; `Any`, as two packages and several releases stand behind it.
        flavour: its name, one of `FLAVOURS`.
        version: such as "10.13.0.35".
        logger: the one ILogger of the process. TensorRT keeps the first that it is given, whatever comes later.
        errors: what TensorRT called an error, oldest first; `Logger.log` appends, from any thread.
    """

    module: Any
    flavour: str
    version: str
    logger: Any
    errors: deque[str]

    @property
    def is_rtx(self) -> bool:
        """Whether it is TensorRT-RTX, whose plans are portable between GPUs and compiled on the GPU at start."""
        return self.flavour == "tensorrt_rtx"

    @property
    def title(self) -> str:
        """For people: `TensorRT 10.13.0.35`."""
        return f"{'TensorRT-RTX' if self.is_rtx else 'TensorRT'} {self.version}"

    def has(self, enumeration: str, member: str) -> bool:
        """Whether this release knows a member of one of its enumerations: `has("BuilderFlag", "FP16")`."""
        return member in getattr(getattr(self.module, enumeration, None), "__members__", {})


def find_bindings() -> Bindings:
    """The TensorRT of this process: the one that NOMADSERVE_TENSORRT names, else the first that can be imported.

    Raises:
        CannotStart: none is there, or what is there can't be loaded.
        WrongSetting: NOMADSERVE_TENSORRT names something else.
    """
    wanted = os.environ.get(CHOICE, "")
    if wanted and wanted not in FLAVOURS:
        raise WrongSetting(
            f"`{CHOICE}` is `{wanted}`, not `tensorrt` or `tensorrt_rtx`", hint="leave it away for the one there is"
        )
    return _find(wanted)


@cache
def _find(wanted: str) -> Bindings:
    """The same, tried once."""
    reasons = []
    for flavour in (wanted,) if wanted else FLAVOURS:
        try:
            return _opened(flavour, importlib.import_module(flavour))
        except ModuleNotFoundError as error:
            if error.name != flavour:
                reasons.append(f"`{flavour}` is there, but can't be imported: {error}")
        except (ImportError, OSError, AttributeError, RuntimeError) as error:
            reasons.append(f"`{flavour}` is there, but can't be imported: {_first_line(error)}")
    missing = f"the engine `tensorrt` needs the package {wanted or 'tensorrt or tensorrt_rtx'}, which is not there"
    raise CannotStart("\n".join(reasons) or missing, hint=INSTALL_HINT)


@cache
def _opened(flavour: str, module: Any) -> Bindings:
    """One for each module: a second logger would never be heard."""
    severity = module.ILogger.Severity
    levels = {
        severity.INTERNAL_ERROR: logging.ERROR,
        severity.ERROR: logging.ERROR,
        severity.WARNING: logging.WARNING,
        severity.INFO: logging.DEBUG,  # TensorRT's INFO is what we call debug: memory pools, tactics, timings
    }

    class Logger(module.ILogger):  # type: ignore[misc]  # its base is only known at run time
        """Into our log; errors are kept, too. Called by TensorRT from any of its threads."""

        def __init__(self) -> None:
            module.ILogger.__init__(self)

        def log(self, level: Any, message: str) -> None:
            """One line of TensorRT."""
            number = levels.get(level)
            if number is None:
                return
            if number == logging.ERROR:
                # Told by whoever translates it; in the log only for those who look closer.
                _errors.append(message)
                number = logging.DEBUG
            log.log(number, "%s", message)

    return Bindings(module, flavour, str(module.__version__), Logger(), _errors)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n", 1)[0][:300]
