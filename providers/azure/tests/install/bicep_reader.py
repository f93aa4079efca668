"""Reads Bicep as far as ours goes, without looking at how it was written.

It knows parameters, resources with conditions, parents and scopes, objects, lists, strings with
values in them, and calls. Anything else is an error, so that nothing of a file goes unread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

_TOKEN = re.compile(
    r"\s*(?:(?P<string>'(?:[^'\\$]|\\.|\$(?!\{)|\$\{[^}]*\})*')|(?P<number>\d+)"
    r"|(?P<word>@?[A-Za-z_]\w*)|(?P<sign>[{}()\[\]:=,.]))"
)
_PART = re.compile(r"\\(.)|\$\{([^}]*)\}|([^\\$]+|\$)")
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t"}


class BicepResource(NamedTuple):
    """One resource of a file.

    Attributes:
        made: whether its condition lets it be.
        names: symbols by what refers to others: ``parent``, ``scope``, ``dependsOn``.
    """

    symbol: str
    type: str
    version: str
    existing: bool
    made: bool
    names: dict[str, Any]
    content: dict[str, Any]


class BicepFile:
    """A file, read with values for its parameters.

    Args:
        text: of the file.
        given: values of parameters.
        functions: what calls answer.
    """

    def __init__(self, text: str, given: Mapping[str, Any], functions: Mapping[str, Any]) -> None:
        self._tokens = list(_tokens(text))
        self._at = 0
        self._functions = functions
        self.parameters: dict[str, str] = {}
        self.values: dict[str, Any] = {}
        self.resources: list[BicepResource] = []
        symbols = {
            after
            for (_, before), (_, after) in zip(self._tokens, self._tokens[1:], strict=False)
            if before == "resource"
        }
        self._symbols = symbols
        while self._at < len(self._tokens):
            word = self._take()
            if word == "@description":
                self._expect("(")
                self._value()
                self._expect(")")
            elif word == "param":
                self._parameter(given)
            elif word == "resource":
                self._resource()
            else:
                raise ValueError(f"can't read {word!r}")

    def _parameter(self, given: Mapping[str, Any]) -> None:
        name, kind = self._take(), self._take()
        self.parameters[name] = kind
        if self._next() == "=":
            self._take()
            self.values[name] = self._value()
        if name in given:
            self.values[name] = given[name]

    def _resource(self) -> None:
        symbol = self._take()
        type_, _, version = str(self._value()).partition("@")
        existing = self._next() == "existing"
        if existing:
            self._take()
        self._expect("=")
        made = True
        if self._next() == "if":
            self._take()
            self._expect("(")
            made = bool(self._value())
            self._expect(")")
        names: dict[str, Any] = {}
        content: dict[str, Any] = {}
        for key, value in self._value().items():
            (names if key in {"parent", "scope", "dependsOn"} else content)[key] = value
        found = BicepResource(symbol, type_, version, existing, made, names, content)
        self.resources.append(found)

    def name(self, one: BicepResource) -> str:
        """The whole name of a resource."""
        own = str(one.content["name"])
        if "parent" not in one.names:
            return own
        return f"{self.name(self.find(one.names['parent']))}/{own}"

    def find(self, symbol: str) -> BicepResource:
        return next(one for one in self.resources if one.symbol == symbol)

    def _value(self) -> Any:  # noqa: C901, PLR0911 - a case each kind
        kind, found = self._tokens[self._at]
        self._at += 1
        if kind == "string":
            return self._text(found[1:-1])
        if kind == "number":
            return int(found)
        if found == "{":
            return dict(self._members())
        if found == "[":
            return list(self._items())
        if kind != "word":
            raise ValueError(f"can't read a value at {found!r}")
        if found in {"true", "false", "null"}:
            return {"true": True, "false": False, "null": None}[found]
        if self._next() != "(":
            return found if found in self._symbols else self.values[found]
        self._take()
        arguments = []
        while self._next() != ")":
            arguments.append(self._value())
            if self._next() == ",":
                self._take()
        self._expect(")")
        answer = self._functions[found](*arguments)
        while self._next() == ".":
            self._take()
            answer = answer[self._take()]
        return answer

    def _members(self) -> Iterator[tuple[str, Any]]:
        while self._next() != "}":
            kind, key = self._tokens[self._at]
            self._at += 1
            self._expect(":")
            yield (self._text(key[1:-1]) if kind == "string" else key), self._value()
        self._expect("}")

    def _items(self) -> Iterator[Any]:
        while self._next() != "]":
            yield self._value()
        self._expect("]")

    def _text(self, raw: str) -> str:
        found = ""
        for escaped, inner, plain in _PART.findall(raw):
            if inner:
                nested = object.__new__(BicepFile)
                nested._tokens, nested._at = list(_tokens(inner)), 0
                nested._functions, nested.values = self._functions, self.values
                nested._symbols = self._symbols
                found += str(nested._value())
            else:
                found += _ESCAPES.get(escaped, escaped) if escaped else plain
        return found

    def _next(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def _take(self) -> str:
        self._at += 1
        return self._tokens[self._at - 1][1]

    def _expect(self, sign: str) -> None:
        found = self._take()
        if found != sign:
            raise ValueError(f"{sign!r} expected, not {found!r}")


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    at = 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            raise ValueError(f"can't read {text[at : at + 40]!r}")
        at = found.end()
        yield str(found.lastgroup), found[str(found.lastgroup)]
