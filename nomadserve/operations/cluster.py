"""The two APIs that every operation works on."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from nomadserve.consul_api import ConsulApi
from nomadserve.nomad_api import NomadApi


@dataclass(frozen=True, slots=True)
class Cluster:
    """A Nomad cluster and the Consul datacenter beside it."""

    nomad: NomadApi
    consul: ConsulApi

    def at(self, *, namespace: str | None, region: str | None) -> "Cluster":
        """The same with Nomad in another namespace or region; None keeps the one of this."""
        return Cluster(self.nomad.at(namespace=namespace, region=region), self.consul)


@contextmanager
def cluster_from(environ: Mapping[str, str] = os.environ) -> Iterator[Cluster]:
    """The cluster that the environment names (`NOMAD_ADDR`, `CONSUL_HTTP_ADDR`, …)."""
    nomad, consul = NomadApi.from_environment(environ), ConsulApi.from_environment(environ)
    try:
        yield Cluster(nomad, consul)
    finally:
        nomad.close()
        consul.close()
