"""How far a build is, and how it is stopped: the builder's own progress monitor."""

import threading
from dataclasses import dataclass
from typing import Any

from nomadserve_runtime.engines.trt.progress import Progress


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Turns the phases that a builder goes through, nested and sometimes side by side, into one share of the whole.

    Called by the builder from any of its threads.
    """

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._running: dict[str, _Phase] = {}
        self._share = 0.0

    def cancel(self) -> None:
        """Have the builder give up at its next step."""
        self._cancelled.set()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for that."""
        return self._cancelled.is_set()

    def start(self, name: str, parent: str | None, steps: int) -> None:
        """A phase begins."""
        with self._lock:
            self._running[name] = _Phase(parent, max(1, steps))
            self._tell(name)

    def step(self, name: str, step: int) -> bool:
        """Step number `step` of a phase is done; answers whether to go on."""
        with self._lock:
            if phase := self._running.get(name):
                phase.done = min(step + 1, phase.steps)
                self._tell(name)
        return not self.is_cancelled

    def finish(self, name: str) -> None:
        """A phase is over."""
        with self._lock:
            self._running.pop(name, None)

    def _tell(self, name: str) -> None:
        """Report the phase; the share never goes back, though phases side by side would let it."""
        self._share = max(self._share, self._share_of_root(name))
        if self._progress:
            self._progress.moving(name.lower(), self._share)

    def _share_of_root(self, name: str) -> float:
        share = 0.0
        current: str | None = name
        while current is not None and (phase := self._running.get(current)):
            share = min(1.0, (phase.done + share) / phase.steps)
            current = phase.parent
        return share


def attach(module: Any, config: Any, phases: Phases) -> Any:
    """Have the builder report to `phases`. The answer must live as long as the build: TensorRT holds no reference."""

    class Monitor(module.IProgressMonitor):  # type: ignore[misc]  # its base is only known at run time
        def __init__(self) -> None:
            module.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            phases.start(phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            return phases.step(phase_name, step)

        def phase_finish(self, phase_name: str) -> None:
            phases.finish(phase_name)

    monitor = Monitor()
    config.progress_monitor = monitor
    return monitor
