"""The child process: an aim and loads come in as JSON lines, progress and outcomes go out."""

import asyncio
import gc
import sys

import msgspec

from nomadserve.operations.load.generator import Generator
from nomadserve.operations.load.plan import Aim, Load, Outcome, Progress

# A line carries all bodies; `readline` of asyncio refuses longer ones.
LINE_NBYTES_MAX = 256 * 2**20


async def run() -> None:
    """Do what the lines on standard input say, until they end."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=LINE_NBYTES_MAX)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    generator = Generator(msgspec.json.decode(await lines.readline(), type=Aim))
    # Nothing here is cyclic for long, and a collection would come between requests.
    gc.freeze()
    gc.disable()
    while line := await lines.readline():
        tell(await generator.run(msgspec.json.decode(line, type=Load), tell))
        gc.collect()
    generator.close()


def tell(message: Progress | Outcome) -> None:
    """One line to the parent."""
    sys.stdout.write(msgspec.json.encode(message).decode() + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run())
