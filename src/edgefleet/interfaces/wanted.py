"""The highest pointer of each group, for channels whose own documents know no compare-and-swap.

It is raised in the profile's state store first, which has one; whoever publishes repeats until the
channel carries it, so that racing operators end at the highest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConflictError
from edgefleet.interfaces.policy import RolloutPolicy
from edgefleet.protocol.documents import Document, decode, encode
from edgefleet.protocol.pointer import Pointer

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet.interfaces.state import StateStore


class Wanted(Document, frozen=True, kw_only=True):
    """The highest pointer of a group, in the state store.

    Attributes:
        pointer: itself.
        policy: that it goes by, as JSON; None for none.
    """

    pointer: Pointer
    policy: dict[str, Any] | None = None

    def going_by(self) -> RolloutPolicy | None:
        """The policy, read."""
        return None if self.policy is None else RolloutPolicy(**self.policy)


class WantedPointers:
    """The highest pointers of one deployer's groups.

    Args:
        state: gives the profile's state store.
        deployer: its name in the profile.
    """

    def __init__(self, state: Callable[[], StateStore], *, deployer: str) -> None:
        self._state = state
        self._deployer = deployer

    def raise_to(self, group: str, pointer: Pointer, policy: RolloutPolicy | None = None) -> Wanted:
        """Have a group's highest pointer be this one.

        Raises:
            ConflictError: there is a higher one.
        """
        facts = None if policy is None else policy.model_dump(mode="json", exclude_none=True)
        wanted = Wanted(pointer=pointer, policy=facts)

        def change(there: bytes | None) -> bytes:
            if there is not None:
                highest = decode(Wanted, there).pointer
                if highest.pair > pointer.pair:
                    raise ConflictError(
                        f"{group} was given pointer {highest.pair}, above {pointer.pair}",
                        cure="read the group again and repeat",
                        retryable=False,
                    )
            return encode(wanted)

        return decode(Wanted, self._state().update(self._key(group), change))

    def highest(self, group: str) -> Wanted:
        """A group's highest pointer.

        Raises:
            ConflictError: somebody deleted it.
        """
        found = self.find(group)
        if found is None:
            raise ConflictError(f"the pointer of {group} was deleted from the state store")
        return found

    def find(self, group: str) -> Wanted | None:
        """A group's highest pointer; None before the first."""
        stored = self._state().read(self._key(group))
        return None if stored is None else decode(Wanted, stored.data)

    def _key(self, group: str) -> str:
        return f"{self._deployer}/pointers/{group}"
