"""`nomadserve serve` on the fake engine, which computes nothing while the file is there that the variable `GATE` names.

What fills up behind a busy engine can so be looked at for as long as that takes, on however slow a machine.
"""

import os
import sys
import time
from pathlib import Path

from nomadserve.cli import main
from nomadserve_runtime.engines.fake import FakeEngine
from nomadserve_runtime.slots import Slot

POLL_S = 0.005

gate = Path(os.environ["GATE"])
run = FakeEngine.run


def run_once_open(self: FakeEngine, slot: Slot, rows: int) -> None:
    while gate.exists():
        time.sleep(POLL_S)
    run(self, slot, rows)


FakeEngine.run = run_once_open  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main())
