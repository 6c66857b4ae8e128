"""A server's process tree: started on one core, measured by /proc, ended whole."""

import contextlib
import os
import resource
import signal
import subprocess
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
MARK = "BENCHMARK_RUN"
END_WITHIN_S = 15.0


class ProcessTree:
    """A command with everything that it starts.

    Its processes are found by a mark in their environment, because some servers start daemons that leave the tree.
    """

    def __init__(
        self, command: Sequence[str], *, core: int, environ: Mapping[str, str], log: Path, folder: Path
    ) -> None:
        self._mark = f"{MARK}={uuid.uuid4().hex}".encode()
        name, _, value = self._mark.decode().partition("=")
        with log.open("wb") as output:
            self._first = subprocess.Popen(
                ["taskset", "--cpu-list", str(core), *command],
                env={**environ, name: value},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def is_alive(self) -> bool:
        """Whether the command itself still runs."""
        return self._first.poll() is None

    def cpu_s(self) -> float:
        """User and system time of all that live now, and of their children that were waited for."""
        return sum(_cpu_ticks(pid) for pid in self.pids()) / TICKS_PER_S

    def memory_mb(self) -> float:
        """Proportional share of memory of all, MB."""
        return sum(_memory_kb(pid) for pid in self.pids()) / 1000

    def prefer(self, nice: int) -> None:
        """Give all of them this priority."""
        for pid in self.pids():
            prefer(pid, nice)

    def end(self) -> None:
        """SIGTERM to all, SIGKILL to whoever is left."""
        _signal(self.pids(), signal.SIGTERM)
        give_up_at = time.monotonic() + END_WITHIN_S
        while self.pids() and time.monotonic() < give_up_at:
            self._first.poll()
            time.sleep(0.1)
        _signal(self.pids(), signal.SIGKILL)
        self._first.wait()

    def pids(self) -> list[int]:
        """Of all that live now."""
        return [int(path.name) for path in Path("/proc").glob("[0-9]*") if self._is_ours(path)]

    def _is_ours(self, process: Path) -> bool:
        try:
            return self._mark in (process / "environ").read_bytes().split(b"\0")
        except OSError:
            return False


def prefer(pid: int, nice: int) -> None:
    """Give a process, and where the kernel groups by sessions its session, this priority; below 0 needs root."""
    with contextlib.suppress(ProcessLookupError):
        os.setpriority(os.PRIO_PROCESS, pid, nice)
    group = Path(f"/proc/{pid}/autogroup")  # with autogroups, `nice` alone counts only within a session
    with contextlib.suppress(OSError):
        group.write_text(str(nice))


def machine_busy_s() -> float:
    """Processor time that all processes of the machine have used so far."""
    fields = [int(field) for field in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S


def children_cpu_s() -> float:
    """Processor time of all commands that this process has waited for: of load generators."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _cpu_ticks(pid: int) -> int:
    with contextlib.suppress(OSError):
        # The name in parentheses may hold spaces; utime, stime, cutime and cstime are fields 14 to 17.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:15])
    return 0


def _memory_kb(pid: int) -> int:
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
