"""Which models are loaded: loads and unloads them while the process serves, where that is allowed."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from nomadserve_runtime.calls import Model
from nomadserve_runtime.engine import Engine
from nomadserve_runtime.errors import BadRequest, CannotStart, Forbidden, NotFound

# Only models that the configuration names can be loaded: the interface takes no paths and no uploads.
Open = Callable[[str], Engine]
Start = Callable[[str, Engine], Awaitable[Model]]


class Repository:
    """The models of the configuration, loaded or not. Lives on the event loop.

    open_model: opens the file of a model; runs in a thread.  start_model: calibrates its engine.
    is_open: whether clients may load and unload.

    Attributes:
        models: those that are loaded, by name.
        known: the names of all.
        on_change: called after `models` changed.
    """

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        open_model: Open,
        start_model: Start,
        is_open: bool,
    ) -> None:
        self.models = dict(models)
        self.known = tuple(models)
        self.is_open = is_open
        self.on_change: Callable[[], None] = _nothing
        self._open_model = open_model
        self._start_model = start_model
        self._one_at_a_time = asyncio.Lock()
        self._states: dict[str, tuple[str, str]] = {}

    def model(self, name: str) -> Model:
        """The loaded model of that name; raises `NotFound`."""
        if name in self.models:
            return self.models[name]
        if name in self.known:
            raise NotFound(f"the model `{name}` is not loaded")
        known = ", ".join(f"`{known}`" for known in self.known)
        raise NotFound(f"no model `{name}` is served here, but {known}")

    def index(self, *, version: str) -> list[dict[str, Any]]:
        """All models as the protocol's repository extension lists them."""
        return [self._entry(name, version) for name in self.known]

    async def load(self, name: str) -> None:
        """Load a model that is not loaded; nothing happens to one that is.

        Raises:
            Forbidden, NotFound: it may not be, or is unknown.
            BadRequest: its file can't be served; the reason stays in the index.
        """
        self._check(name)
        async with self._one_at_a_time:
            if name in self.models:
                return
            self._states[name] = ("LOADING", "")
            try:
                engine = await asyncio.to_thread(self._open_model, name)
                self.models[name] = await self._start_model(name, engine)
            except CannotStart as error:
                self._states[name] = ("UNAVAILABLE", error.message)
                raise BadRequest(error.message) from error
            del self._states[name]
            self.on_change()

    async def unload(self, name: str) -> None:
        """Take no more requests for a model, finish those that are in, and close it. One that is not loaded stays so.

        Raises:
            Forbidden, NotFound: it may not be, or is unknown.
        """
        self._check(name)
        async with self._one_at_a_time:
            model = self.models.pop(name, None)
            if model is None:
                return
            self._states[name] = ("UNLOADING", "")
            self.on_change()
            model.batcher.start_draining()
            await model.batcher.wait_idle()
            model.batcher.close()
            model.metrics.unwatch()
            self._states[name] = ("UNAVAILABLE", "unloaded")

    def _check(self, name: str) -> None:
        if not self.is_open:
            raise Forbidden("models can't be loaded and unloaded here: `NOMADSERVE_REPOSITORY` is not 1")
        if name not in self.known:
            self.model(name)

    def _entry(self, name: str, version: str) -> dict[str, Any]:
        state, reason = self._states.get(name, ("READY", ""))
        return {"name": name, "version": version, "state": state, "reason": reason}


def _nothing() -> None:
    """For who does not listen."""
