"""Nomad nodes with GPUs that aren't there: builds the fake device plugin and writes the agent configuration for it.

gpus = [FakeGpu(name="NVIDIA L4", memory_mib=23034, count=2)]
Path("gpus.hcl").write_text(agent_configuration(gpu_plugin_dir, gpus))     # `nomadserve dev up --nomad-config gpus.hcl`
"""

import hashlib
import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from nomadserve.engines.sources.golang import find_go

SOURCES = Path(__file__).resolve().parent
PLUGIN = "fake-nvidia-gpu"  # the executable and its configuration block must have one name
BUILD_SECONDS_MAX = 600  # seen: 7 s with the downloads; a slow line and a busy machine are granted more


@dataclass(frozen=True, kw_only=True)
class FakeGpu:
    """One group of equal devices, as Nomad's NVIDIA plugin would show it."""

    name: str
    memory_mib: int
    count: int = 1
    driver_version: str = "550.54.15"
    healthy: bool = True

    def as_hcl(self) -> str:
        """The block that the plugin's configuration has for it."""
        return f"""    gpu {{
      name           = {json.dumps(self.name)}
      count          = {self.count}
      memory_mib     = {self.memory_mib}
      driver_version = {json.dumps(self.driver_version)}
      healthy        = {json.dumps(self.healthy)}
    }}
"""


def agent_configuration(plugin_dir: Path, gpus: Sequence[FakeGpu]) -> str:
    """The Nomad agent configuration (HCL) that gives its node these GPUs."""
    groups = "".join(gpu.as_hcl() for gpu in gpus)
    return f"""plugin_dir = {json.dumps(str(plugin_dir))}

plugin "{PLUGIN}" {{
  config {{
{groups}  }}
}}
"""


def build(go: Path, cache: Path) -> Path:
    """Build the plugin, once per state of its sources; answer the folder that holds it and nothing else."""
    digest = hashlib.sha256(b"\0".join((SOURCES / name).read_bytes() for name in ("main.go", "go.mod", "go.sum")))
    folder = cache / digest.hexdigest()[:16]
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="building-") as temporary:
        built = Path(temporary) / "plugins"
        command = [str(go), "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", str(built / PLUGIN), "."]
        # The files here alone decide what is built, whatever Go is told elsewhere.
        environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "", "GOWORK": "off"}
        done = subprocess.run(
            command,
            cwd=SOURCES,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS_MAX,
            check=False,
        )
        assert done.returncode == 0, f"the fake GPU plugin does not build:\n{done.stderr}"
        try:
            built.rename(folder)
        except OSError:
            assert folder.is_dir(), "only another run that built it first may be in the way"
    return folder


@pytest.fixture(scope="session")
def gpu_plugin_dir() -> Path:
    """A folder with the fake `nvidia/gpu` plugin, for `plugin_dir`."""
    go = find_go()
    if go is None:
        pytest.skip("the fake GPU plugin must be built, and there is no Go")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return build(go, base / "nomadserve" / "tests" / "gpu_plugin")
