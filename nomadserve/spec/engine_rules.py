"""Which engine can serve which file, and what TensorRT may be asked for."""

from nomadserve.spec.service import InputShapes, Model, Service
from nomadserve.spec.violation import Path, Violation, Violations


def engines(service: Service) -> Violations:
    """Every model has an engine that can load it, and is asked for nothing that its engine has not."""
    for model in service.models:
        path, engine = ("model", model.name), service.engine_of(model)
        if engine == "tensorrt":
            yield from _tensorrt(model, service, path)
        else:
            yield from _others(model, engine, path)
        for index, profile in enumerate(model.profiles):
            at = (*path, "profile", str(index))
            if not profile.inputs:
                hint = 'give the shapes of each input: `input "x" { min = [1, 8] … }`'
                yield Violation((at, (*at, "input")), "this `profile` names no input", hint)
            for shapes in profile.inputs:
                yield from _shapes(shapes, (*at, "input", shapes.name))
    if service.engine_cache is not None:
        yield from _engine_cache(service)


def _tensorrt(model: Model, service: Service, path: Path) -> Violations:
    if not service.gpu:
        hint = 'add a `gpu` block: `gpu { memory = ">= 8 GiB" }`; without a GPU, take `engine = "onnxruntime"`'
        yield Violation(((*path, "engine"), ("gpu",)), "TensorRT needs a GPU, and the service asks for none", hint)
    if not model.is_plan and model.suffix != ".onnx":
        message = f"TensorRT serves `.onnx` and `.plan` files, not `{model.suffix or model.source}`"
        yield Violation(((*path, "source"), (*path, "engine")), message, "name the file by its kind")
    for key, is_given in (("precision", model.precision is not None), ("profile", bool(model.profiles))):
        if model.is_plan and is_given:
            hint = f"take it out, or name the `.onnx` in `source`: then the plan is built with this `{key}`"
            at = (*path, key, "0") if key == "profile" else (*path, key)
            yield Violation((at, (*path, "source")), f"a plan has its `{key}` already", hint)


def _others(model: Model, engine: str, path: Path) -> Violations:
    if model.is_plan and engine == "onnxruntime":
        hint = "add a `gpu` block, or name the `.onnx` that the plan was built from"
        message = "a plan runs on TensorRT and a GPU, and the service asks for none"
        if service_chose := model.engine != "auto":
            message, hint = "a plan runs on TensorRT alone", 'take `engine = "tensorrt"`, with a `gpu` block'
        paths = ((*path, "engine"), (*path, "source")) if service_chose else ((*path, "source"), ("gpu",))
        yield Violation(paths, message, hint)
    for key, is_given in (("precision", model.precision is not None), ("instances", model.instances > 1)):
        if is_given:
            hint = "take it out, or add a `gpu` block" if model.engine == "auto" else "take it out"
            message = f"`{key}` is for TensorRT, and this model runs on `{engine}`"
            yield Violation(((*path, key), (*path, "engine"), ("gpu",)), message, hint)


def _shapes(shapes: InputShapes, path: Path) -> Violations:
    """The sizes can't be held against the model here: that is read where it is built, or served."""
    parts = tuple((*path, key) for key in ("min", "opt", "max"))
    if not len(shapes.min) == len(shapes.opt) == len(shapes.max):
        counts = f"{len(shapes.min)}, {len(shapes.opt)} and {len(shapes.max)}"
        hint = "each is a whole shape, the batch first: `min = [1, 3, 224, 224]`"
        yield Violation((path, *parts), f"`min`, `opt` and `max` have {counts} sizes", hint)
    elif not shapes.opt:
        yield Violation((path, *parts), "these shapes are empty", "write `opt = [8, 128]`, the batch first")
    elif not all(low <= best <= high for low, best, high in zip(shapes.min, shapes.opt, shapes.max, strict=True)):
        hint = "on every axis, `min` is the smallest size, `max` the largest, and the plan is fastest at `opt`"
        yield Violation((path, *parts), "`min`, `opt` and `max` are not in that order", hint)
    elif 0 in shapes.max:
        yield Violation((path, *parts), "a size of 0 at most leaves nothing to compute", "give `max` a size above 0")


def _engine_cache(service: Service) -> Violations:
    wanted, path = service.engine_cache or "", ("engine_cache",)
    if service.driver == "raw_exec" and not wanted.startswith("/"):
        hint = "like `/var/cache/nomadserve`; left out, it is the cache folder of the user that runs Nomad's agent"
        yield Violation((path, ("driver",)), "under `raw_exec`, `engine_cache` is a folder of the node", hint)
    elif service.driver != "raw_exec" and ("/" in wanted or not wanted):
        message = f"under `{service.driver}`, `engine_cache` is the name of a host volume"
        hint = 'declare it on the nodes, `client { host_volume "engines" { path = "/var/cache/nomadserve" } }`'
        yield Violation((path, ("driver",)), message, hint + ", or leave `engine_cache` out")
