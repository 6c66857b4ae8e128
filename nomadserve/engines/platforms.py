"""Which machines the engines can run on."""

import platform
import sys

from nomadserve.errors import NomadserveError

GO_NAMES = {"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def need_linux() -> None:
    """Refuse other systems, where neither Nomad's drivers nor Envoy's wheel do what the local cluster needs."""
    if sys.platform != "linux":
        raise NomadserveError(
            f"engines and local clusters run on Linux only, not on {platform.system()}",
            hint="use a Linux machine, or point `NOMAD_ADDR` and `CONSUL_HTTP_ADDR` at a cluster",
        )


def architecture() -> str:
    """This machine's architecture by the name that vendors' archives use."""
    machine = platform.machine().lower()
    if machine not in GO_NAMES:
        raise NomadserveError(f"no engines for the architecture `{machine}`", hint="put them on PATH yourself")
    return GO_NAMES[machine]
