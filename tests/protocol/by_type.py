"""A Hypothesis strategy for a struct, out of what its types and their bounds allow.

Written by hand, strategies fall behind: a field that came later is never drawn, and nothing says
so.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from hypothesis import strategies as st
from msgspec import inspect

from edgefleet.protocol.digest import PATTERN as DIGEST_PATTERN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from msgspec import Struct

T = TypeVar("T")
S = TypeVar("S", bound="Struct")

MOST = 2  # items of an array, and entries of an object
SAFE = 2**53  # integers that every reader of JSON takes exactly
HEADER = {"version", "requires"}  # of a document; tests of their own give it others

text = st.text(max_size=12)
numbers = st.floats(allow_nan=False, allow_infinity=False)
digests = st.binary(min_size=32, max_size=32).map(lambda raw: "sha256:" + raw.hex())
moments = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-SAFE, SAFE) | numbers | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


def several(some: st.SearchStrategy[T], most: int = MOST) -> st.SearchStrategy[tuple[T, ...]]:
    """As documents hold several of a kind: none, up to so many."""
    return st.lists(some, max_size=most).map(tuple)


def of(kind: type[S], **given: st.SearchStrategy[Any]) -> st.SearchStrategy[S]:
    """Values of a struct.

    Args:
        kind: the struct.
        given: strategies of fields whose types don't tell all that they may hold.
    """
    known = inspect.type_info(kind)
    assert isinstance(known, inspect.StructType)
    fields = {field.name: field.type for field in known.fields if field.name not in HEADER}
    assert not given.keys() - fields.keys()
    return st.builds(
        kind,
        **{name: given[name] if name in given else _of_type(each) for name, each in fields.items()},
    )


def _of_type(kind: inspect.Type) -> st.SearchStrategy[Any]:
    return _BY_TYPE[type(kind)](kind)


def _objects(kind: inspect.DictType) -> st.SearchStrategy[Any]:
    keys, values = _of_type(kind.key_type), _of_type(kind.value_type)
    return st.dictionaries(keys, values, max_size=MOST)


def _texts(kind: inspect.StrType) -> st.SearchStrategy[str]:
    if kind.pattern == DIGEST_PATTERN:
        return digests  # some hundred times as fast as by the pattern
    if kind.pattern is not None:
        most = kind.max_length or 512
        return st.from_regex(kind.pattern).filter(lambda text: len(text) <= most)
    return st.text(min_size=kind.min_length or 0, max_size=min(12, kind.max_length or 12))


def _integers(kind: inspect.IntType) -> st.SearchStrategy[int]:
    return st.integers(-SAFE if kind.ge is None else kind.ge, SAFE if kind.le is None else kind.le)


def _floats(kind: inspect.FloatType) -> st.SearchStrategy[float]:
    return st.floats(
        kind.ge if kind.gt is None else kind.gt,
        kind.le,
        exclude_min=kind.gt is not None,
        allow_nan=False,
        allow_infinity=False,
    )


_BY_TYPE: Mapping[type[inspect.Type], Callable[[Any], st.SearchStrategy[Any]]] = {
    inspect.Metadata: lambda kind: _of_type(kind.type),
    inspect.UnionType: lambda kind: st.one_of(*map(_of_type, kind.types)),
    inspect.StructType: lambda kind: of(kind.cls),
    inspect.VarTupleType: lambda kind: several(
        _of_type(kind.item_type), min(MOST, kind.max_length or MOST)
    ),
    inspect.DictType: _objects,
    inspect.LiteralType: lambda kind: st.sampled_from(kind.values),
    inspect.StrType: _texts,
    inspect.IntType: _integers,
    inspect.FloatType: _floats,
    inspect.BoolType: lambda _: st.booleans(),
    inspect.NoneType: lambda _: st.none(),
    inspect.DateTimeType: lambda _: moments,
    inspect.AnyType: lambda _: plain,
}
