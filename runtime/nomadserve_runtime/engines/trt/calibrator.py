"""Ranges for INT8, measured on rows that the user gives, by a TensorRT that still calibrates (10). Untried on a GPU."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nomadserve_runtime.engines.trt.bindings import Bindings
from nomadserve_runtime.engines.trt.device import DeviceArrays
from nomadserve_runtime.engines.trt.options import BuildOptions
from nomadserve_runtime.engines.trt.profiles import Input
from nomadserve_runtime.errors import WrongSetting

# Ranges settle after a few hundred rows; small batches keep the memory of the GPU free for the builder.
BATCH_ROWS_MAX = 32


def read_rows(path: Path, dtypes: Mapping[str, np.dtype]) -> dict[str, np.ndarray]:
    """The arrays of an .npz file, one for each input, rows first; in the number formats `dtypes` of the inputs.

    Raises:
        WrongSetting: the file can't be read, or its arrays are not those of the inputs.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError) as error:
        raise WrongSetting(
            f"can't read the calibration data `{path}`: {str(error).splitlines()[0]}",
            hint="write it with `numpy.savez(path, input_name=rows, …)`",
        ) from error
    wanted = ", ".join(f"`{name}`" for name in dtypes)
    if set(arrays) != set(dtypes):
        found = ", ".join(f"`{name}`" for name in sorted(arrays)) or "nothing"
        raise WrongSetting(f"the calibration data `{path}` holds {found}", hint=f"the model's inputs are {wanted}")
    rows = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(rows) > 1 or rows == {0}:
        hint = "every array has as many rows as the others: its first size"
        raise WrongSetting(f"the arrays of the calibration data `{path}` differ in their rows", hint=hint)
    # Whoever saves Python's own numbers saves FP64; the GPU gets what the input takes.
    return {name: np.ascontiguousarray(array, dtypes[name]) for name, array in arrays.items()}


def batches(arrays: Mapping[str, np.ndarray], rows: int) -> Iterator[dict[str, np.ndarray]]:
    """Whole batches of `rows` rows; a rest that fills none is left out, as TensorRT takes one size only."""
    count = len(next(iter(arrays.values())))
    for start in range(0, count - rows + 1, rows):
        yield {name: array[start : start + rows] for name, array in arrays.items()}


def calibrate_with(
    options: BuildOptions, bindings: Bindings, inputs: Sequence[Input], builder: Any, network: Any, config: Any
) -> Any:
    """Have the builder measure. The answer must be kept as long as it builds: TensorRT holds no reference."""
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    dtypes = {tensor.name: np.dtype(bindings.module.nptype(tensor.dtype)) for tensor in tensors}
    arrays = read_rows(Path(options.calibration), dtypes)
    fixed = [each.shape[0] for each in inputs if each.shape[0] >= 0]
    rows = fixed[0] if fixed else min(BATCH_ROWS_MAX, len(next(iter(arrays.values()))))
    if any(each.is_dynamic for each in inputs):
        shapes = builder.create_optimization_profile()
        for name, array in arrays.items():
            shape = (rows, *array.shape[1:])
            shapes.set_shape(name, shape, shape, shape)
        config.set_calibration_profile(shapes)
    left, memory, module = batches(arrays, rows), DeviceArrays(), bindings.module

    class Calibrator(module.IInt8EntropyCalibrator2):  # type: ignore[misc, name-defined]  # known at run time only
        def __init__(self) -> None:
            module.IInt8EntropyCalibrator2.__init__(self)

        def get_batch_size(self) -> int:
            return rows

        def get_batch(self, names: list[str]) -> list[int] | None:
            batch = next(left, None)
            return None if batch is None else [memory.put(name, batch[name]) for name in names]

        def read_calibration_cache(self) -> None:
            return None

        def write_calibration_cache(self, cache: Any) -> None:
            memory.free()

    calibrator = Calibrator()
    config.int8_calibrator = calibrator
    return calibrator
