"""What tests that send signals put right first."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def signals_heard() -> Iterator[None]:
    """What is started inside hears Ctrl-C, and that its terminal has gone.

    Tests that run in the background of a shell ignore the one, under `nohup` the other, and children inherit that.
    """
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
