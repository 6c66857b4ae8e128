"""What TensorRT's parser and builder complain about, in words that name the place and the way out."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nomadserve_runtime.errors import CannotStart, WrongSetting

NODES_SHOWN_MAX = 5
_OPERATOR_HINT = (
    'serve it with `engine = "onnxruntime"`, take that step out of the model, or export it with operators that '
    "TensorRT knows"
)
# "IBuilder::buildSerializedNetwork: Error Code 4: API Usage Error (… In validate at /_src/network.cpp:4023)"
_WRAPPED = re.compile(r"Error Code \d+: [^(]*\((?P<what>.*?)[.:,]?\s*(?:In \w+ at \S+:\d+.*)?\)?$", re.DOTALL)
_NO_DRIVER = re.compile(
    r"cudaError 35|cudaError 100|driver version is insufficient|no CUDA-capable device", re.IGNORECASE
)
_OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemory|cudaError 2\b|insufficient memory", re.IGNORECASE)


@dataclass(frozen=True)
class ParserError:
    """One error of the ONNX parser.

    Attributes:
        node: its place in the model; -1 where the error belongs to no node.
    """

    code: str
    text: str
    node: int
    name: str
    operator: str

    @property
    def reason(self) -> str:
        """Why, for people; empty where the parser only says that it is so."""
        if "Plugin not found" in self.text:
            return "no such operator, and no plugin of that name is loaded"
        text = self.text.removeprefix("Assertion failed:").strip()
        _, _, said = text.partition('&& "')
        return said.rstrip('"') if said else "" if text in ("false", "0") else text

    def __str__(self) -> str:
        at = f" (node `{self.name}`)" if self.name else f" (node {self.node})"
        return f"`{self.operator}`{at}" + (f": {self.reason}" if self.reason else "")


def parser_errors(parser: Any) -> list[ParserError]:
    """All that an OnnxParser has to say."""
    errors = (parser.get_error(index) for index in range(parser.num_errors))
    return [
        ParserError(
            code=getattr(error.code(), "name", str(error.code())),
            text=str(error.desc()),
            node=int(error.node()),
            name=str(error.node_name()),
            operator=str(error.node_operator()),
        )
        for error in errors
    ]


def parse_failure(path: Path, title: str, found: Sequence[ParserError], log: Iterable[str]) -> WrongSetting:
    """Why a model could not be parsed. title: of TensorRT; log: its errors of the same time."""
    of_nodes = list(dict.fromkeys(str(error) for error in found if error.node >= 0 and error.operator))
    if of_nodes:
        more = len(of_nodes) - NODES_SHOWN_MAX
        lines = [f"{title} can't run `{path.name}`:", *(f"  {line}" for line in of_nodes[:NODES_SHOWN_MAX])]
        return WrongSetting("\n".join([*lines, *([f"  and {more} more"] if more > 0 else [])]), hint=_OPERATOR_HINT)
    text = "\n".join([*(error.text for error in found), *log])
    if "Failed to import initializer" in text:
        weight = re.search(r"initializer: (\S+)\s*$", text, re.MULTILINE)
        which = f" `{weight[1]}`" if weight else ""
        return WrongSetting(
            f"{title} can't read the weights{which} of `{path.name}`",
            hint="check that the files with its weights lie beside it, whole",
        )
    if "Failed to convert ONNX date type" in text:
        return WrongSetting(
            f"{title} knows no tensors of a type that `{path.name}` takes or gives",
            hint="move texts and complex numbers out of the model, so that numbers go in and come out",
        )
    return WrongSetting(
        f"{title} can't read `{path.name}`: {_first(found)}", hint="check that it is a whole ONNX model"
    )


def _first(found: Sequence[ParserError]) -> str:
    return found[0].reason or found[0].code.lower() if found else "it does not say why"


def build_failure(path: Path, title: str, log: Sequence[str]) -> CannotStart:
    """Why the builder gave no plan. log: what TensorRT called an error meanwhile, oldest first."""
    text = "\n".join(log)
    if _NO_DRIVER.search(text):
        return CannotStart(
            f"{title} needs a GPU to build `{path.name}`, and no driver for it answers here",
            hint="`nvidia-smi` names the driver there is; `nomadserve build --on-cluster` builds on a node with a GPU",
        )
    if _OUT_OF_MEMORY.search(text):
        return CannotStart(
            f"the memory of the GPU does not suffice to build `{path.name}`",
            hint="stop what else runs on it, or give a smaller `max_batch`, smaller profiles or less `--workspace`",
        )
    if found := re.search(r"Could not find any implementation for node (.+?)[.\s]*(?:In |\)|$)", text):
        return WrongSetting(
            f"{title} has no implementation of `{found[1]}` of `{path.name}` that fits",
            hint="give more `--workspace`, or another precision",
        )
    if found := re.search(r"profile (\d+) violate shape constraints: \w+ ([^:]+): (.+?)\s+In \w+ at ", text):
        return WrongSetting(
            f"profile {int(found[1]) + 1} does not fit `{path.name}` at the layer `{found[2]}`: {found[3]}",
            hint="the model fixes a size there: export it with that size open, or give a profile that keeps to it",
        )
    if "invalid shape profile" in text:
        return WrongSetting(
            f"the shapes of a profile contradict one another in `{path.name}`",
            hint="inputs that are used together need the same batch in `min`, in `opt` and in `max`",
        )
    return WrongSetting(
        f"{title} can't build `{path.name}`: {plain(log[0]) if log else 'it does not say why'}",
        hint="`--log-level debug` shows all that it says",
    )


def plain(line: str) -> str:
    """A line of TensorRT's log without the names of its functions and source files."""
    found = _WRAPPED.search(line)
    return (found["what"] if found else line).strip()[:500]
