"""`scripts/bench`: interleaved rounds over all servers; a table, the aims, and a JSON file."""

import contextlib
import fcntl
import json
import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TextIO

from benchmarks import measure, options
from benchmarks.aims import Aim, aims
from benchmarks.catalogue import OWN, PEERS, Peer
from benchmarks.environments import CannotInstall, cache_folder, programs_of
from benchmarks.flood import measure_flood
from benchmarks.measure import Measured
from benchmarks.models import Model, make
from benchmarks.options import Options
from benchmarks.processes import prefer
from benchmarks.results import medians
from benchmarks.running import CannotRun
from benchmarks.table import aims_table, tables
from benchmarks.wrk import LoadFailed

# Waiting for the lock can take longer than measuring; the others shall not wait for minutes either.
LOCK_KEPT_S = 120.0
OTHERS_WAKE_S = 0.5  # a lock given back goes to whoever asks first, and those who wait must wake up for it


def main(arguments: Sequence[str]) -> int:
    """Measure; 0: done, whatever the figures; 2: this machine lacks something."""
    wanted = options.read(arguments)
    missing = [name for name in ("wrk", "taskset") if not shutil.which(name)]
    if missing or (os.cpu_count() or 1) < 2:
        print(f"error: needs two cores and {' and '.join(missing or ['no more'])}", file=sys.stderr)
        print("hint: on Debian, `apt-get install wrk util-linux`", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # an orderly end: servers go too
    os.sched_setaffinity(0, {measure.LOAD_CORE})
    if wanted.priority:
        prefer(os.getpid(), wanted.priority)
    folder = cache_folder() / "models"
    folder.mkdir(parents=True, exist_ok=True)
    models = [make(name, folder) for name in wanted.models]
    run = Run(wanted)
    run.measure(models)
    reached = aims(medians(run.measured))
    print(tables(medians(run.measured)), aims_table(reached), sep="\n\n")
    for name, reason in run.skipped.items():
        print(f"\nnot measured: {name}: {reason}")
    _write(wanted, run, reached)
    return 0


class Run:
    """All rounds; what can't be measured is told, and left away from then on.

    Attributes:
        skipped: server and what for → why not.
    """

    def __init__(self, wanted: Options) -> None:
        self.measured: list[Measured] = []
        self.skipped: dict[str, str] = {}
        self._wanted = wanted
        self._lock_file: TextIO | None = None
        self._locked_at = 0.0

    def measure(self, models: Sequence[Model]) -> None:
        """Every server once in each round, in turn, so that what changes on the machine meets all of them."""
        peers = [PEERS[name] for name in self._wanted.peers if self._is_installed(PEERS[name])]
        for number in range(self._wanted.rounds):
            _say(f"round {number + 1} of {self._wanted.rounds}")
            for model in models:
                self._bare_engine(model)
                for peer in peers:
                    self._peer(peer, model)

    def _peer(self, peer: Peer, model: Model) -> None:
        if model.name not in peer.models:
            return
        seconds, report = self._wanted.seconds, self._report
        for form in (form for form in self._wanted.forms if form in peer.forms):
            steady = partial(measure.measure, peer, model, form, seconds=seconds, report=report)
            what = f"{peer.name}, {model.name}, {form}"
            self._attempt(what, partial(steady, connections=self._wanted.connections))
            if self._wanted.overload and peer.has_queue_limit:
                self._overload(peer, model, form)

    def _overload(self, peer: Peer, model: Model, form: str) -> None:
        seconds, report = self._wanted.seconds, self._report
        if (model.name, form) == ("mlp", "json"):
            what = f"{peer.name}, overload of {model.name}"
            self._attempt(what, partial(measure.measure_overload, peer, model, form, seconds=seconds, report=report))
        elif model.name == "convnet" and peer.name == OWN:
            what = f"{peer.name}, flood of {model.name}, {form}"
            self._attempt(what, partial(measure_flood, peer, model, form, seconds=seconds, report=report))

    def _bare_engine(self, model: Model) -> None:
        with self._locked():
            for measured in measure.measure_bare_engine(model):
                self._report(measured)

    def _attempt(self, what: str, measure_it: Callable[[], None]) -> None:
        if what in self.skipped:
            return
        try:
            with self._locked():
                measure_it()
        except (CannotRun, LoadFailed) as error:
            self.skipped[what] = str(error)
            _say(f"{what}: {error}")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """With the lock of all who measure on this machine, which is kept for the next server for a while."""
        if self._wanted.lock is None:
            yield
            return
        if self._lock_file is None:
            self._lock_file = self._wanted.lock.open("a")
            fcntl.flock(self._lock_file, fcntl.LOCK_EX)
            self._locked_at = time.monotonic()
        yield
        if time.monotonic() - self._locked_at > LOCK_KEPT_S:
            self._lock_file.close()
            self._lock_file = None
            time.sleep(OTHERS_WAKE_S)

    def _is_installed(self, peer: Peer) -> bool:
        try:
            programs_of(peer)
        except CannotInstall as error:
            self.skipped[peer.name] = f"can't be installed: {error}"
            _say(f"{peer.name}: {self.skipped[peer.name]}")
            return False
        return True

    def _report(self, measured: Measured) -> None:
        self.measured.append(measured)
        _say(
            f"{measured.peer:16} {measured.model:8} {measured.form:7} {measured.load:9} {measured.connections:5} "
            f"{measured.answered:10,.1f}/s  p99 {measured.p99_ms:9.2f} ms  {measured.cpu_us:8.0f} µs  "
            f"{measured.memory_mb:6.0f} MB  refused {measured.refused:8,.0f}/s  foreign {measured.foreign:4.0%}"
            + "".join(f"\n    wrong: {wrong}" for wrong in measured.wrong[:3])
        )


def _write(wanted: Options, run: Run, reached: Sequence[Aim]) -> None:
    content = {
        "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "system": platform.platform()},
        "measured": [each.as_json() for each in run.measured],
        "aims": [
            {"aim": aim.name, "wanted": aim.wanted, "at_most": aim.at_most, "found": aim.found, "verdict": aim.verdict}
            for aim in reached
        ],
        "skipped": run.skipped,
    }
    wanted.output.parent.mkdir(parents=True, exist_ok=True)
    wanted.output.write_text(json.dumps(content, indent=1, ensure_ascii=False))
    _say(f"written: {wanted.output}")


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
