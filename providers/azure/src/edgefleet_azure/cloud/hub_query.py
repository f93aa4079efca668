"""IoT Hub's query language: what a query selects, and whether a condition holds for a twin. Pure.

Rules kept here, each in ``mock_rules.md``:

- What is not there is undefined; a comparison with it is undefined too, and no twin is selected
  by that, not even by ``!=`` or ``NOT``.
- Only values of one kind compare; names are case-sensitive, words of the language are not.
- There is no ORDER BY, no JOIN and no sub-query; ``COUNT()`` and its like need no GROUP BY.
"""

from __future__ import annotations

import operator
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import pyparsing as pp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    Evaluate = Callable[[Mapping[str, Any]], Any]

SOURCES = ("devices", "devices.modules", "devices.jobs")


class QueryError(ValueError):
    """IoT Hub can't read that."""


class _Undefined:
    """What a place that isn't there holds."""

    def __bool__(self) -> bool:
        return False


UNDEFINED = _Undefined()
_WORDS = (
    "and", "or", "not", "in", "select", "from", "where", "group", "by", "top", "as", "true",
    "false", "null",
)  # fmt: skip


class Counted(dict[str, Any]):
    """A twin's document that stands for so many devices alike."""

    def __init__(self, document: Mapping[str, Any], count: int = 1) -> None:
        super().__init__(document)
        self.count = count


class Path(NamedTuple):
    """A place in a document."""

    keys: tuple[str, ...]

    def __call__(self, document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - JSON
        found: Any = document
        for key in self.keys:
            found = found.get(key, UNDEFINED) if isinstance(found, dict) else UNDEFINED
        return found


class Column(NamedTuple):
    """One of what is selected: a place, or a count, sum or the like over it.

    Attributes:
        path: None for ``COUNT()``.
        function: lower case; empty for the place itself.
        name: that it has in the result; None for the last key of its place.
    """

    path: Path | None
    function: str
    name: str | None


class Query(NamedTuple):
    """A query, parsed.

    Attributes:
        columns: None for ``*``.
        source: one of `SOURCES`.
        where: whether a document is selected.
        group: by this place.
        top: at most so many rows.
    """

    columns: tuple[Column, ...] | None
    source: str
    where: Evaluate
    group: tuple[Path, ...]
    top: int | None

    @property
    def whole(self) -> bool:
        """Whether rows are twins and not parts of them."""
        return self.columns is None

    def over(self, documents: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """The rows of the documents that are selected, in their order."""
        chosen = [document for document in documents if self.where(document) is True]
        if self.columns is None:
            rows = [dict(document) for document in chosen]
        elif self.group or any(column.function for column in self.columns):
            rows = self._grouped(chosen)
        else:
            rows = [self._row(document) for document in chosen]
        return rows if self.top is None else rows[: self.top]

    def _row(self, document: Mapping[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {}
        for column in self.columns or ():
            value = UNDEFINED if column.path is None else column.path(document)
            if value is not UNDEFINED:
                row[_name(column)] = value
        return row

    def _grouped(self, chosen: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
        groups: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
        for document in chosen:
            groups.setdefault(tuple(path(document) for path in self.group), []).append(document)
        if not self.group and not groups:
            groups[()] = []  # a count of nothing is 0
        rows = []
        for members in groups.values():
            row = self._row(members[0]) if members else {}
            for column in self.columns or ():
                if column.function:
                    value = _aggregate(column, members)
                    if value is not UNDEFINED:
                        row[_name(column)] = value
            rows.append(row)
        return rows


def _name(column: Column) -> str:
    if column.name is not None:
        return column.name
    return column.function if column.path is None else column.path.keys[-1]


def _aggregate(column: Column, members: list[Mapping[str, Any]]) -> Any:  # noqa: ANN401 - JSON
    if column.function == "count":
        path = column.path
        counted = [one for one in members if path is None or path(one) is not UNDEFINED]
        return sum(getattr(one, "count", 1) for one in counted)
    path = column.path
    values = [] if path is None else [path(member) for member in members]
    numbers = [value for value in values if _is_number(value)]
    if not numbers:
        return UNDEFINED
    whole = sum(numbers)
    return {"sum": whole, "avg": whole / len(numbers), "min": min(numbers), "max": max(numbers)}[
        column.function
    ]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


# Values of expressions; each is a function of the document.

_COMPARE = {
    "=": operator.eq, "!=": operator.ne, "<>": operator.ne, "<": operator.lt, ">": operator.gt,
    "<=": operator.le, ">=": operator.ge,
}  # fmt: skip
_TEXT: dict[str, Callable[[str, str], bool]] = {
    "startswith": str.startswith,
    "endswith": str.endswith,
    "contains": operator.contains,
}
_KINDS: dict[str, Callable[[Any], bool]] = {
    "is_defined": lambda value: value is not UNDEFINED,
    "is_null": lambda value: value is None,
    "is_bool": lambda value: isinstance(value, bool),
    "is_number": _is_number,
    "is_string": lambda value: isinstance(value, str),
    "is_object": lambda value: isinstance(value, dict),
    "is_array": lambda value: isinstance(value, list),
    "is_primitive": lambda value: value is not UNDEFINED and not isinstance(value, (dict, list)),
}


def _kind(value: object) -> str:
    if _is_number(value):
        return "number"
    return type(value).__name__


def _compared(left: Any, word: str, right: Any) -> Any:  # noqa: ANN401 - JSON
    if left is UNDEFINED or right is UNDEFINED:
        return UNDEFINED
    if _kind(left) != _kind(right):
        return False if word == "=" else UNDEFINED
    if isinstance(left, (dict, list)):
        return UNDEFINED
    if (left is None or isinstance(left, bool)) and word not in {"=", "!=", "<>"}:
        return UNDEFINED
    return _COMPARE[word](left, right)


class _Compared(NamedTuple):
    """What follows a value that is compared."""

    word: str
    right: Evaluate


class _In(NamedTuple):
    """What follows a value that is looked for in a list."""

    negated: bool
    values: tuple[Evaluate, ...]


def _predicate(tokens: pp.ParseResults) -> Evaluate:
    left: Evaluate = tokens[0]
    rest = tokens[1] if len(tokens) > 1 else None
    if rest is None:
        return left
    if isinstance(rest, _Compared):
        return lambda document: _compared(left(document), rest.word, rest.right(document))

    def evaluate(document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - true, false or undefined
        value = left(document)
        if value is UNDEFINED:
            return UNDEFINED
        found = any(_compared(value, "=", one(document)) is True for one in rest.values)
        return found is not rest.negated

    return evaluate


def _call(tokens: pp.ParseResults) -> Evaluate:
    name, arguments = tokens[0].lower(), tuple(tokens[1:])
    if name in _KINDS and len(arguments) == 1:
        return lambda document: _KINDS[name](arguments[0](document))
    if name in _TEXT and len(arguments) == 2:

        def evaluate(document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - true, false or undefined
            text, part = (argument(document) for argument in arguments)
            both = isinstance(text, str) and isinstance(part, str)
            return _TEXT[name](text, part) if both else UNDEFINED

        return evaluate
    raise QueryError(f"there is no function {name} with {len(arguments)} arguments")


def _not(tokens: pp.ParseResults) -> Evaluate:
    inner: Evaluate = tokens[0]

    def evaluate(document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - true, false or undefined
        value = inner(document)
        return not value if isinstance(value, bool) else UNDEFINED

    return evaluate


def _all(tokens: pp.ParseResults) -> Evaluate:
    parts: tuple[Evaluate, ...] = tuple(tokens)
    if len(parts) == 1:
        return parts[0]

    def evaluate(document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - true, false or undefined
        values = [part(document) for part in parts]
        if any(value is False for value in values):
            return False
        return True if all(value is True for value in values) else UNDEFINED

    return evaluate


def _any(tokens: pp.ParseResults) -> Evaluate:
    parts: tuple[Evaluate, ...] = tuple(tokens)
    if len(parts) == 1:
        return parts[0]

    def evaluate(document: Mapping[str, Any]) -> Any:  # noqa: ANN401 - true, false or undefined
        values = [part(document) for part in parts]
        if any(value is True for value in values):
            return True
        return False if all(value is False for value in values) else UNDEFINED

    return evaluate


def _constant(value: Any) -> Evaluate:  # noqa: ANN401 - JSON
    return lambda _document: value


@cache
def _grammars() -> tuple[pp.ParserElement, pp.ParserElement]:
    """Grammars of a query and of a condition."""
    word = pp.CaselessKeyword
    taken = pp.MatchFirst(
        word(name)
        for name in [
            "and",
            "or",
            "not",
            "in",
            "select",
            "from",
            "where",
            "group",
            "by",
            "top",
            "as",
            "true",
            "false",
            "null",
        ]
    )
    key = pp.Regex(r"\[\[[^\]]+\]\]").set_parse_action(lambda found: found[0][2:-2]) | pp.Regex(
        r"[$A-Za-z_][\w$-]*"
    )
    path = (~taken + pp.DelimitedList(key, delim=".", combine=False)).set_parse_action(
        lambda found: Path(tuple(found))
    )
    text = (pp.QuotedString("'", esc_quote="''") | pp.QuotedString('"')).set_parse_action(
        lambda found: _constant(found[0])
    )
    number = pp.common.number().set_parse_action(lambda found: _constant(found[0]))
    fixed = (
        word("true").set_parse_action(lambda: _constant(True))
        | word("false").set_parse_action(lambda: _constant(False))
        | word("null").set_parse_action(lambda: _constant(None))
    )
    value = pp.Forward()
    arguments = pp.Suppress("(") + pp.Optional(pp.DelimitedList(value)) + pp.Suppress(")")
    call = (pp.Regex(r"[A-Za-z_]+(?=\s*\()") + arguments).set_parse_action(_call)
    value <<= fixed | text | number | (~taken + call) | path
    compared = (pp.one_of("= != <> <= >= < >") + value).set_parse_action(
        lambda found: _Compared(found[0], found[1])
    )
    values = pp.Suppress("[") + pp.DelimitedList(value) + pp.Suppress("]")
    contained = (pp.Optional(word("not")) + pp.Suppress(word("in")) + values).set_parse_action(
        lambda found: _In(found[0] == "not", tuple(found[found[0] == "not" :]))
    )
    # A rule a level, and no look back: infix_notation tries each of them again for each bracket.
    condition = pp.Forward()
    bracketed = pp.Suppress("(") + condition + pp.Suppress(")")
    predicate = (value + pp.Optional(compared | contained)).set_parse_action(_predicate)
    term = pp.Forward()
    term <<= (pp.Suppress(word("not")) + term).set_parse_action(_not) | bracketed | predicate
    both = pp.DelimitedList(term, delim=word("and")).set_parse_action(_all)
    condition <<= pp.DelimitedList(both, delim=word("or")).set_parse_action(_any)
    name = pp.Suppress(word("as")) + pp.Regex(r"[A-Za-z_]\w*")
    function = pp.one_of("count sum avg min max", caseless=True, as_keyword=True)
    aggregate = function + pp.Suppress("(") + pp.Optional(path) + pp.Suppress(")")
    column = ((aggregate | path) + pp.Optional(name)("name")).set_parse_action(_column)
    columns = pp.Literal("*") | pp.DelimitedList(column)
    query = (
        pp.Suppress(word("select"))
        + pp.Optional(pp.Suppress(word("top")) + pp.common.integer)("top")
        + columns("columns")
        + pp.Suppress(word("from"))
        + pp.Regex(r"[A-Za-z.]+")("source")
        + pp.Optional(pp.Suppress(word("where")) + condition)("where")
        + pp.Optional(pp.Suppress(word("group") + word("by")) + pp.DelimitedList(path))("group")
    )
    return query, condition


def _column(tokens: pp.ParseResults) -> Column:
    found = list(tokens)
    name = found.pop() if "name" in tokens else None
    function = found.pop(0).lower() if isinstance(found[0], str) else ""
    path = found[0] if found else None
    if path is None and function != "count":
        raise QueryError(f"{function}() needs a place")
    return Column(path, function, name)


@lru_cache(256)
def parse_query(text: str) -> Query:
    """A query.

    Raises:
        QueryError: it is none.
    """
    found = _parsed(_grammars()[0], text)
    source = found["source"].lower()
    if source not in SOURCES:
        raise QueryError(f"there is no {found['source']!r} to select from")
    columns = list(found["columns"])
    return Query(
        columns=None if columns == ["*"] else tuple(columns),
        source=source,
        where=found["where"][0] if "where" in found else _constant(True),
        group=tuple(found["group"]) if "group" in found else (),
        top=found["top"][0] if "top" in found else None,
    )


@lru_cache(256)
def parse_condition(text: str) -> Callable[[Mapping[str, Any]], bool]:
    """The target condition of a configuration: ``*`` for every device, empty for none.

    Raises:
        QueryError: it is none.
    """
    if not text.strip():
        return lambda _twin: False
    if text.strip() == "*":
        return lambda _twin: True
    (evaluate,) = _parsed(_grammars()[1], text)
    return lambda twin: evaluate(twin) is True


def _parsed(grammar: pp.ParserElement, text: str) -> pp.ParseResults:
    try:
        return grammar.parse_string(text, parse_all=True)
    except pp.ParseBaseException as error:
        raise QueryError(f"at column {error.column}: {error.msg}") from error
    except RecursionError as error:
        raise QueryError("it is nested too deep") from error
