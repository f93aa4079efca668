"""Training data in Blob storage: sent once, found again by the digest of what they hold.

Files lie in the container ``PREFIX-training`` below ``data/<digest>/``, where the digest is over
names and contents. A folder that was sent before is not sent again; an interrupted one goes on file
by file.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.interfaces.training_data import find_data
from edgefleet_azure.errors import code_of

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_azure.clients import Clients
    from edgefleet_azure.workspace import Workspace

CONTAINER = "training"
SENDERS = 8  # files under way at once
_ADDRESSES = ("azureml://", "https://", "wasbs://", "abfss://")  # that Azure ML mounts


class Channel(NamedTuple):
    """Where a job finds its data.

    Attributes:
        address: that Azure ML mounts.
        inside: what the script is shown of it: ``.`` for all, or the one file's name.
        digest: of the content; None for data that lay in Azure already.
    """

    address: str
    inside: str
    digest: str | None


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
    named = found.named(prefix).items()
    missing = {key: file for key, file in named if there.get(key) != file.stat().st_size}

    def send(key: str) -> None:
        with missing[key].open("rb") as content:
            container.upload_blob(key, content, overwrite=True)

    with ThreadPoolExecutor(SENDERS, thread_name_prefix="edgefleet-data") as pool:
        for done in [pool.submit(send, key) for key in missing]:
            done.result()
    return Channel(workspace.address(CONTAINER, prefix), found.inside, found.digest)


def make_container(clients: Clients) -> None:
    """Have the container for training there; no error when it is."""
    try:
        clients.container(CONTAINER).create_container()
    except Exception as error:
        if code_of(error) != "ContainerAlreadyExists":
            raise
