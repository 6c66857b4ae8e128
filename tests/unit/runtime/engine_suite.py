"""What every engine must do, whatever it runs on: the fixture `engine` gives the same small model on each.

A row of four FP32 numbers `x` in; their sum, and their sum plus one, `y`, out; batches of up to 8 rows.
"""

import numpy as np
import pytest

from nomadserve_runtime.engine import Engine
from nomadserve_runtime.tensors import TensorSpec
from tests.unit.runtime.models import slot_for


class EngineSuite:
    """To be inherited by a test class, beside a fixture `engine`."""

    def test_an_engine_knows_its_tensors(self, engine: Engine) -> None:
        assert engine.inputs == (TensorSpec("x", "FP32", (4,)),)
        assert engine.outputs == (TensorSpec("y", "FP32", (2,)),)
        assert engine.batch_max == 8

    def test_host_arrays_have_the_shape_and_type_asked_for(self, engine: Engine) -> None:
        array = engine.host_array((8, 3), np.dtype(np.int16))
        assert (array.shape, array.dtype, array.flags.c_contiguous) == ((8, 3), np.dtype(np.int16), True)

    @pytest.mark.parametrize("rows", [1, 3, 8])
    def test_each_row_is_computed_from_the_same_row(self, engine: Engine, rows: int) -> None:
        slot = slot_for(engine)
        slot.inputs[0][:] = np.arange(32).reshape(8, 4)
        engine.run(slot, rows)
        sums = np.arange(32).reshape(8, 4).sum(axis=1)[:rows]
        assert slot.outputs[0][:rows].tolist() == [[total, total + 1] for total in sums]

    def test_rows_beyond_the_batch_are_not_written(self, engine: Engine) -> None:
        slot = slot_for(engine)
        slot.inputs[0][:] = 1
        slot.outputs[0][:] = -7
        engine.run(slot, 2)
        assert slot.outputs[0][2:].tolist() == [[-7, -7]] * 6

    def test_batches_do_not_leave_anything_behind(self, engine: Engine) -> None:
        slot = slot_for(engine)
        for value in (1.0, 2.0):
            slot.inputs[0][:] = value
            engine.run(slot, 8)
            assert slot.outputs[0][:, 0].tolist() == [4 * value] * 8

    def test_an_engine_can_be_closed(self, engine: Engine) -> None:
        engine.close()
