"""What a state store must do besides where documents lie behind a network that loses answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConflictError
from edgefleet.testing.kit.state import StateStoreConformance

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.state import StateStore


class StateServiceConformance(StateStoreConformance):
    """Fixtures ``state``, as of `StateStoreConformance`; ``lose_answer`` and ``throttle``."""

    @pytest.fixture
    def lose_answer(self) -> Callable[[str], None]:
        """Has the service do the next ``replace`` or ``delete`` and its answer get lost."""
        return self.lacks(
            "lose_answer",
            "a callable, given 'replace' or 'delete': the service does the next of these, and the "
            "connection is cut before its answer",
        )

    @pytest.fixture
    def throttle(self) -> Callable[[str], None]:
        """Has the service refuse the next ``replace`` or ``delete`` once, for coming too soon."""
        return self.lacks(
            "throttle",
            "a callable, given 'replace' or 'delete': the service refuses the next of these once, "
            "as it does when too many calls come",
        )

    def test_a_write_whose_answer_was_lost_conflicts_not_with_itself(
        self, state: StateStore, lose_answer: Callable[[str], None]
    ) -> None:
        """If this fails, a write that is repeated finds the tag changed by its own first try: mark
        each write, and look whose mark is there.
        """
        old = state.write("doc", b"first", expect=None)
        lose_answer("replace")
        new = state.write("doc", b"second", expect=old)
        stored = state.read("doc")
        assert stored is not None
        assert (stored.data, stored.tag) == (b"second", new)

    def test_a_throttled_write_is_repeated(
        self, state: StateStore, throttle: Callable[[str], None]
    ) -> None:
        """If this fails, a moment of too many calls stops an operator's work."""
        tag = state.write("doc", b"first", expect=None)
        throttle("replace")
        state.write("doc", b"second", expect=tag)
        stored = state.read("doc")
        assert stored is not None
        assert stored.data == b"second"

    def test_a_deletion_whose_answer_was_lost_finds_itself_done(
        self, state: StateStore, lose_answer: Callable[[str], None]
    ) -> None:
        """If this fails, a deletion that is repeated takes its own first try for somebody else's:
        remember that it may have been done.
        """
        tag = state.write("doc", b"first", expect=None)
        lose_answer("delete")
        state.delete("doc", expect=tag)
        assert state.read("doc") is None

    def test_a_deletion_that_was_only_throttled_tells_what_is_gone(
        self, state: StateStore, throttle: Callable[[str], None]
    ) -> None:
        """If this fails, each deletion that was repeated counts as done, also one whose earlier
        tries were refused undone: a lost race goes unseen.
        """
        tag = state.write("doc", b"first", expect=None)
        state.delete("doc", expect=tag)
        throttle("delete")
        with pytest.raises(ConflictError):
            state.delete("doc", expect=tag)
