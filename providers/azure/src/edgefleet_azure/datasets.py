"""Training data in Blob storage: sent once, found again by the digest of what they hold.

Files lie in the container ``PREFIX-training`` below ``data/<digest>/``, where the digest is over
names and contents. A folder that was sent before is not sent again; an interrupted one goes on file
by file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.interfaces.training_data import Channel, find_data
from edgefleet_azure.errors import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.workspace import Workspace

CONTAINER = "training"
_ADDRESSES = ("azureml://", "https://", "wasbs://", "abfss://")  # that Azure ML mounts


def bring(data: Path | str, clients: Clients, workspace: Workspace) -> Channel:
    """Bring a job's data to Blob storage, unless they are there.

    Raises:
        InvalidInputError: there are none.
        LimitExceededError: they are too many files.
    """
    if isinstance(data, str) and data.startswith(_ADDRESSES):
        return Channel(data, ".", None)
    found = find_data(data, takes="an azureml:// or https:// address of Azure's storage")
    prefix = f"data/{found.digest}/"
    make_container(clients)
    container = clients.container(CONTAINER)
    there = {item.name: item.size for item in container.list_blobs(name_starts_with=prefix)}

    def send(key: str, file: Path) -> None:
        with file.open("rb") as content:
            container.upload_blob(key, content, overwrite=True)

    found.send_missing(prefix, there, send)
    return Channel(workspace.address(CONTAINER, prefix), found.inside, found.digest)


def make_container(clients: Clients) -> None:
    """Have the container for training there; no error when it is."""
    try:
        clients.container(CONTAINER).create_container()
    except Exception as error:
        if code_of(error) != "ContainerAlreadyExists":
            raise
