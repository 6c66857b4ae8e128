"""The model files that a service names: found, and fingerprinted."""

import hashlib
from pathlib import Path

from msgspec.structs import replace

from nomadserve.spec import Model, Service, Violation


def locate_models(service: Service, folder: Path) -> tuple[Service, list[Violation]]:
    """The service with its local files as absolute paths and with their checksums; what is missing or differs."""
    models, problems = [], []
    for model in service.models:
        located = _located(model, folder)
        if isinstance(located, Violation):
            problems.append(located)
        else:
            models.append(located)
    return replace(service, models=tuple(models)), problems


def _located(model: Model, folder: Path) -> Model | Violation:
    if model.is_remote or not model.source:
        return model
    path = (folder / model.source).resolve()
    at = ("model", model.name, "source")
    if not path.exists():
        hint = "paths are relative to the folder of the service file"
        return Violation((at,), f"there is no model file `{path}`", hint)
    try:
        checksum = _checksum(path)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        return Violation((at,), f"can't read the model file `{path}`: {reason}", "name one file that you may read")
    if model.checksum not in (None, checksum):
        message = f"`{path}` has the checksum `{checksum}`, not the one given"
        return Violation(
            ((*at[:2], "checksum"),), message, "take `checksum` out (local files get theirs) or fix the file"
        )
    return replace(model, source=str(path), checksum=checksum)


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
