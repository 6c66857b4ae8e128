"""Whether there is a GPU, with all that TensorRT needs; and where not, why not."""

import os

import pytest

from nomadserve_runtime import gpu
from nomadserve_runtime.engines.trt import cuda
from nomadserve_runtime.engines.trt.bindings import find_bindings
from nomadserve_runtime.errors import CannotStart


def why_not() -> str:
    """What is missing; empty where nothing is."""
    gpu.show_only_given(os.environ)
    try:
        find_bindings()
        cuda.start()
    except CannotStart as error:
        return f"no GPU to test on: {error.message}"
    return ""


REASON = why_not()
needs_gpu = pytest.mark.skipif(bool(REASON), reason=REASON)
