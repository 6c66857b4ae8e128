"""What the user names as TARGET becomes something to measure."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from nomadserve import entries
from nomadserve.errors import WrongInput
from nomadserve.operations.bench.child import serving
from nomadserve.operations.bench.replica import Replica
from nomadserve.operations.call import resolve


@dataclass(frozen=True, slots=True)
class Subject:
    """A replica that answers now.

    Attributes:
        words: what it is, for the report.
        startup_s: from its start until it was ready; None where somebody else started it.
    """

    replica: Replica
    words: str
    startup_s: float | None = None


def is_file(target: str) -> bool:
    """Whether TARGET means a model file."""
    return "://" not in target and (Path(target).is_file() or Path(target).suffix in (".onnx", ".json"))


@contextmanager
def file_served(target: str, options: Mapping[str, object]) -> Iterator[Subject]:
    """A model file, served by a child process with these options of `nomadserve serve`."""
    if not Path(target).is_file():
        raise WrongInput(f"there is no file `{target}`", hint="check the path of the model")
    with serving(Path(target), options) as (port, startup_s):
        yield Subject(Replica("127.0.0.1", port), f"{Path(target).name}, served here", startup_s)


def running(
    target: str, *, version: str | None, through_gateway: bool, environ: Mapping[str, str] = os.environ
) -> Subject:
    """A URL, or one replica of a service's version as Consul's DNS names it.

    Raises:
        WrongInput: no version for a service, or an address that is not plain HTTP.
    """
    if "://" in target:
        return _at_url(target)
    if version is None:
        raise WrongInput(
            f"which version of `{target}`?",
            hint=f"`nomadserve bench {target} --version v1`; a load test shall hit one version only",
        )
    if through_gateway:
        name = f"{target}.service.consul"
        gateway = resolve(name, environ)
        replica = Replica(gateway.address, gateway.port, host=name, headers={entries.VERSION_HEADER: version})
        return Subject(replica, f"{target} {version} through the gateway at {gateway.address}:{gateway.port}")
    endpoint = resolve(f"{target}-{version}.service.consul", environ)
    words = f"one replica of {target} {version} at {endpoint.address}:{endpoint.port}"
    return Subject(Replica(endpoint.address, endpoint.port), words)


def _at_url(target: str) -> Subject:
    url = urlsplit(target)
    if url.scheme != "http" or not url.hostname or url.path.strip("/"):
        raise WrongInput(f"`{target}` can't be measured", hint="give an address as http://HOST:PORT, plain HTTP")
    return Subject(Replica(url.hostname, url.port or 80), f"http://{url.netloc}")
