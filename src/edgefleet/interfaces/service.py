"""What every backend shares: a name, an error boundary, a way to close.

A backend raises whatever its vendor's library raises; the boundary around each public operation
turns that into our error tree, naming provider and operation. It encloses iteration too: an error
that escapes a generator halfway is mapped like one raised by the call.
"""

from __future__ import annotations

import errno
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar, final

from edgefleet.errors import (
    AccessDeniedError,
    EdgeFleetError,
    StorageFullError,
    UnavailableError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


class Service(ABC):
    """Base of every backend."""

    provider: str
    """Name of the plugin that offers this backend."""

    role: ClassVar[str]
    """``registry``, ``trainer``, ``deployer``, ``telemetry`` or ``state``."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.provider}>"

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        """Map a vendor's error to ours; None for one that this backend doesn't know.

        That goes on as it is, with a note of the operation and the provider.
        """
        return None

    def close(self) -> None:  # noqa: B027 - most backends hold nothing
        """Release connections and processes; may be called twice."""

    @contextmanager
    def _boundary(self, operation: str) -> Iterator[None]:
        """Turn what is raised inside into our errors, naming provider and operation."""
        where = f"{self.role}.{operation}"
        try:
            yield
        except EdgeFleetError as error:
            error.located(provider=self.provider, operation=where)
            raise
        except Exception as error:
            mapped = self._translate(error) or translate_os_error(error)
            if mapped is None:
                if not getattr(error, "__notes__", None):  # an inner boundary knew better
                    error.add_note(f"in {where} of provider {self.provider!r}")
                raise
            mapped.located(provider=self.provider, operation=where)
            raise mapped from error

    @final
    def _bounded(self, operation: str, items: Callable[[], Iterable[T]]) -> Iterator[T]:
        """Iterate inside the boundary."""
        with self._boundary(operation):
            yield from items()


class Closes(Protocol):
    """Something that holds connections: a vendor's client, a session, several of them."""

    def close(self) -> None:
        """Close them; may be called twice."""


class RemoteService(Service):
    """Base of a backend that speaks over a network, through clients that it owns.

    A provider derives one class, which its services inherit before the role's own: it names the
    provider and maps the vendor's errors by the provider's one table. The constructor of each
    service sets ``_clients``, which are closed with it::

        class AcmeService(RemoteService):
            provider = "acme"
            _clients: Clients

            def _translate(self, error: Exception) -> EdgeFleetError | None:
                return translate(error)


        class AcmeStateStore(AcmeService, StateStore): ...
    """

    _clients: Closes

    def close(self) -> None:
        self._clients.close()

    @abstractmethod
    def _translate(self, error: Exception) -> EdgeFleetError | None: ...


def translate_os_error(error: Exception) -> EdgeFleetError | None:
    """Map the operating system's errors that mean the same everywhere; None for the rest."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(
            f"no room left: {error}", cure="free space there and repeat the call"
        )
    if isinstance(error, PermissionError):
        return AccessDeniedError(str(error), cure="check who owns that place and its permissions")
    if isinstance(error, ConnectionError | TimeoutError):
        return UnavailableError(str(error) or type(error).__name__, cure="repeat the call later")
    return None
