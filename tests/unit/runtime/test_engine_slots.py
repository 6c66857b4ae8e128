"""The memory of a model's slots."""

import numpy as np
import pytest

from nomadserve_runtime import engine as module
from nomadserve_runtime.engine import PAGE_NBYTES, slots_for
from nomadserve_runtime.tensors import TEXT, TensorSpec
from tests.unit.runtime.models import fake_engine

NUMBERS = 12_000  # of a row


def test_the_memory_of_slots_is_there_from_the_start_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCHED_NBYTES_MAX", 50_000)  # two slots of 24 kB, and a part of the third
    engine = fake_engine(batch_max=2, inputs=[{"name": "x", "shape": [NUMBERS], "datatype": "UINT8"}])
    monkeypatch.setattr(engine, "host_array", lambda shape, dtype: np.full(shape, 7, dtype))
    slots = slots_for(engine, 5)
    touched = [[bool((array == 0).any()) for array in slot.inputs] for slot in slots]
    # The last ones are taken first.
    assert touched == [[False], [False], [True], [True], [True]]
    every_page = slots[-1].inputs[0].reshape(-1)[::PAGE_NBYTES]
    assert not every_page.any()


def test_strings_have_no_pages_to_touch() -> None:
    engine = fake_engine()
    engine.inputs = (TensorSpec("x", "BYTES", (2,)),)
    [slot] = slots_for(engine, 1)
    assert slot.inputs[0].dtype == TEXT
