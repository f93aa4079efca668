"""What a run left in Blob storage, brought to this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet.errors import IntegrityError
from edgefleet.interfaces.run_outputs import arriving

if TYPE_CHECKING:
    from pathlib import Path

    from azure.storage.blob import ContainerClient


def fetch(container: ContainerClient, prefix: str, folder: Path) -> None:
    """Download what lies below a prefix into a folder that doesn't exist yet.

    Raises:
        IntegrityError: a blob's name reaches outside the folder, or two can't both be files.
        LimitExceededError: there is too much.
    """
    address = f"{container.url}/{prefix}"
    with arriving(folder, address) as fresh:
        for item in container.list_blobs(name_starts_with=prefix):
            name = str(item.name).removeprefix(prefix)
            if not name or name.endswith("/"):
                continue  # what stands for a folder
            path = fresh.place(name, int(item.size or 0))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("xb") as target:
                    container.download_blob(item.name).readinto(target)
            except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
                raise IntegrityError(f"{address} holds {name!r} beside a file of it") from error
