"""The third step of reading a service file: blocks become the Structs of `nomadserve.spec`.

The Structs are the grammar: their fields are the keys, their types what a key takes. msgspec checks each value by
itself, so that every mistake is found, not only the first.
"""

import types
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar, Union, get_args, get_origin

from msgspec.structs import FieldInfo, fields

from nomadserve import spec
from nomadserve.language import values
from nomadserve.language.hcl import Attribute, Block, Expression, Map
from nomadserve.language.problems import closest, did_you_mean

Path = tuple[str, ...]
AnyBlock = TypeVar("AnyBlock", bound=spec.Block)

_NOT_YET = "take it out for now: docs/service-file.md lists what this release knows"
_NO_EVALUATION = "Jinja2 is the templating here, `{{ … }}`; where `${` itself is meant, write `$${`"


@dataclass(frozen=True, slots=True)
class Mistake:
    """Something wrong at a line of the rendered text."""

    line: int
    message: str
    hint: str = ""


@dataclass
class Decoded:
    """What became of a file.

    Attributes:
        service: None only where there is no service block at all.
        lines: the line of every block and key that was found, by its path: `("model", "digits", "source")`.
        mistakes: all of them.
        broken: paths whose value is not the user's, because that one was refused.
    """

    service: spec.Service | None = None
    lines: dict[Path, int] = field(default_factory=dict)
    mistakes: list[Mistake] = field(default_factory=list)
    broken: set[Path] = field(default_factory=set)

    def line(self, path: Path) -> int:
        """The line of a path, or of the nearest block around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def is_broken(self, path: Path) -> bool:
        """Whether something was refused at the path or above it."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))


def decode(root: Block) -> Decoded:
    """Read the one service of a file."""
    decoder = _Decoder(Decoded())
    decoder.read_file(root)
    return decoder.result


@dataclass(frozen=True, slots=True)
class _Shape:
    """How a field is written when it is a block: with which Structs, by tag where there are several."""

    structs: tuple[type[spec.Block], ...]
    is_repeated: bool

    @property
    def is_labelled(self) -> bool:
        return issubclass(self.structs[0], spec.Named | spec.Target)

    def example(self, key: str) -> str:
        return f'{key} "NAME" {{ … }}' if self.is_labelled else f"{key} {{ … }}"


def _shape(info: FieldInfo) -> _Shape | None:
    """None for a field that is a plain key."""
    is_repeated = get_origin(info.type) is tuple
    found: list[type[spec.Block]] = []
    pending = [info.type]
    while pending:
        kind = pending.pop(0)
        if isinstance(kind, type) and issubclass(kind, spec.Block):
            found.append(kind)
        elif get_origin(kind) in (Union, types.UnionType, tuple):
            pending += get_args(kind)
    return _Shape(tuple(found), is_repeated) if found else None


def _keys(cls: type[spec.Block]) -> dict[str, FieldInfo]:
    """The keys and blocks that may stand in a block; a name comes from its label."""
    return {info.encode_name: info for info in fields(cls) if not (info.name == "name" and issubclass(cls, spec.Named))}


class _Decoder:
    """Walks a file along the Structs."""

    def __init__(self, result: Decoded) -> None:
        self.result = result

    def read_file(self, root: Block) -> None:
        for attribute in root.attributes:
            self._complain(attribute.line, f"`{attribute.key}` stands outside of the service", _inside(attribute.key))
        services = [block for block in root.blocks if block.kind == "service"]
        for block in root.blocks:
            if block.kind != "service":
                hint = did_you_mean(block.kind, ["service"]) or _inside(block.kind)
                self._complain(block.line, f"`{block.kind}` stands outside of the service", hint)
        for block in services[1:]:
            self._complain(block.line, "a second service in one file", "write a file for each service")
        if services:
            self.result.service = self._service(services[0])
        elif not self.result.mistakes:
            self._complain(1, "there is no service in this file", 'write `service "my-api" { … }`')

    def _service(self, block: Block) -> spec.Service:
        name = self._label(block, spec.Service)
        if name is None:
            self.result.broken.add(("name",))
        self.result.lines[()] = block.line
        return self._struct(block, spec.Service, (), {"name": name or "unnamed"})

    def _struct(self, block: Block, cls: type[AnyBlock], path: Path, given: Mapping[str, Any]) -> AnyBlock:
        """The block as a Struct, with stand-ins for required values that are missing or refused."""
        keys = _keys(cls)
        found: dict[str, Any] = dict(given)
        for attribute in self._once(block, cls, path):
            value = self._attribute(attribute, keys[attribute.key], (*path, attribute.key))
            if value is not None:
                found[keys[attribute.key].name] = value
        self._read_blocks(block, cls, path, found)
        for key, info in keys.items():
            if info.required and info.name not in found:
                found[info.name] = values.stand_in(info.type)
                if (*path, key) not in self.result.broken:
                    hint = f"add {values.example(key, info.type)}"
                    self._refuse((*path, key), block.line, f"{_title(block)} lacks `{key}`", hint)
        return cls(**found)

    def _once(self, block: Block, cls: type[spec.Block], path: Path) -> Iterator[Attribute]:
        """The attributes that the block knows, each the first time it comes."""
        for attribute in block.attributes:
            if attribute.key not in _keys(cls):
                self._unknown(attribute.key, attribute.line, block, cls, path)
            elif (first := self.result.lines.get((*path, attribute.key))) is not None:
                self._twice(f"`{attribute.key}`", attribute.line, first)
            else:
                self.result.lines[(*path, attribute.key)] = attribute.line
                yield attribute

    def _attribute(self, attribute: Attribute, info: FieldInfo, path: Path) -> Any:
        """The value for a field; None where it is refused, or is `null`."""
        if shape := _shape(info):
            hint = f"write `{shape.example(attribute.key)}`, without `=`"
            return self._refuse(path, attribute.line, f"`{attribute.key}` is a block, not a value", hint)
        if isinstance(attribute.value, Map) and get_origin(info.type) is dict:
            return self._map(attribute.value, attribute.key, get_args(info.type)[1], path)
        return self._value(attribute, info.type, path)

    def _value(self, attribute: Attribute, kind: Any, path: Path) -> Any:
        value = attribute.value
        if expression := _expression(value):
            if not (expression.is_word and value is expression):
                message = f"`{attribute.key}` is an HCL expression, and those are not evaluated here"
                return self._refuse(path, attribute.line, message, _NO_EVALUATION)
            if values.fits(expression.text, kind):
                hint = f'put it in quotes: `{attribute.key} = "{expression.text}"`'
                message = f"`{expression.text}` is neither a text nor a number"
                return self._refuse(path, attribute.line, message, hint)
        try:
            return None if value is None else values.convert(value, kind)
        except values.WrongValue as error:
            message = f"`{attribute.key}` must be {error.expected}, not {values.shown(value)}"
            return self._refuse(path, attribute.line, message, error.hint(attribute.key))

    def _map(self, map_: Map, key: str, kind: Any, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for entry in map_.entries:
            if (first := self.result.lines.get((*path, entry.key))) is not None:
                self._twice(f"`{entry.key}` in `{key}`", entry.line, first)
                continue
            self.result.lines[(*path, entry.key)] = entry.line
            value = self._value(entry, kind, (*path, entry.key))
            if value is not None:
                found[entry.key] = value
        return found

    def _read_blocks(self, block: Block, cls: type[spec.Block], path: Path, found: dict[str, Any]) -> None:
        keys = _keys(cls)
        counts: Counter[str] = Counter()
        for child in block.blocks:
            info = keys.get(child.kind)
            shape = _shape(info) if info else None
            if info is None:
                self._unknown(child.kind, child.line, block, cls, path)
            elif shape is None:
                hint = f"write {values.example(child.kind, info.type)}"
                self._refuse((*path, child.kind), child.line, f"`{child.kind}` is a value, not a block", hint)
            elif value := self._child(child, shape, (*path, child.kind), index=counts[child.kind]):
                found[info.name] = (*found.get(info.name, ()), value) if shape.is_repeated else value
            counts[child.kind] += 1

    def _child(self, child: Block, shape: _Shape, path: Path, *, index: int) -> spec.Block | None:
        """An inner block; None, with its kind marked as incomplete, where it can't be told what it is."""
        cls, given = shape.structs[0], {}
        if shape.is_labelled:
            label = self._label(child, cls)
            tagged = self._tagged(child, shape, label) if label else None
            if label is None or tagged is None:
                self.result.broken.add((*path, spec.REFUSED))
                return None
            cls, given = tagged, {"name": label} if issubclass(cls, spec.Named) else {}
            path = (*path, label)
        elif child.labels:
            self._complain(child.line, f"`{child.kind}` takes no name", f"write `{child.kind} {{ … }}`")
        elif shape.is_repeated:
            path = (*path, str(index))
        if (first := self.result.lines.get(path)) is not None:
            self._twice(_title(child), child.line, first)
            return None
        self.result.lines[path] = child.line
        return self._struct(child, cls, path, given)

    def _tagged(self, child: Block, shape: _Shape, label: str) -> type[spec.Block] | None:
        """The Struct for a label: the only one there is, or the one with that tag."""
        if len(shape.structs) == 1:
            return shape.structs[0]
        by_tag = {str(struct.__struct_config__.tag): struct for struct in shape.structs}
        if label not in by_tag:
            hint = did_you_mean(label, by_tag) or "there are " + ", ".join(f"`{tag}`" for tag in by_tag)
            self._complain(child.line, f"there is no {child.kind} `{label}`", hint)
        return by_tag.get(label)

    def _label(self, block: Block, cls: type[spec.Block]) -> str | None:
        if len(block.labels) == 1:
            return block.labels[0]
        example = "digits" if cls is spec.Model else "my-api" if cls is spec.Service else "NAME"
        problem = "has more than one name" if block.labels else "needs a name"
        self._complain(block.line, f"`{block.kind}` {problem}", f'write `{block.kind} "{example}" {{`')
        return None

    def _unknown(self, key: str, line: int, block: Block, cls: type[spec.Block], path: Path) -> None:
        if key in cls.planned:
            self._complain(line, f"`{key}` is not in this release yet", _NOT_YET)
            return
        if meant := closest(key, _keys(cls)):  # what it stands for is not missing, too
            self.result.broken |= {(*path, meant), (*path, meant, spec.REFUSED)}
        self._complain(line, f"`{block.kind}` knows no `{key}`", did_you_mean(key, _keys(cls)) or _home(key, cls))

    def _twice(self, what: str, line: int, first: int) -> None:
        self._complain(line, f"{what} is given twice, first on line {first}", "keep one of them")

    def _refuse(self, path: Path, line: int, message: str, hint: str) -> None:
        self.result.broken.add(path)
        self._complain(line, message, hint)

    def _complain(self, line: int, message: str, hint: str) -> None:
        self.result.mistakes.append(Mistake(line, message, hint))


def _expression(value: Any) -> Expression | None:
    """The first thing in a value that HCL would have to evaluate."""
    if isinstance(value, Expression):
        return value
    inner: Iterable[Any] = ()
    if isinstance(value, list):
        inner = value
    elif isinstance(value, Map):
        inner = (entry.value for entry in value.entries)
    return next(filter(None, map(_expression, inner)), None)


def _homes() -> dict[str, set[str]]:
    """Which keys each block knows, to send a misplaced one home."""
    homes: dict[str, set[str]] = {"service": set(_keys(spec.Service))}
    pending: list[type[spec.Block]] = [spec.Service]
    while pending:
        for key, info in _keys(pending.pop()).items():
            for struct in shape.structs if (shape := _shape(info)) else ():
                homes.setdefault(key, set()).update(_keys(struct))
                pending.append(struct)
    return homes


def _home(key: str, cls: type[spec.Block]) -> str:
    """Where a key belongs that the block doesn't know; else what the block does know."""
    homes = _homes()
    if home := next((home for home, keys in homes.items() if key in keys), None):
        return f"`{key}` belongs into `{home}`"
    if meant := closest(key, chain.from_iterable(homes.values())):
        return (
            f"did you mean `{meant}`? it belongs into `{next(home for home, keys in homes.items() if meant in keys)}`"
        )
    return "it knows " + ", ".join(f"`{name}`" for name in _keys(cls))


def _inside(key: str) -> str:
    if key in _homes()["service"]:
        return 'put it inside of `service "NAME" { … }`'
    return "a file holds one `service` block and nothing else"


def _title(block: Block) -> str:
    return "`" + " ".join([block.kind, *(f'"{label}"' for label in block.labels)]) + "`"


__all__ = ["Decoded", "Mistake", "Path", "decode"]
