"""A backend over a network closes its clients and asks one table what errors mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import EdgeFleetError, ThrottledError
from edgefleet.interfaces.service import RemoteService
from edgefleet.interfaces.state import StateStore, Stored

if TYPE_CHECKING:
    from collections.abc import Iterator


class Clients:
    closed = 0

    def close(self) -> None:
        self.closed += 1


class AcmeService(RemoteService):
    provider = "acme"

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return ThrottledError("slowly") if isinstance(error, KeyError) else None


class AcmeStateStore(AcmeService, StateStore):
    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    def _read(self, key: str) -> Stored | None:
        raise KeyError(key)

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        raise ZeroDivisionError(key, data, expect)

    def _delete(self, key: str, expect: str) -> None: ...

    def _keys(self, prefix: str) -> Iterator[str]:
        yield prefix
        raise KeyError(prefix)


def test_clients_are_closed_with_it() -> None:
    clients = Clients()
    AcmeStateStore(clients).close()
    assert clients.closed == 1


def test_errors_of_its_table_are_ours_in_iterations_too_and_others_stay() -> None:
    state = AcmeStateStore(Clients())
    with pytest.raises(ThrottledError, match="slowly") as caught:
        state.read("doc")
    assert (caught.value.provider, caught.value.operation) == ("acme", "state.read")
    with pytest.raises(ThrottledError):
        list(state.keys("docs/"))
    with pytest.raises(ZeroDivisionError) as other:
        state.write("doc", b"", expect=None)
    assert other.value.__notes__ == ["in state.write of provider 'acme'"]


def test_none_is_made_without_a_table() -> None:
    class Tableless(RemoteService): ...

    with pytest.raises(TypeError, match="_translate"):
        Tableless()  # type: ignore[abstract]
