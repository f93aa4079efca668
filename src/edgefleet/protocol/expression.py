"""Conditions of a telemetry policy: expressions in CEL, checked here and evaluated on devices.

Rules kept here:

- What is checked here is what a device evaluates: the same library, the same bounds.
- A condition that can't be evaluated, because a value is missing or of another type, doesn't hold.
  It raises nothing; it is counted, with what was wrong the first time.
- Work is bounded: `MAX_LENGTH` characters, `MAX_NESTING` brackets within each other, lists of
  `MAX_ITEMS`, `MAX_MACROS` macros that go over a list and none within another, no ``map``, no
  regular expressions. The worst that these let through (140 lists added up) took 16 ms where it was
  measured, others less than 1 ms.
- Only the library's extension is loaded: its package imports a command line (typer, rich, prompt
  toolkit) that takes ten times the time and memory.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import re
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MAX_LENGTH = 1024  # characters
MAX_NESTING = 24
MAX_ITEMS = 64  # of each list that a condition is given
MAX_MACROS = 4
MACROS = ("all", "exists", "exists_one", "filter")
FUNCTIONS = ("contains", "double", "endsWith", "has", "int", "size", "startsWith", "string")
_EXTENSION = "cel.cel"
_SYNTAX = re.compile(r"ERROR: <input>:(\d+):(\d+): ([^\n]*)")
_TOKEN = re.compile(
    r"""
    (?P<skipped>\s+|//[^\n]*)
    |(?P<text>
        (?:[rR][bB]?|[bB][rR])(?:\"\"\".*?\"\"\"|'''.*?'''|"[^"\n]*"|'[^'\n]*')
        |[bB]?(?:\"\"\"(?:\\.|[^\\])*?\"\"\"|'''(?:\\.|[^\\])*?'''
            |"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*')
    )
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<number>[0-9][0-9A-Za-z.]*)
    |(?P<mark>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Scope(NamedTuple):
    """What a condition may name.

    Attributes:
        about: what it is asked about, for people.
        examples: a value of the right type by name.
        named: those whose values have names of their own, such as ``values.temperature``.
    """

    about: str
    examples: Mapping[str, object]
    named: frozenset[str] = frozenset()


_ANSWER: dict[str, object] = {
    "model": "digits",
    "version": "3",
    "variant": "int8",
    "latency_us": 310.5,
    "score": 0.75,
    "top": 2,
    "scores": [0.75],
    "values": [0.125, 0.125, 0.75],
}
ANSWER = Scope("a prediction before it is kept", _ANSWER)
PREDICTION = Scope("a prediction", {**_ANSWER, "disagrees": False, "drifted": ["x"]})
READING = Scope(
    "a reading", {"stream": "reefer", "key": "a", "values": {}}, named=frozenset({"values"})
)
SPAN = Scope(
    "a span of time",
    {"count": 10, "key": "a", "mean": {}, "least": {}, "most": {}, "last": {}},
    named=frozenset({"mean", "least", "most", "last"}),
)


class _Token(NamedTuple):
    kind: str
    text: str
    start: int


class Condition:
    """One compiled condition; for one thread.

    Attributes:
        text: as it was written.
        names: the variables that it uses.
        failures: how often it couldn't be evaluated.
        failure: what was wrong the first time; empty before.
    """

    __slots__ = ("_program", "failure", "failures", "names", "text")

    def __init__(self, text: str, program: Any, names: tuple[str, ...]) -> None:  # noqa: ANN401
        self.text = text
        self.names = names
        self.failures = 0
        self.failure = ""
        self._program = program

    def holds(self, values: Mapping[str, object]) -> bool:
        """Whether it holds for these values; what is missing among them is a failure."""
        known = {name: values[name] for name in self.names if name in values}
        try:
            result = self._program.execute(known)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001 - the library's panics are no `Exception`
            self._fail(str(error) if not isinstance(error, KeyError) else f"there is no {error}")
            return False
        if isinstance(result, bool):
            return result
        self._fail(f"it gives {_kind_of(result)}, not true or false")
        return False

    def _fail(self, why: str) -> None:
        self.failures += 1
        self.failure = self.failure or why.partition("\n")[0][:200]


def compile_condition(text: str, scope: Scope) -> Condition:
    """A condition, ready to be evaluated.

    Raises:
        InvalidInputError: it is malformed, names what isn't there, gives no truth value or could
            cost too much; the message has line and column, and shows the place.
        MissingExtraError: the library isn't installed.
    """
    if len(text) > MAX_LENGTH:
        msg = f"the condition has {len(text)} characters, {MAX_LENGTH} are allowed"
        raise InvalidInputError(msg, cure="split it into several rules")
    tokens = tuple(_tokens(text))
    _check_nesting(text, tokens)
    library = extension()
    try:
        program = library.compile(text)
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # noqa: BLE001 - as above
        raise _malformed(text, str(error)) from None
    bound = _check_macros(text, tokens)
    references = program.references()
    for name in references["functions"]:
        if name.isidentifier() and name not in FUNCTIONS:
            allowed = ", ".join(sorted((*FUNCTIONS, *MACROS)))
            raise _refused(
                text, _place(tokens, name), f"there is no function {name!r}", f"use: {allowed}"
            )
    names = tuple(name for name in references["variables"] if name not in bound)
    for name in names:
        if name not in scope.examples:
            raise _refused(
                text,
                _place(tokens, name),
                f"there is no {name!r} in {scope.about}",
                f"name one of: {', '.join(scope.examples)}",
            )
    _try(text, program, scope, tokens)
    return Condition(text, program, names)


def extension() -> Any:  # noqa: ANN401 - the library's stubs name its package
    """The library's extension module, without the package around it.

    Raises:
        MissingExtraError: it isn't installed.
    """
    loaded = sys.modules.get(_EXTENSION)
    if loaded is not None:
        return loaded
    package = importlib.util.find_spec(_EXTENSION.partition(".")[0])
    if package is None or package.submodule_search_locations is None:
        raise MissingExtraError(
            "conditions of a telemetry policy need the library common-expression-language",
            cure="install it with: pip install 'edgefleet[rules]', on a device: "
            "pip install 'edgefleet-runtime[rules]'",
        )
    spec = importlib.machinery.PathFinder.find_spec(_EXTENSION, package.submodule_search_locations)
    if spec is None or spec.loader is None:
        return importlib.import_module(_EXTENSION.partition(".")[0])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return sys.modules.setdefault(_EXTENSION, module)


def _tokens(text: str) -> Iterator[_Token]:
    for match in _TOKEN.finditer(text):
        kind = match.lastgroup
        if kind is not None and kind != "skipped":
            yield _Token(kind, match[0], match.start())


def _check_nesting(text: str, tokens: tuple[_Token, ...]) -> None:
    depth = 0
    for token in tokens:
        depth += (token.text in {"(", "[", "{"}) - (token.text in {")", "]", "}"})
        if depth > MAX_NESTING:
            problem = f"brackets lie more than {MAX_NESTING} deep"
            raise _refused(text, token.start, problem, "split it into several rules")


def _check_macros(text: str, tokens: tuple[_Token, ...]) -> frozenset[str]:
    """The names that macros bind, once none lies in another and there are few of them."""
    bound: set[str] = set()
    open_macros: list[bool] = []
    macros = 0
    for index, token in enumerate(tokens):
        if token.text == "(":
            called = index > 1 and tokens[index - 2].text == "." and tokens[index - 1]
            name = called.text if called else ""
            macro = name in MACROS or name == "map"
            if macro and called:
                macros += 1
                if name == "map":
                    cure = f"go over a list with: {', '.join(MACROS)}"
                    raise _refused(text, called.start, "there is no 'map' here", cure)
                if any(open_macros) or macros > MAX_MACROS:
                    problem = f"{name!r} lies in another one, or is one of over {MAX_MACROS}"
                    raise _refused(text, called.start, problem, "split it into several rules")
                bound.add(tokens[index + 1].text)
            open_macros.append(macro)
        elif token.text == ")":
            open_macros.pop()
    return frozenset(bound)


def _try(text: str, program: Any, scope: Scope, tokens: tuple[_Token, ...]) -> None:  # noqa: ANN401
    """Evaluate it once with values of the right types, so that a wrong one shows before it ships.

    Raises:
        InvalidInputError: a type is wrong.
    """
    examples = {
        name: dict.fromkeys(_fields(tokens, name), 0.5) if name in scope.named else example
        for name, example in scope.examples.items()
    }
    try:
        result = program.execute(examples)
    except (KeyboardInterrupt, SystemExit):
        raise
    except (TypeError, RuntimeError) as error:  # RuntimeError: no such function for the type
        why = str(error).partition(".")[0].partition(":")[2].strip() or "the operation is undefined"
    except BaseException:  # noqa: BLE001 - an index, say, that only the example hasn't
        return
    else:
        if isinstance(result, bool):
            return
        why = f"it gives {_kind_of(result)}, not true or false"
    cure = "compare values of one type: score > 0.9 && top == 3; write 2.0 where numbers meet"
    raise _refused(text, 0, f"types don't fit: {why}", cure)


def _fields(tokens: tuple[_Token, ...], name: str) -> Iterator[str]:
    """The names that are looked up below a variable: ``values.NAME`` and ``values['NAME']``."""
    for first, mark, field in zip(tokens, tokens[1:], tokens[2:], strict=False):
        if first.text == name and mark.text == "." and field.kind == "name":
            yield field.text
        elif first.text == name and mark.text == "[" and field.kind == "text":
            yield field.text[1:-1]


def _place(tokens: tuple[_Token, ...], name: str) -> int:
    return next((t.start for t in tokens if t.kind == "name" and t.text == name), 0)


def _malformed(text: str, said: str) -> InvalidInputError:
    found = _SYNTAX.search(said)
    if found is None:
        return _refused(text, 0, "it can't be read", "write it in CEL, such as: score > 0.9")
    line, column = int(found[1]), int(found[2])
    start = sum(len(each) for each in text.splitlines(keepends=True)[: line - 1]) + column - 1
    why = found[3].partition(" expecting ")[0].replace("mismatched input '<EOF>'", "it ends here")
    return _refused(text, start, why, "write it in CEL, such as: score > 0.9 && top == 3")


def _refused(text: str, start: int, problem: str, cure: str) -> InvalidInputError:
    """An error that shows the place, as compilers do."""
    before = text[:start]
    line, column = before.count("\n") + 1, start - (before.rfind("\n") + 1) + 1
    shown = text.split("\n")[line - 1][:MAX_LENGTH]
    msg = f"{line}:{column}: {problem}\n  | {shown}\n  | {' ' * (column - 1)}^"
    return InvalidInputError(msg, cure=cure)


def _kind_of(value: object) -> str:
    kinds: dict[type, str] = {int: "a number", float: "a number", str: "a text", list: "a list"}
    return "nothing" if value is None else kinds.get(type(value), f"a {type(value).__name__}")
