"""`nomadserve serve` on GPUs that are not there: as many as the variable `MADE_UP_GPUS` says."""

import os
import sys

import pytest

from nomadserve.cli import main
from tests.unit.runtime import fake_nvml
from tests.unit.runtime.trt.fake_cuda import Machine
from tests.unit.runtime.trt.gpu import plug_in

if __name__ == "__main__":
    gpus = int(os.environ.get("MADE_UP_GPUS", "1"))
    # Never undone: the process ends with them.
    patches = pytest.MonkeyPatch()
    plug_in(patches, Machine(gpus=gpus))
    fake_nvml.install(patches, *(fake_nvml.Card(f"GPU-{number}") for number in range(gpus)))
    sys.argv[0] = "nomadserve"
    main()
