"""A peer's server, from its start to its end, ready and answering rightly in between."""

import contextlib
import http.client
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.catalogue import Form, Peer
from benchmarks.client import Client, Question, WrongReply, questions
from benchmarks.environments import programs_of
from benchmarks.models import Model
from benchmarks.processes import ProcessTree

READY_WITHIN_S = 120.0
ROOT = Path(__file__).parent.parent
# Another checkout's nomadserve can be measured in the place of this one's: before and after a change.
TREE = Path(os.environ.get("BENCHMARK_TREE") or ROOT).resolve()
QUEUE_MAX = 1024  # where the limit is not what is measured: nobody is refused


class CannotRun(Exception):
    """The server did not start, or answers wrongly; the message has the end of its log."""


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Attributes:
        questions: one for each row; `requests` are files with the same as whole HTTP requests.
    """

    peer: Peer
    form: Form
    port: int
    tree: ProcessTree
    questions: list[Question]
    requests: list[Path]


@contextlib.contextmanager
def serving(peer: Peer, model: Model, form_name: str, *, core: int, queue_max: int = QUEUE_MAX) -> Iterator[Running]:
    """Start the server on `core`; end it with all that it started.

    Raises:
        CannotRun: it does not answer, or wrongly.
        CannotInstall: pip could not bring it.
    """
    form, port, programs = peer.forms[form_name], _free_port(), programs_of(peer)
    with tempfile.TemporaryDirectory(prefix="benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        values = {"bin": programs, "python": programs / "python", "port": port, "model": model.name}
        values |= {"path": model.path, "queue_max": queue_max, "folder": folder}
        asked = questions(model, form.path.format(**values), form.dialect)
        tree = ProcessTree(
            [part.format(**values) for part in peer.command],
            core=core,
            environ=_environ(peer, model, form_name, port=port, queue_max=queue_max, programs=programs, folder=folder),
            log=folder / "log",
            folder=folder,
        )
        try:
            _wait_until_right(tree, port, form, asked, folder / "log")
            yield Running(peer, form, port, tree, asked, _files(asked, port, folder))
        finally:
            tree.end()


def _environ(
    peer: Peer, model: Model, form: str, *, port: int, queue_max: int, programs: Path, folder: Path
) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("NOMAD", "BENCHMARK_"))}
    return {
        **clean,
        "PATH": f"{programs}{os.pathsep}{clean.get('PATH', os.defpath)}",
        "PYTHONPATH": str(ROOT),
        "PYTHONSAFEPATH": "1",  # or `benchmarks.peers.mosec` would be what `import mosec` finds
        "PYTHONDONTWRITEBYTECODE": "1",
        # What a library starts for itself would take the one core away from the server.
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
        "BENCHMARK_MODEL": str(model.path),
        "BENCHMARK_PORT": str(port),
        "BENCHMARK_FORM": form,
        "BENCHMARK_QUEUE_MAX": str(queue_max),
        "BENCHMARK_ROW_SHAPE": ",".join(map(str, model.row_shape)),
        **{name: value.format(folder=folder, tree=TREE) for name, value in peer.environ.items()},
    }


def _wait_until_right(tree: ProcessTree, port: int, form: Form, asked: list[Question], log: Path) -> None:
    give_up_at, last = time.monotonic() + READY_WITHIN_S, "no answer"
    while tree.is_alive and time.monotonic() < give_up_at:
        client = Client(port, form.dialect)
        try:
            if form.extension and form.extension not in client.extensions():
                raise CannotRun(f"does not announce `{form.extension}`")
            for question in asked:
                client.ask(question)
            return
        except (WrongReply, OSError, http.client.HTTPException) as error:
            last = f"{type(error).__name__}: {error}"
            time.sleep(0.3)
        finally:
            client.close()
    raise CannotRun(f"{last}\n{log.read_text(errors='replace')[-2000:]}")


def _files(asked: list[Question], port: int, folder: Path) -> list[Path]:
    files = [folder / f"request-{number}" for number in range(len(asked))]
    for file, question in zip(files, asked, strict=True):
        file.write_bytes(question.as_http(port))
    return files


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port
