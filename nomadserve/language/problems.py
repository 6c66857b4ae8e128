"""What is wrong in a service file, and how it is told."""

import difflib
from collections.abc import Iterable
from dataclasses import dataclass

from nomadserve.errors import WrongInput


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake, at the line of the file that the user wrote, with the way out."""

    file: str
    line: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        hint = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{self.file}:{self.line}: {self.message}{hint}"


class BadServiceFile(WrongInput):
    """A service file with mistakes; the message tells all of them, in the order of the file.

    Attributes:
        problems: every mistake found.
    """

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(problems, key=lambda problem: (problem.file, problem.line)))
        assert self.problems
        texts = [str(problem) for problem in self.problems]
        if len(texts) > 1:
            texts.insert(0, f"{len(texts)} problems in `{self.problems[0].file}`")
        super().__init__("\n".join(texts))


def closest(word: str, known: Iterable[str]) -> str:
    """The known word that a misspelt one most likely means, or an empty string."""
    return next(iter(difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)), "")


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """A hint that names the closest known word, or an empty string."""
    meant = closest(word, known)
    return f"did you mean `{meant}`?" if meant else ""
