"""The memory of a model's slots."""

import asyncio
import threading

import numpy as np
import pytest

from nomadserve_runtime import batcher, loading
from nomadserve_runtime import engine as module
from nomadserve_runtime.config import load_config
from nomadserve_runtime.engine import PAGE_NBYTES, slot_for, touch
from nomadserve_runtime.metrics import Series
from nomadserve_runtime.tensors import TEXT, TensorSpec
from tests.unit.runtime.models import fake_engine

NUMBERS = 12_000  # of a row


def test_the_memory_of_slots_is_there_from_the_start_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCHED_NBYTES_MAX", 50_000)  # two slots of 24 kB, and a part of the third
    engine = fake_engine(batch_max=2, inputs=[{"name": "x", "shape": [NUMBERS], "datatype": "UINT8"}])
    monkeypatch.setattr(engine, "host_array", lambda shape, dtype: np.full(shape, 7, dtype))
    slots = [slot_for(engine) for _ in range(5)]
    touch(slots)
    touched = [[bool((array == 0).any()) for array in slot.inputs] for slot in slots]
    # The last ones are taken first.
    assert touched == [[False], [False], [True], [True], [True]]
    every_page = slots[-1].inputs[0].reshape(-1)[::PAGE_NBYTES]
    assert not every_page.any()


def test_strings_have_no_pages_to_touch() -> None:
    engine = fake_engine()
    engine.inputs = (TensorSpec("x", "BYTES", (2,)),)
    slot = slot_for(engine)
    touch([slot])
    assert slot.inputs[0].dtype == TEXT


def test_other_models_are_served_while_the_memory_of_one_is_brought(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[int] = []
    monkeypatch.setattr(batcher, "touch", lambda _: threads.append(threading.get_ident()))

    async def start() -> None:
        config = load_config({"NOMADSERVE_MODELS": '[{"name": "m", "engine": "fake", "path": "m.json"}]'})
        await loading.start_model(config, config.models[0], fake_engine(), Series(), on_lost=lambda _: None)

    asyncio.run(start())
    assert len(threads) == 1
    assert threads[0] != threading.get_ident()
