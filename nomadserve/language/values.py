"""Single values: what a key takes, told in words, and whether a value is that."""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import inspect

from nomadserve.language.hcl import Expression, Map
from nomadserve.language.problems import did_you_mean


class WrongValue(Exception):
    """A value that its key can't take.

    Attributes:
        expected: what the key takes, in words.
        hint: the way out, for a key.
    """

    def __init__(self, expected: str, hint: Callable[[str], str]) -> None:
        super().__init__(expected)
        self.expected, self.hint = expected, hint


def convert(value: Any, kind: Any) -> Any:
    """The value as msgspec reads it for a type; quantities with units by their own `parse`."""
    try:
        return msgspec.convert(value, kind, dec_hook=_parse)
    except msgspec.ValidationError as error:
        info = _plain(inspect.type_info(kind))
        raise WrongValue(_expected(info), lambda key: _hint(key, value, info)) from error


def fits(value: Any, kind: Any) -> bool:
    """Whether the value is one of the type."""
    try:
        convert(value, kind)
    except WrongValue:
        return False
    return True


def _parse(kind: type, value: Any) -> Any:
    return kind.parse(value)  # type: ignore[attr-defined]


def shown(value: Any) -> str:
    """A value as the user wrote it, or its kind where it is long."""
    match value:
        case str():
            return f'"{value}"' if len(value) <= 60 and "\n" not in value else "that text"
        case bool():
            return "true" if value else "false"
        case list():
            return "a list"
        case Map():
            return "a map"
        case Expression():
            return f"`{value.text}`"
    return str(value)


def example(key: str, kind: Any) -> str:
    """How a key is written: `` `min = 1` ``."""
    return _example(key, _plain(inspect.type_info(kind)))


def _example(key: str, info: inspect.Type) -> str:
    match info:
        case inspect.CustomType(cls=cls):
            return f'`{key} = "{cls.like(None)}"`'  # type: ignore[attr-defined]
        case inspect.IntType() | inspect.FloatType():
            return f"`{key} = 1`"
        case inspect.BoolType():
            return f"`{key} = true`"
        case inspect.VarTupleType(item_type=item):
            return f"`{key} = [1, 8]`" if isinstance(_plain(item), inspect.IntType) else f'`{key} = ["…"]`'
        case inspect.DictType():
            return f'`{key} = {{ NAME = "value" }}`'
    return f'`{key} = "…"`'


def stand_in(kind: Any) -> Any:
    """Some value of the type, for a place where the user's was refused."""
    match _plain(inspect.type_info(kind)):
        case inspect.IntType() | inspect.FloatType():
            return 1
        case inspect.VarTupleType():
            return ()
    return ""


def _plain(info: inspect.Type) -> inspect.Type:
    """The type without its notes and its `None`."""
    if isinstance(info, inspect.Metadata):
        return _plain(info.type)
    if isinstance(info, inspect.UnionType):
        return next(_plain(member) for member in info.types if not isinstance(member, inspect.NoneType))
    return info


def _expected(info: inspect.Type) -> str:
    match info:
        case inspect.CustomType(cls=cls):
            return str(cls.expected)  # type: ignore[attr-defined]
        case inspect.IntType():
            return "a whole number" + _range(info)
        case inspect.FloatType():
            return "a number" + _range(info)
        case inspect.BoolType():
            return "true or false"
        case inspect.LiteralType(values=words):
            return "one of " + ", ".join(f'"{word}"' for word in words)
        case inspect.VarTupleType(item_type=item):
            return "a list of whole numbers" if isinstance(_plain(item), inspect.IntType) else "a list of texts"
        case inspect.DictType():
            return "a map"
    return "a text"


def _range(info: inspect.IntType | inspect.FloatType) -> str:
    low, high = info.ge if info.ge is not None else info.gt, info.le
    if low is None:
        return ""
    if high is not None:
        return f" from {low} to {high}" if info.ge is not None else f" above {low} and up to {high}"
    return f" of at least {low}" if info.ge is not None else f" above {low}"


def _hint(key: str, value: Any, info: inspect.Type) -> str:
    match info:
        case inspect.CustomType(cls=cls):
            return f'write it like `{key} = "{cls.like(value)}"`'  # type: ignore[attr-defined]
        case inspect.LiteralType(values=words):
            written = value.text if isinstance(value, Expression) else str(value)
            return did_you_mean(written, map(str, words)) or f'write `{key} = "{words[0]}"`'
        case inspect.IntType() | inspect.FloatType() | inspect.BoolType() if isinstance(value, str):
            plain = _is_plain(value, info)
            return f"write it without quotes: `{key} = {value}`" if plain else f"write {_example(key, info)}"
        case inspect.IntType() | inspect.FloatType() if isinstance(value, int | float) and _range(info):
            return f"write `{key} = {_nearest(value, info)}`"
        case inspect.VarTupleType(item_type=inspect.StrType()) if isinstance(value, str):
            return f'write it in brackets: `{key} = ["{value}"]`'
        case inspect.StrType() if isinstance(value, bool | int | float):
            return f'write it in double quotes: `{key} = "{shown(value)}"`'
    return f"write {_example(key, info)}"


def _nearest(value: float, info: inspect.IntType | inspect.FloatType) -> float:
    """The closest number in the range of the type."""
    low = info.ge if info.ge is not None else 1
    rounded = round(value) if isinstance(info, inspect.IntType) else value
    return max(low, rounded if info.le is None else min(rounded, info.le))


def _is_plain(text: str, info: inspect.Type) -> bool:
    """Whether a text would be right without its quotes."""
    if isinstance(info, inspect.BoolType):
        return text in ("true", "false")
    try:
        float(text)
    except ValueError:
        return False
    return True
