"""Tell what an operation does while it does it."""

from collections.abc import Iterable

from nomadserve.cli import output
from nomadserve.operations.events import Done, Event


def tell(events: Iterable[Event], *, as_json: bool) -> None:
    """Each event as a line on stderr; with `as_json` each as a line of JSON on stdout."""
    for event in events:
        if as_json:
            output.emit_json_line(event)
            continue
        output.say(str(event), style="bold green" if isinstance(event, Done) else "")
        if isinstance(event, Done) and event.hint:
            output.hint(event.hint)
