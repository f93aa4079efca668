"""Gaps: declared beside a plugin, strict, and never about nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import pytest

from edgefleet.testing.kit.gaps import Conformance, Gap, never, notimpl, notyet

if TYPE_CHECKING:
    from collections.abc import Mapping


class Suite(Conformance):
    """Two claims."""

    @pytest.fixture
    def answer(self) -> int:
        return self.lacks("answer", "the answer to everything")

    def test_the_answer_is_42(self, answer: int) -> None:
        assert answer == 42

    @pytest.mark.parametrize("divisor", [2, 3, 7])
    def test_it_is_divisible(self, answer: int, divisor: int) -> None:
        assert answer % divisor == 0


class TestPluginWithoutGaps(Suite):
    @pytest.fixture
    def answer(self) -> int:
        return 42


class TestPluginWithGaps(Suite):
    gaps: ClassVar[Mapping[str, Gap]] = {
        "test_the_answer_is_42": notimpl("we count to ten"),
        "test_it_is_divisible": never("ours is one"),
    }

    @pytest.fixture
    def answer(self) -> int:
        return 1


class TestPluginThatLacksAFixture(Suite):
    gaps: ClassVar[Mapping[str, Gap]] = {
        "test_the_answer_is_42": notyet("nobody has asked"),
        "test_it_is_divisible": notyet("nobody has asked"),
    }


def marks(test: object) -> list[pytest.Mark]:
    return [mark for mark in getattr(test, "pytestmark", []) if mark.name == "xfail"]


def test_a_gap_is_a_strict_xfail_with_word_and_reason() -> None:
    (mark,) = marks(TestPluginWithGaps.test_the_answer_is_42)
    assert mark.kwargs == {"strict": True, "reason": "notimpl: we count to ten"}


def test_a_gap_marks_no_other_plugin() -> None:
    assert marks(Suite.test_the_answer_is_42) == []
    assert marks(TestPluginWithoutGaps.test_it_is_divisible) == []


@pytest.mark.parametrize("name", ["test_nothing_of_the_kind", "answer", "gaps"])
def test_a_gap_that_names_no_test_is_an_error(name: str) -> None:
    with pytest.raises(TypeError, match=f"names '{name}', and no test has that name"):
        type("Plugin", (Suite,), {"gaps": {name: notimpl("a typing error")}})


def test_a_gap_needs_a_reason() -> None:
    with pytest.raises(TypeError, match="gives no reason"):
        type("Plugin", (Suite,), {"gaps": {"test_the_answer_is_42": never("")}})


def test_a_missing_fixture_is_named_with_what_it_should_be() -> None:
    with pytest.raises(pytest.fail.Exception, match="Suite gives no fixture 'answer': the answer"):
        Suite.lacks("answer", "the answer to everything")


class Shared:
    """What two suites of one plugin share."""

    gaps: ClassVar[Mapping[str, Gap]] = {"test_the_answer_is_42": never("it counts otherwise")}


def reasons(suite: type[Conformance]) -> list[str]:
    tests = (suite.__dict__[name] for name in sorted(suite.__dict__) if name.startswith("test_"))
    return [mark.kwargs["reason"] for test in tests for mark in marks(test)]


def test_gaps_of_a_mixin_count_and_join_the_suites_own() -> None:
    bare: type[Conformance] = type("Bare", (Shared, Suite), {})
    own = {"test_it_is_divisible": notyet("no parity")}
    both: type[Conformance] = type("Both", (Shared, Suite), {"gaps": own})
    assert reasons(bare) == ["never: it counts otherwise"]
    assert reasons(both) == ["notyet: no parity", "never: it counts otherwise"]
    assert reasons(type("Heir", (both,), {})) == []  # it has those of its base as they are


def test_a_mixins_gap_that_names_no_test_is_an_error_too() -> None:
    mixin = type("Mixin", (), {"gaps": {"test_nothing_of_the_kind": notimpl("a typing error")}})
    with pytest.raises(TypeError, match="no test has that name"):
        type("Plugin", (mixin, Suite), {})
