"""How every verb speaks: stdout is data, stderr is talk."""

import sys
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text


def talk() -> Console:
    """The console on stderr; rich leaves colour out where stderr is no terminal, or NO_COLOR is set."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, *, style: str = "") -> None:
    """One line for people, on stderr."""
    talk().print(Text(text, style=style))


def error(text: str) -> None:
    """What went wrong, on stderr."""
    say_labelled("error", "bold red", text)


def warning(text: str) -> None:
    """What may surprise, on stderr; the work goes on."""
    say_labelled("warning", "yellow", text)


def hint(text: str) -> None:
    """The way out, or what to do next, on stderr."""
    say_labelled("hint", "cyan", text)


def say_labelled(label: str, style: str, text: str) -> None:
    """`label: text`, the label coloured."""
    talk().print(Text.assemble((f"{label}: ", style), text))


def emit(text: str) -> None:
    """One line of data, on stdout."""
    sys.stdout.write(text + "\n")


def emit_json(data: Any) -> None:
    """One JSON document on stdout; takes whatever msgspec encodes."""
    emit(msgspec.json.format(msgspec.json.encode(data), indent=2).decode())


def emit_json_line(data: Any) -> None:
    """One line of JSON on stdout, sent on at once: for steps that are reported while they happen."""
    emit(msgspec.json.encode(data).decode())
    sys.stdout.flush()
