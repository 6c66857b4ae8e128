"""The first step of reading a service file: Jinja2, with a map from each line of the result to the user's line.

The map comes from marks (characters for private use, so that no filter touches them) at the start of every line of
plain text in the template. The text that counts is rendered without them; a second rendering carries them.
"""

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from types import FrameType
from typing import Any

from jinja2 import Environment, TemplateError, TemplateSyntaxError, Undefined
from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import SandboxedEnvironment

from nomadserve.language.problems import Problem, did_you_mean

_OPEN, _ZERO = "\ue000", "\ue010"
_MARK = re.compile(f"{_OPEN}([{_ZERO}-{chr(ord(_ZERO) + 9)}]+)")


_UNCLOSED = re.compile(r"innermost block that needs to be closed is '(\w+)'")
_MARKS_AND_BLANKS = re.compile(rf"(?:\s|{_MARK.pattern})*")


@dataclass(frozen=True, slots=True)
class Rendered:
    """The text after Jinja2.

    Attributes:
        text: what HCL gets to see.
        lines: for each line of `text`, the line of the template it comes from.
    """

    text: str
    lines: tuple[int, ...]

    def template_line(self, line: int) -> int:
        """The user's line for a line of `text`, both counted from 1."""
        return self.lines[min(max(line, 1), len(self.lines)) - 1]


class BadTemplate(Exception):
    """The template can't be rendered; `problems` says why."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def render_template(
    source: str, variables: Mapping[str, str], *, file: str, must_use: frozenset[str] = frozenset()
) -> Rendered:
    """Render a service file; every variable it lacks, and every one of `must_use` it ignores, is a problem."""
    rendering = _Rendering(file, variables)
    problems = [*rendering.unused(source, must_use)]
    text = rendering.render(source, marked=False)
    problems += rendering.problems
    if problems:
        raise BadTemplate(problems)
    marked = rendering.render(source, marked=True)
    return Rendered(text, _lines(text, marked))


@dataclass
class _Rendering:
    """One file and its variables; collects what is undefined instead of stopping at the first."""

    file: str
    variables: Mapping[str, str]
    undefined: dict[str, Problem] = field(default_factory=dict)
    failed: Problem | None = None

    @property
    def problems(self) -> list[Problem]:
        if self.undefined:  # what fails after an undefined variable is its consequence
            return list(self.undefined.values())
        return [self.failed] if self.failed else []

    def environment(self, *, marked: bool) -> Environment:
        return SandboxedEnvironment(
            undefined=_recording(self), keep_trailing_newline=True, extensions=[_LineMarks] if marked else []
        )

    def unused(self, source: str, must_use: frozenset[str]) -> Iterator[Problem]:
        try:
            used = find_undeclared_variables(self.environment(marked=False).parse(source))
        except TemplateSyntaxError:
            return  # told by `render`
        for name in sorted(must_use - used):
            hint = did_you_mean(name, used) or f"take it out, or use it in the file: `{{{{ {name} }}}}`"
            yield Problem(self.file, 1, f"the variable `{name}` is given, but this file has no use for it", hint)

    def render(self, source: str, *, marked: bool) -> str:
        try:
            return self.environment(marked=marked).from_string(source).render(self.variables)
        except TemplateSyntaxError as error:
            self.failed = _syntax_problem(self.file, error)
        except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError) as error:
            hint = "variables are text: convert them where needed, like `{{ count | int }}`"
            self.failed = Problem(self.file, _template_line(error), f"Jinja2: {_first_line(error)}", hint)
        return ""

    def note_undefined(self, name: str, owner: Any) -> None:
        line = _line_being_rendered()
        if isinstance(owner, str):
            message = f"`{name}` is asked of a variable, but variables are plain text"
            hint = "give each value a variable of its own"
        else:
            message = f"the variable `{name}` is not defined"
            example = "v1" if name == "version" else "VALUE"
            default = f'{{{{ {name} | default("{example}") }}}}'
            hint = did_you_mean(name, self.variables)
            hint = hint or f"give it with `--var {name}={example}`, or a default in the file: `{default}`"
        self.undefined.setdefault(name, Problem(self.file, line, message, hint))


_ANSWERS: dict[str, Callable[[], Any]] = {
    **dict.fromkeys(("__bool__", "__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__", "__contains__"), bool),
    **dict.fromkeys(("__len__", "__int__", "__hash__"), int),
    "__float__": float,
    "__str__": str,
    "__iter__": lambda: iter(()),
}
_BINARY = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow")
_ITSELF = (
    *("__call__", "__getitem__", "__neg__", "__pos__"),
    *(f"__{side}{operator}__" for operator in _BINARY for side in ("", "r")),
)


def _syntax_problem(file: str, error: TemplateSyntaxError) -> Problem:
    if unclosed := _UNCLOSED.search(str(error)):
        hint = f"close it with `{{% end{unclosed[1]} %}}`"
        return Problem(file, error.lineno, f"Jinja2: `{{% {unclosed[1]} … %}}` is never closed", hint)
    hint = "Jinja2 writes values as `{{ … }}` and statements as `{% … %}`"
    return Problem(file, error.lineno, f"Jinja2: {_first_line(error)}", hint)


def _recording(rendering: _Rendering) -> type[Undefined]:
    """An undefined value that, once used, notes its name and lets the rendering go on with something harmless."""

    def noting(answer: Callable[[], Any] | None) -> Callable[..., Any]:
        def method(self: Any, *_: Any, **__: Any) -> Any:
            rendering.note_undefined(str(self._undefined_name), self._undefined_obj)
            return answer() if answer else self

        return method

    def attribute(self: Any, name: str) -> Any:
        if name.startswith("__"):  # Python's own questions, as by `copy`
            raise AttributeError(name)
        return noting(None)(self)

    methods = {name: noting(answer) for name, answer in _ANSWERS.items()}
    methods |= {name: noting(None) for name in _ITSELF} | {"__getattr__": attribute}
    return type("Recorded", (Undefined,), methods)


class _LineMarks(Extension):
    """Puts a mark with the template's line number at the start of every line of plain text."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        for token in stream:
            if token.type == "data":
                lines = token.value.split("\n")
                marked = "\n".join(_mark(token.lineno + index) + line for index, line in enumerate(lines))
                yield Token(token.lineno, token.type, marked)
            else:
                yield token


def _mark(line: int) -> str:
    return _OPEN + "".join(chr(ord(_ZERO) + int(digit)) for digit in str(line))


def _lines(text: str, marked: str) -> tuple[int, ...]:
    """Read the marks. A line without one continues what the last mark began, as a multi-line value does."""
    lines: list[int] = []
    current = 1
    for line in marked.split("\n"):
        before_text = _MARKS_AND_BLANKS.match(line)
        assert before_text
        lines.append(_last_mark(before_text[0], current))
        current = _last_mark(line, current)
    return _aligned(lines, text.split("\n"), _MARK.sub("", marked).split("\n"))


def _aligned(lines: list[int], wanted: list[str], found: list[str]) -> tuple[int, ...]:
    """The lines for `wanted`, where a filter that saw the marks (`trim`, `length`) made something else of the text."""
    if wanted == found:
        return tuple(lines)
    aligned = [lines[0]] * len(wanted)
    for found_at, wanted_at, size in SequenceMatcher(None, found, wanted, autojunk=False).get_matching_blocks():
        aligned[wanted_at:] = [*lines[found_at : found_at + size], *[lines[-1]] * (len(wanted) - wanted_at - size)]
    return tuple(aligned[: len(wanted)])


def _last_mark(text: str, otherwise: int) -> int:
    marks = _MARK.findall(text)
    return int("".join(str(ord(digit) - ord(_ZERO)) for digit in marks[-1])) if marks else otherwise


def _line_being_rendered() -> int:
    """The template's line for the innermost Jinja2 frame on the stack."""
    frame: FrameType | None = sys._getframe()
    while frame:
        if template := frame.f_globals.get("__jinja_template__"):
            return int(template.get_corresponding_lineno(frame.f_lineno))
        frame = frame.f_back
    return 1


def _template_line(error: Exception) -> int:
    """The line where the rendering failed: Jinja2 rewrites tracebacks so that they name it."""
    line = 1
    traceback = error.__traceback__
    while traceback:
        if traceback.tb_frame.f_code.co_filename == "<template>":
            line = traceback.tb_lineno
        traceback = traceback.tb_next
    return line


def _first_line(error: Exception) -> str:
    text = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    return text[:1].lower() + text[1:]
