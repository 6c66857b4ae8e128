"""The second step of reading a service file: HCL text becomes blocks and attributes that know their lines.

Only literal values are read: text, numbers, true and false, lists and maps. Whatever HCL would have to evaluate
becomes an `Expression`, for the next step to refuse by name.
"""

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hcl2
from hcl2.utils import process_escape_sequences
from lark import Token, Tree
from lark.exceptions import UnexpectedInput

from nomadserve.language.syntax import SyntaxProblem, explain, unclosed_text


@dataclass(frozen=True, slots=True)
class Expression:
    """Something that HCL would evaluate.

    Attributes:
        text: as written.
        is_word: a bare word, most often a text without its quotes.
    """

    text: str
    is_word: bool = False


@dataclass(frozen=True, slots=True)
class Attribute:
    """`key = value`; a value is a str, int, float, bool, None, list, `Map` or `Expression`."""

    key: str
    value: Any
    line: int


@dataclass(frozen=True, slots=True)
class Map:
    """`{ key = value … }`, in the order written, duplicates included."""

    entries: tuple[Attribute, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """`kind "label" { … }`; the file itself is a block without a kind."""

    kind: str
    labels: tuple[str, ...]
    line: int
    attributes: list[Attribute] = field(default_factory=list)
    blocks: list["Block"] = field(default_factory=list)


def parse(text: str) -> Block:
    """Read HCL text; raises `SyntaxProblem` where it isn't HCL."""
    try:
        tree = hcl2.parses_to_tree(text)
    except UnexpectedInput as error:
        raise explain(error, text) from error
    if any("\n" in token for token in tree.scan_values(_is_text)) and (problem := unclosed_text(text)):
        raise problem
    return _filled(Block("", (), 1), _children(tree)[0])


def _is_text(token: Any) -> bool:
    return isinstance(token, Token) and token.type == "STRING_CHARS"


def _filled(block: Block, body: Tree[Token]) -> Block:
    for node in body.children:
        if not isinstance(node, Tree) or node.data not in ("attribute", "block"):
            continue
        if node.data == "attribute":
            block.attributes.append(_attribute(node))
        else:
            block.blocks.append(_block(node))
    _refuse_shared_lines(block)
    return block


def _refuse_shared_lines(block: Block) -> None:
    """HCL wants each key on a line of its own; the parser is laxer than Nomad's."""
    lines = [attribute.line for attribute in block.attributes] + [inner.line for inner in block.blocks]
    for line in sorted(lines):
        if lines.count(line) > 1:
            raise SyntaxProblem(line, "two keys share this line", "put each key on a line of its own")


def _block(node: Tree[Token]) -> Block:
    kind, *labels = [_label(child) for child in _children(node) if child.data not in ("body", "new_line_or_comment")]
    body = next(child for child in _children(node) if child.data == "body")
    return _filled(Block(kind, tuple(labels), node.meta.line), body)


def _attribute(node: Tree[Token]) -> Attribute:
    key, value = _children(node)[0], node.children[-1]
    return Attribute(_source(key), _value(value), node.meta.line)


def _label(node: Tree[Token]) -> str:
    value = _text(node) if node.data == "string" else _source(node)
    return value if isinstance(value, str) else value.text


def _value(node: Any) -> Any:
    """The value of an expression's tree."""
    if node.data == "expr_term" and len(node.children) == 1:
        return _value(node.children[0])
    match node.data:
        case "string":
            return _text(node)
        case "int_lit":
            return int(_source(node))
        case "float_lit":
            return float(_source(node))
        case "literal_value":
            return {"true": True, "false": False, "null": None}[_source(node)]
        case "unary_op":
            return _negative(node)
        case "tuple":
            return [_value(child) for child in _children(node) if child.data != "new_line_or_comment"]
        case "object":
            return Map(tuple(_entry(child) for child in _children(node) if child.data == "object_elem"))
        case "heredoc_template" | "heredoc_template_trim":
            return _heredoc(_source(node))
    return Expression(_source(node), is_word=node.data == "identifier")


def _negative(node: Tree[Token]) -> Any:
    value = _value(node.children[-1])
    if str(node.children[0]) == "-" and isinstance(value, int | float) and not isinstance(value, bool):
        return -value
    return Expression(_source(node))


def _entry(node: Tree[Token]) -> Attribute:
    key, value = _children(node)[0], node.children[-1]
    name = _value(key.children[0]) if isinstance(key.children[0], Tree) and key.children[0].data == "expr_term" else ""
    if isinstance(name, Expression):
        name = name.text
    return Attribute(str(name or _source(key)), _value(value), node.meta.line)


def _text(node: Tree[Token]) -> str | Expression:
    """A quoted text with its escapes resolved; an `Expression` where `${` or `%{` asks for evaluation."""
    parts = [part for child in _children(node) for part in child.children]
    if any(isinstance(part, Tree) for part in parts):
        return Expression(_source(node))
    texts = [str(part)[part.type.startswith("ESCAPED") :] for part in parts if isinstance(part, Token)]
    return "".join(process_escape_sequences(text) for text in texts)


def _heredoc(source: str) -> str | Expression:
    """The lines between the markers; `<<-` takes the common indentation away."""
    first, *lines = source.rstrip().split("\n")
    text = "\n".join(line.rstrip("\r") for line in lines[:-1])
    if "${" in text.replace("$${", "") or "%{" in text.replace("%%{", ""):
        return Expression(source)
    text = text.replace("$${", "${").replace("%%{", "%{")
    return textwrap.dedent(text) if first.startswith("<<-") else text


def _children(node: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in node.children if isinstance(child, Tree)]


def _source(node: Tree[Token] | Token) -> str:
    """The tokens below a node, as written but for blanks."""
    return "".join(_tokens(node)).strip()


def _tokens(node: Tree[Token] | Token) -> Iterator[str]:
    if isinstance(node, Token):
        yield str(node)
    else:
        for child in node.children:
            yield from _tokens(child)


__all__ = ["Attribute", "Block", "Expression", "Map", "SyntaxProblem", "parse"]
