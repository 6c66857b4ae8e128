"""What a plan of TensorRT is asked for on the command line, by every verb that builds one."""

import click

PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8", "fp8")


def profile(text: str) -> dict[str, dict[str, list[int]]]:
    """`x=1,8:4,8:16,8 mask=…`: for each input the sizes at least, at best and at most."""
    found: dict[str, dict[str, list[int]]] = {}
    for part in text.split():
        name, _, shapes = part.rpartition("=")
        sizes = [[int(size) if size.isdecimal() else -1 for size in shape.split(",")] for shape in shapes.split(":")]
        if not name or len(sizes) != 3 or any(size < 0 for shape in sizes for size in shape):
            raise click.BadParameter(f"`{part}` is no range of shapes; write it as `input=1,8:4,8:16,8` (min:opt:max)")
        found[name] = dict(zip(("min", "opt", "max"), sizes, strict=True))
    if not found:
        raise click.BadParameter("it is empty; write it as `input=1,8:4,8:16,8` (min:opt:max)")
    return found
