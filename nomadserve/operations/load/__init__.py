"""An open-loop load generator in a process of its own: requests leave by the clock, whatever the replies do.

    plan.py         what to send, and what came of it: the lines that both processes exchange
    connection.py   one HTTP/1.1 connection, one request at a time
    generator.py    sends by the clock, over as many connections as it takes
    tally.py        counts and percentiles, pure
    __main__.py     the child process: a plan in, results out
    process.py      the parent's end of it

Why not a library: `docs/bench.md` has the measurement.
"""

from nomadserve.operations.load.plan import Aim, Load, Outcome, Progress
from nomadserve.operations.load.process import LoadProcess

__all__ = ["Aim", "Load", "LoadProcess", "Outcome", "Progress"]
