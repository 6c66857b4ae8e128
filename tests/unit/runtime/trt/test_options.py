import msgspec
import pytest

from nomadserve_runtime.engines.trt.options import BuildOptions, ShapeRange


def test_options_are_read_from_what_a_job_writes() -> None:
    given = {"precision": "fp16", "profiles": [{"x": {"min": [1, 8], "opt": [4, 32], "max": [8, 64]}}]}
    options = msgspec.convert(given, BuildOptions)
    assert options.profiles == ({"x": ShapeRange((1, 8), (4, 32), (8, 64))},)
    assert (options.precision, options.max_batch) == ("fp16", 32)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"min": [1], "opt": [4, 4], "max": [8, 8]}, "differ in their number of dimensions"),
        ({"min": [5], "opt": [4], "max": [8]}, "are not in that order"),
        ({"min": [1], "opt": [9], "max": [8]}, "are not in that order"),
        ({"min": [1], "opt": [4]}, "missing required field `max`"),
        ({"min": [-1], "opt": [4], "max": [8]}, "Expected `int` >= 0"),
    ],
)
def test_shapes_that_no_builder_takes_are_refused(shapes: dict[str, list[int]], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({"profiles": [{"x": shapes}]}, BuildOptions)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'fp4'"):
        msgspec.convert({"precision": "fp4"}, BuildOptions)
