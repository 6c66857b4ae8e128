"""What layers took in earlier builds, so that a build that differs a little takes a fraction of the time."""

import logging
from pathlib import Path
from typing import Any

from nomadserve_runtime.engines.trt.bindings import Bindings
from nomadserve_runtime.engines.trt.files import write_whole

log = logging.getLogger("nomadserve.tensorrt")


class TimingCache:
    """A file of TensorRT's timing cache. TensorRT-RTX times nothing when it builds, and gets none.

    path: where it lies; None for none.
    """

    def __init__(self, path: Path | None, bindings: Bindings) -> None:
        self._path = None if bindings.is_rtx else path

    def attach(self, config: Any) -> None:
        """Give the builder what is known; what another release or GPU wrote is left out."""
        if self._path is None:
            return
        known = self._path.read_bytes() if self._path.is_file() else b""
        if not config.set_timing_cache(config.create_timing_cache(known), False):
            log.info("the timing cache %s is of another GPU or release: begun anew", self._path)
            config.set_timing_cache(config.create_timing_cache(b""), False)

    def keep(self, config: Any) -> None:
        """Write what is known now. A build never fails over it."""
        if self._path is None:
            return
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(self._path, bytes(memoryview(config.get_timing_cache().serialize())))
        except OSError as error:
            log.warning("the timing cache %s can't be written: %s", self._path, error.strerror)
