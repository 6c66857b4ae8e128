"""Release archives from the vendor's own site, checked against the SHA-256 sums published beside them."""

import hashlib
import os
import queue
import shutil
import tarfile
import threading
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import requests

from nomadserve.engines.platforms import architecture
from nomadserve.engines.progress import Progress
from nomadserve.engines.sources import Order, Refused, Unavailable

CONNECT_TIMEOUT_S = 3.0
READ_TIMEOUT_S = 30.0
# For the small list of sums, everything included: looking up a name and trying each of its addresses in turn are
# not bounded by the connect timeout, and a site that can't be reached is to be given up within seconds.
FIRST_ANSWER_TIMEOUT_S = 6.0
CHUNK_BYTES = 1 << 18


@dataclass(frozen=True)
class Site:
    """A vendor's download site.

    Attributes:
        variable: environment variable that names a mirror of the same layout.
        archive, sums: paths below the base; `{product}`, `{version}` and `{architecture}` are filled in.
    """

    variable: str
    default: str
    archive: str
    sums: str

    def base(self) -> str:
        """The mirror where one is set, else the vendor's own address."""
        return (os.environ.get(self.variable) or self.default).rstrip("/")


HASHICORP = Site(
    variable="NOMADSERVE_HASHICORP_URL",
    default="https://releases.hashicorp.com",
    archive="{product}/{version}/{product}_{version}_linux_{architecture}.zip",
    sums="{product}/{version}/{product}_{version}_SHA256SUMS",
)
PROMETHEUS = Site(
    variable="NOMADSERVE_PROMETHEUS_URL",
    default="https://github.com/prometheus/prometheus/releases/download",
    archive="v{version}/prometheus-{version}.linux-{architecture}.tar.gz",
    sums="v{version}/sha256sums.txt",
)


@dataclass(frozen=True)
class VendorArchive:
    """An archive that holds the program under its own name."""

    product: str
    site: Site

    def bring(self, order: Order, progress: Progress) -> str:
        """Download, check, take the program and the licence out."""
        names = {"product": self.product, "version": str(order.version), "architecture": architecture()}
        url = f"{self.site.base()}/{self.site.archive.format(**names)}"
        progress.moving(f"asking {self.site.base()}")
        expected = _published_sum(f"{self.site.base()}/{self.site.sums.format(**names)}", Path(url).name)
        archive = order.scratch / Path(url).name
        received = _download(url, archive, progress)
        if received != expected:
            raise Refused(
                f"{url} is not what its publisher announced: SHA-256 {received} instead of {expected}",
                hint=f"nothing was installed; try again, or set `{self.site.variable}` to a mirror you trust",
            )
        _extract(archive, order)
        return f"vendor's archive {archive.name}"


def _published_sum(url: str, name: str) -> str:
    for line in _first_answer(url).splitlines():
        digest, _, listed = line.partition("  ")
        if listed.strip() == name:
            return digest.strip().lower()
    raise Unavailable(f"{url} does not list {name}")


def _first_answer(url: str) -> str:
    """Text behind the address, within a limit that holds for looking up its name too."""
    answers: queue.Queue[str | Exception] = queue.Queue()

    def ask() -> None:
        try:
            reply = requests.get(url, timeout=(CONNECT_TIMEOUT_S, FIRST_ANSWER_TIMEOUT_S))
            reply.raise_for_status()
            answers.put(reply.text)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=FIRST_ANSWER_TIMEOUT_S)
    except queue.Empty:
        raise Unavailable(f"{url} did not answer within {FIRST_ANSWER_TIMEOUT_S:.0f} s") from None
    if isinstance(answer, requests.HTTPError):
        raise Unavailable(f"{url} answered {answer.response.status_code}") from answer
    if isinstance(answer, requests.RequestException):
        raise Unavailable(f"{url} can't be reached") from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


def _download(url: str, to: Path, progress: Progress) -> str:
    """Write the file and return its SHA-256."""
    digest = hashlib.sha256()
    try:
        with (
            requests.get(url, stream=True, timeout=(CONNECT_TIMEOUT_S, READ_TIMEOUT_S)) as reply,
            to.open("wb") as file,
        ):
            reply.raise_for_status()
            size_mb = int(reply.headers.get("Content-Length", 0)) / 1e6
            received = 0
            for chunk in reply.iter_content(CHUNK_BYTES):
                file.write(chunk)
                digest.update(chunk)
                received += len(chunk)
                progress.moving(f"downloading {to.name}: {received / 1e6:.0f} of {size_mb:.0f} MB")
    except requests.RequestException as error:
        raise Unavailable(f"downloading {url} broke off: {type(error).__name__}") from error
    return digest.hexdigest()


def _extract(archive: Path, order: Order) -> None:
    """Copy just the program and licence texts out, whatever else, and whatever paths, the archive holds."""
    found = False
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as packed:
            for member in packed.infolist():
                if _is_wanted(member.filename, order):
                    with packed.open(member) as content:
                        found |= _keep(content, member.filename, order)
    else:
        with tarfile.open(archive) as tar:
            for entry in tar:
                file = tar.extractfile(entry) if _is_wanted(entry.name, order) else None
                found |= file is not None and _keep(file, entry.name, order)
    if not found:
        raise Refused(f"{archive.name} holds no `{order.program}`")


def _is_wanted(member: str, order: Order) -> bool:
    name = Path(member).name
    return name == order.program or name.startswith(("LICENSE", "NOTICE"))


def _keep(content: IO[bytes], member: str, order: Order) -> bool:
    """Write it into the order's folder; says whether it was the program."""
    name = Path(member).name
    with (order.folder / name).open("wb") as file:
        shutil.copyfileobj(content, file)
    return name == order.program
