"""What the HCL parser stumbled over, in the words of someone who writes service files."""

import re
from collections.abc import Iterator

from lark.exceptions import UnexpectedInput, UnexpectedToken

_BARE_QUANTITY = re.compile(r"\s*(\w+)\s*=\s*((?:[<>=]+\s*)?\d[\d.]*\s*[A-Za-z%]\w*)\s*(?:#.*|//.*)?$")
_HEREDOC = re.compile(r"<<-?([A-Za-z][\w.-]*)\r?\n")


class SyntaxProblem(Exception):
    """HCL that can't be parsed.

    Attributes:
        line: in the rendered text, counted from 1.
        message: what is wrong.
        hint: the way out.
    """

    def __init__(self, line: int, message: str, hint: str) -> None:
        super().__init__(message)
        self.line, self.message, self.hint = line, message, hint


def explain(error: UnexpectedInput, text: str) -> SyntaxProblem:
    """Translate the parser's complaint about `text`."""
    line = error.line if error.line > 0 else text.count("\n") + 1
    if problem := unclosed_text(text) or unbalanced(text) or _bare_quantity(text, line):
        return problem
    rest = _rest_of_line(text, line, error.column)
    expected = error.accepts or set() if isinstance(error, UnexpectedToken) else set()
    return _by_what_follows(line, rest, before=_line(text, line)[: max(error.column - 1, 0)], expected=expected)


def _by_what_follows(line: int, rest: str, *, before: str, expected: set[str]) -> SyntaxProblem:
    """Name the mistake by the text at which the parser stopped, and the text before it on the line."""
    if before.rstrip().endswith("=") and not rest:
        return SyntaxProblem(line, "nothing follows the `=`", "write a value after it, on the same line")
    if rest.startswith("'"):
        return SyntaxProblem(line, "text stands in double quotes, not single ones", f'write `"{_quoted(rest)}"`')
    if rest.startswith(","):
        return SyntaxProblem(line, "no comma between keys", "put each key on a line of its own")
    if rest.startswith(":") and re.search(r"\w\s*$", before):
        return SyntaxProblem(line, "a key is followed by `=`, not `:`", f"write `{before.split()[-1]} = …`")
    found = f"`{rest.split()[0]}`" if rest.split() else "the end of the line"
    if "LBRACE" in expected and "EQ" not in expected:
        return SyntaxProblem(line, f"{found} is not expected here", "a block needs its `{` on the same line")
    return SyntaxProblem(
        line, f"{found} is not expected here", "keys look like `key = value`, blocks like `name { … }`"
    )


def _bare_quantity(text: str, until: int) -> SyntaxProblem | None:
    """A number with a unit and no quotes; the parser takes the unit for a key and stumbles a line later."""
    for line in range(max(until - 2, 1), until + 1):
        if match := _BARE_QUANTITY.match(_line(text, line)):
            hint = f'put it in quotes: `{match[1]} = "{match[2]}"`'
            return SyntaxProblem(line, f"`{match[2]}` is neither a number nor a text", hint)
    return None


def unclosed_text(text: str) -> SyntaxProblem | None:
    """The first line on which a quoted text begins and does not end."""
    for line, kind, _ in _marks(text):
        if kind == "unclosed":
            return SyntaxProblem(line, "a text begins on this line and has no closing quote", 'close it with `"`')
    return None


def unbalanced(text: str) -> SyntaxProblem | None:
    """The first bracket that closes nothing or the wrong thing, else one that is never closed."""
    pairs = {"}": "{", "]": "[", ")": "("}
    open_: list[tuple[int, str]] = []
    suspect: tuple[int, str] | None = None  # closed by a bracket that is indented otherwise: most likely not its own
    for line, mark in ((line, mark) for line, kind, mark in _marks(text) if kind == "bracket"):
        if mark not in pairs:
            open_.append((line, mark))
        elif not open_:
            return SyntaxProblem(line, f"this `{mark}` closes nothing", "take it out, or look for one too many above")
        elif open_[-1][1] != pairs[mark]:
            begun, wrong = open_[-1]
            return SyntaxProblem(
                line, f"`{mark}` comes before the `{wrong}` of line {begun} is closed", "close it first"
            )
        else:
            opening = open_.pop()
            if not suspect and _line(text, line).lstrip().startswith(mark) and _indents_differ(text, line, opening[0]):
                suspect = opening
    if not open_:
        return None
    line, mark = suspect or open_[-1]
    closing = next(close for close, opening_mark in pairs.items() if opening_mark == mark)
    return SyntaxProblem(line, f"the `{mark}` of this line is never closed", f"close it with `{closing}`")


def _indents_differ(text: str, *lines: int) -> bool:
    return len({len(line) - len(line.lstrip()) for line in (_line(text, number) for number in lines)}) > 1


def _marks(text: str) -> Iterator[tuple[int, str, str]]:
    """Brackets outside of texts and comments, and texts that don't end on their line: (line, kind, character)."""
    line, index = 1, 0
    while index < len(text):
        rest = text[index : index + 2]
        char = rest[0]
        end = index + 1
        if char == '"':
            end = _end_of_text(text, index)
            if end > len(text) or text[end - 1] != '"' or end - index < 2:
                yield line, "unclosed", char
        elif char == "#" or rest == "//":
            end = _find(text, "\n", index)
        elif rest == "/*":
            end = _find(text, "*/", index) + 2
        elif rest == "<<" and (heredoc := _HEREDOC.match(text, index)):
            closing = re.compile(rf"^\s*{re.escape(heredoc[1])}\s*$", re.MULTILINE).search(text, heredoc.end())
            end = closing.end() if closing else len(text)
        elif char in "{}[]()":
            yield line, "bracket", char
        line += text.count("\n", index, end)
        index = end


def _end_of_text(text: str, start: int) -> int:
    """The index after the closing quote, or that of the end of the line where there is none."""
    match = re.compile(r'"(?:[^"\\\n]|\\.)*"?').match(text, start)
    assert match
    return match.end()


def _find(text: str, what: str, start: int) -> int:
    found = text.find(what, start)
    return len(text) if found < 0 else found


def _line(text: str, line: int) -> str:
    return [*text.split("\n"), ""][line - 1]


def _rest_of_line(text: str, line: int, column: int) -> str:
    return _line(text, line)[max(column - 1, 0) :].strip()


def _quoted(rest: str) -> str:
    match = re.match(r"'([^']*)'?", rest)
    return match[1] if match else ""
