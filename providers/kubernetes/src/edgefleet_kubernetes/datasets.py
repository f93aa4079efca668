"""Training data for pods: in the registry by the digest of what they hold, or in a volume."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidInputError
from edgefleet.interfaces.training_data import find_data
from edgefleet.protocol.names import check_path
from edgefleet_kubernetes.job_request import PVC, Claim

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet_kubernetes.artifacts import Artifacts

KIND = "application/vnd.edgefleet.dataset.v1"


class Brought(NamedTuple):
    """Where a pod finds its data.

    Attributes:
        manifest: digest of their manifest; None in a volume.
        claim: the volume; None in the registry.
        inside: what the script is shown of them: ``.`` for all, or a name.
        digest: of the content; None in a volume.
    """

    manifest: str | None
    claim: Claim | None
    inside: str
    digest: str | None


def bring(data: Path | str, artifacts: Artifacts) -> Brought:
    """Bring a job's data to the registry, unless they are there or lie in a volume.

    Raises:
        InvalidInputError: there are none, or the volume's address is none.
        LimitExceededError: they are too many files.
    """
    if isinstance(data, str) and data.startswith(PVC):
        claim = _claim(data)
        return Brought(None, claim, claim.path, None)
    found = find_data(data, takes="a volume as pvc://CLAIM[/PATH]")
    tag = f"data-{found.digest}"
    manifest = artifacts.find(tag)
    if manifest is None:
        manifest = artifacts.send(dict(found.named("")), tag, KIND)
    return Brought(manifest, None, found.inside, found.digest)


def _claim(address: str) -> Claim:
    name, _, path = address.removeprefix(PVC).partition("/")
    if not name:
        raise InvalidInputError(
            f"{address!r} names no volume", cure="write pvc://CLAIM or pvc://CLAIM/PATH"
        )
    return Claim(name, check_path(path) if path.strip("/") else ".")
