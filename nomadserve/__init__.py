"""Deploy, route and serve GPU model inference on Nomad and Consul."""

from importlib.metadata import version

__version__ = version("nomadserve")
