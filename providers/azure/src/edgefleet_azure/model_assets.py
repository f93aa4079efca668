"""Where versions are shown as model assets of Azure ML: what a place must do, and the workspace.

`shared_registry` has the other place. Versions of a model are whole numbers in either, and where an
asset's bytes lie never changes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.errors import ConflictError
from edgefleet.protocol.digest import blob_path
from edgefleet_azure.errors import status_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_azure.workspace import Workspace

FIXED = "Asset paths cannot be updated"
"""What Azure ML says where an asset's bytes would move."""


class NumberTakenError(ConflictError):
    """A model has a version of this number already, whose bytes are others."""


class ModelAssets(Protocol):
    """A place that shows versions."""

    @property
    def marks(self) -> Mapping[str, str]:
        """Properties that mark an asset there as this fleet's; empty where its name does."""

    def versions(self, model: str) -> Iterator[dict[str, Any]]:
        """Versions of a model that aren't archived; none where there is no such model."""

    def read(self, model: str, number: int) -> dict[str, Any] | None:
        """A version, archived or not; None where there is none."""

    def address(self, model: str, number: int, digest: str) -> str:
        """Where an asset that is yet to be made finds its bytes; they are there afterwards.

        Raises:
            NumberTakenError: the number is another asset's.
        """

    def write(self, model: str, number: int, properties: dict[str, Any]) -> None:
        """Make an asset, or change it.

        Raises:
            NumberTakenError: the number is another asset's.
        """


class WorkspaceAssets:
    """Model assets of the profile's workspace, which point to the fleet's own blobs.

    Args:
        workspace: of the profile.
    """

    marks: Mapping[str, str] = {}

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def versions(self, model: str) -> Iterator[dict[str, Any]]:
        try:
            yield from self._workspace.all(f"models/{model}/versions")
        except Exception as error:
            if status_of(error) != 404:
                raise

    def read(self, model: str, number: int) -> dict[str, Any] | None:
        return self._workspace.read(f"models/{model}/versions/{number}")

    def address(self, model: str, number: int, digest: str) -> str:
        return self._workspace.address("models", blob_path(digest))

    def write(self, model: str, number: int, properties: dict[str, Any]) -> None:
        try:
            self._workspace.write(f"models/{model}/versions/{number}", properties)
        except Exception as error:
            if status_of(error) in {400, 409} and FIXED in str(error):
                raise taken(model, number) from error
            raise


def taken(model: str, number: int) -> NumberTakenError:
    """The error for a number that is another asset's."""
    return NumberTakenError(
        f"version {number} of the Azure ML model {model} is somebody else's",
        cure="push the version again",
    )
