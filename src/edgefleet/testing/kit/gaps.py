"""What a plugin can't do, declared beside its tests: each gap becomes a strict xfail.

Three words, each with a reason: `notimpl` (we could and haven't), `notyet` (somebody upstream must
first), `never` (the backend's nature forbids it). A gap that has been closed fails the run until
its line is removed, and a gap that names no test is an error, so the list never lies::

    class TestDeployer(DeployerConformance):
        gaps = {"test_a_foreign_document_is_left_alone": never("its folder is its own")}
"""

from __future__ import annotations

import functools
import types
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, NoReturn

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Gap(NamedTuple):
    """One thing that a plugin can't do."""

    kind: Literal["notimpl", "notyet", "never"]
    reason: str


def notimpl(reason: str) -> Gap:
    """We could, and haven't."""
    return Gap("notimpl", reason)


def notyet(reason: str) -> Gap:
    """Somebody upstream must first."""
    return Gap("notyet", reason)


def never(reason: str) -> Gap:
    """The backend's nature forbids it."""
    return Gap("never", reason)


class Conformance:
    """Base of every suite.

    Attributes:
        gaps: test name -> why this plugin doesn't pass it. Those of a mixin count as well.
    """

    gaps: ClassVar[Mapping[str, Gap]] = types.MappingProxyType({})

    def __init_subclass__(cls, **options: Any) -> None:  # noqa: ANN401 - whatever a metaclass takes
        super().__init_subclass__(**options)
        for name, gap in _new_gaps(cls).items():
            test = getattr(cls, name, None)
            if not name.startswith("test_") or test is None:
                msg = f"{cls.__qualname__}.gaps names {name!r}, and no test has that name"
                raise TypeError(msg)
            if not gap.reason:
                msg = f"{cls.__qualname__}.gaps gives no reason for {name!r}"
                raise TypeError(msg)
            mark = pytest.mark.xfail(strict=True, reason=f"{gap.kind}: {gap.reason}")
            setattr(cls, name, mark(_copied(test)))

    @classmethod
    def lacks(cls, fixture: str, what: str) -> NoReturn:
        """Fail because a plugin's suite gives no such fixture.

        Args:
            fixture: its name.
            what: what it should be, for the message.
        """
        pytest.fail(
            f"{cls.__name__} gives no fixture {fixture!r}: {what}. "
            "Override it, or declare the tests that need it in `gaps`.",
            pytrace=False,
        )


def _new_gaps(suite: type[Conformance]) -> dict[str, Gap]:
    """A suite's own gaps and those of its mixins, without what its bases declared already."""
    declared = {
        one for base in suite.__bases__ if issubclass(base, Conformance) for one in base.__mro__
    }
    found: dict[str, Gap] = {}
    for one in reversed(suite.__mro__):
        if one not in declared:
            found |= one.__dict__.get("gaps", {})
    return found


def _copied(test: Callable[..., None]) -> Callable[..., None]:
    """The test as a function of its own, so that a mark on it marks no other plugin's."""

    @functools.wraps(test)
    def copy(*args: Any, **fixtures: Any) -> None:  # noqa: ANN401
        test(*args, **fixtures)

    return copy
