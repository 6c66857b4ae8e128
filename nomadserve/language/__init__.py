"""The language of `service.hcl.j2`: Jinja2, then HCL, then typed and checked Structs; the one way in is `load_service`.

Each step tells all the mistakes it can see, at the lines of the file that the user wrote.
"""

from collections.abc import Mapping
from pathlib import Path

from nomadserve.errors import WrongInput
from nomadserve.language.decode import Decoded, decode
from nomadserve.language.hcl import SyntaxProblem, parse
from nomadserve.language.models import locate_models
from nomadserve.language.problems import BadServiceFile, Problem
from nomadserve.language.template import BadTemplate, Rendered, render_template
from nomadserve.language.variables import Variables, collect_variables
from nomadserve.spec import Service, Violation, violations

__all__ = ["BadServiceFile", "Problem", "Variables", "collect_variables", "load_service"]


def load_service(path: Path, variables: Mapping[str, str]) -> Service:
    """Read a service file; relative model paths are relative to it.

    Raises:
        BadServiceFile: the file has mistakes; all of them are in it.
        WrongInput: the file can't be read.
    """
    source = _read(path)
    must_use = variables.from_flags if isinstance(variables, Variables) else frozenset()
    try:
        rendered = render_template(source, variables, file=str(path), must_use=must_use)
    except BadTemplate as error:
        raise BadServiceFile(error.problems) from None
    try:
        decoded = decode(parse(rendered.text))
    except SyntaxProblem as error:
        line = rendered.template_line(error.line)
        raise BadServiceFile([Problem(str(path), line, error.message, error.hint)]) from None
    return _checked(decoded, rendered, path)


def _checked(decoded: Decoded, rendered: Rendered, path: Path) -> Service:
    """The service, when neither its values nor the rules between them are broken."""
    problems = [
        Problem(str(path), rendered.template_line(mistake.line), mistake.message, mistake.hint)
        for mistake in decoded.mistakes
    ]
    service = decoded.service
    if service:
        broken = violations(service)
        service, missing = locate_models(service, path.absolute().parent)
        problems += [
            Problem(
                str(path), rendered.template_line(decoded.line(violation.paths[0])), violation.message, violation.hint
            )
            for violation in _original([*broken, *missing], decoded)
        ]
    if problems or service is None:
        raise BadServiceFile(problems)
    return service


def _original(found: list[Violation], decoded: Decoded) -> list[Violation]:
    """Without those that only follow from a value that was refused already, and one for each key."""
    first = {violation.paths[0]: violation for violation in reversed(found)}
    return [violation for violation in first.values() if not any(map(decoded.is_broken, violation.paths))]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise WrongInput(f"`{path}` is not a text in UTF-8", hint="give a service file: `service.hcl.j2`") from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise WrongInput(f"can't read `{path}`: {reason}", hint="give the path of a service file") from None
