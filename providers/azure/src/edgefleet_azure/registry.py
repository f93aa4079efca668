"""The registry: bytes and records in Blob storage, and an Azure ML model beside each version.

Rules kept here (docs/adr/0016):

- Models are shown in the profile's workspace, or in the shared registry that it names.
- A model of Azure ML is named ``PREFIX.NAME``. Its versions are whole numbers there: ours where it
  is one, else a number made from it; the tag ``edgefleet.version`` says which.
- A model's stage shows the approval: ``Development`` (pending), ``Production`` (approved),
  ``Archived`` (rejected). Tags show metrics, lineage and labels.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.shown_registry import ShownRegistry
from edgefleet.interfaces.values import Approval, ApprovalState
from edgefleet_azure.blobs import AzureBlobStore
from edgefleet_azure.model_assets import NumberTakenError, WorkspaceAssets
from edgefleet_azure.permissions import registry_part
from edgefleet_azure.service import AzureService
from edgefleet_azure.shared_registry import SharedRegistry
from edgefleet_azure.state import BlobStateStore
from edgefleet_azure.workspace import Workspace

if TYPE_CHECKING:
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.model_assets import ModelAssets
    from edgefleet_azure.settings import AzureSettings

_STAGES = {
    ApprovalState.PENDING: "Development",
    ApprovalState.APPROVED: "Production",
    ApprovalState.REJECTED: "Archived",
}
_OURS = {theirs: ours for ours, theirs in _STAGES.items()}
_VERSION, _DIGEST = "edgefleet.version", "edgefleet.digest"
_DECISION, _DECIDED = "edgefleet.decision", "edgefleet.decided"
MAX_NAME = 255
MAX_NUMBER = 999_999_999  # ours up to here are Azure ML's too; made-up ones lie above
MAX_TAGS = 50  # shown of a version
MAX_KEY = 128
MAX_VALUE = 256
_TRIES = 20  # numbers that are tried where others are taken
_WHOLE = re.compile(r"[1-9][0-9]{0,8}")


class AzureMLRegistry(AzureService, ShownRegistry):
    """Model versions in Blob storage and Azure ML.

    Args:
        clients: to reach Azure with; closed with the registry.
        settings: workspace or shared registry, storage account, prefix.
    """

    def __init__(self, clients: Clients, settings: AzureSettings) -> None:
        super().__init__(
            AzureBlobStore(clients, settings), BlobStateStore(clients, settings), provider="azure"
        )
        self._clients, self._settings = clients, settings
        self.needs = (registry_part(settings.ml_registry),)
        self._assets: ModelAssets = (
            WorkspaceAssets(Workspace(clients, settings))
            if settings.ml_registry is None
            else SharedRegistry(clients, settings, self.blobs)
        )

    # Models of Azure ML

    def _shown(self, name: str) -> dict[str, dict[str, Any]]:
        found = self._assets.versions(model_name(self._settings.prefix, name))
        told = ((self._version_of(one), one) for one in found)
        return {version: one for version, one in told if version is not None}

    def _version_of(self, asset: dict[str, Any]) -> str | None:
        """The version that an asset shows; None for one that isn't this fleet's."""
        told = asset["properties"]
        ours = self._assets.marks.items() <= (told.get("properties") or {}).items()
        version = (told.get("tags") or {}).get(_VERSION)
        return str(version) if ours and version is not None else None

    def _decided(self, record: ModelVersion, shown: dict[str, Any]) -> Approval | None:
        properties = shown["properties"]
        stage = str(properties.get("stage") or "")
        state = _OURS.get(stage, record.approval.state)
        if state is record.approval.state or properties["tags"].get(_DECISION) == stage:
            return None
        system = shown.get("systemData") or {}
        return Approval(
            state=state,
            by=system.get("lastModifiedBy") or "Azure ML",
            at=system.get("lastModifiedAt"),
            reason=f"stage {stage} in Azure ML",
        )

    def _show(self, record: ModelVersion) -> None:
        shown = self._shown_of(record)
        if shown is None:
            shown = self._make(record)
        if shown is not None:
            uri = str(shown["properties"]["modelUri"])
            name = model_name(self._settings.prefix, record.name)
            self._assets.write(name, int(shown["name"]), self._properties(record, uri))

    def _make(self, record: ModelVersion) -> dict[str, Any] | None:
        """Make what shows a record; gives what somebody made meanwhile, and nothing else."""
        name = model_name(self._settings.prefix, record.name)
        first = number_of(record.version)
        for number in range(first, first + _TRIES):
            try:
                uri = self._assets.address(name, number, record.digest)
                self._assets.write(name, number, self._properties(record, uri))
            except NumberTakenError:
                there = self._assets.read(name, number)  # listings lag behind
                if there is not None and self._version_of(there) == record.version:
                    return there
                if number == first + _TRIES - 1:
                    raise
            else:
                break
        return None

    def _hide(self, record: ModelVersion) -> None:
        shown = self._shown_of(record)
        if shown is not None:
            name = model_name(self._settings.prefix, record.name)
            kept = ("modelUri", "modelType", "description", "stage", "tags", "properties")
            properties = {key: shown["properties"].get(key) for key in kept} | {"isArchived": True}
            self._assets.write(name, int(shown["name"]), properties)

    def _properties(self, record: ModelVersion, uri: str) -> dict[str, Any]:
        return {
            "modelUri": uri,
            "modelType": "custom_model",
            "description": f"{record.reference} {record.digest}",
            "stage": _STAGES[record.approval.state],
            "tags": _tags(record),
            "properties": {_DIGEST: record.digest, **self._assets.marks},
            "isArchived": False,
        }


def model_name(prefix: str, name: str) -> str:
    """Name of the model in Azure ML: ``PREFIX.NAME``. A prefix has no dot, so fleets stay apart.

    A name that is too long is cut and marked with ten digits of its hash.
    """
    plain = f"{prefix}.{name}"
    if len(plain) <= MAX_NAME:
        return plain
    mark = "-x" + hashlib.sha256(plain.encode()).hexdigest()[:10]
    return plain[: MAX_NAME - len(mark)] + mark


def number_of(version: str) -> int:
    """The number of a version in Azure ML, which takes whole numbers only.

    Ours where it is one; else one above `MAX_NUMBER` that is made from its name, so that whoever
    shows the same version shows it under the same number.
    """
    if _WHOLE.fullmatch(version):
        return int(version)
    digest = hashlib.sha256(version.encode()).digest()
    return MAX_NUMBER + 1 + int.from_bytes(digest[:8]) % MAX_NUMBER


def _tags(record: ModelVersion) -> dict[str, str]:
    """What a model's tags show of a record: as much as is read with ease."""
    approval = record.approval
    first = {
        _VERSION: record.version,
        _DIGEST: record.digest,
        _DECISION: _STAGES[approval.state],
        _DECIDED: " ".join(
            part
            for part in (approval.at and approval.at.isoformat(), approval.by, approval.reason)
            if part
        ),
        "edgefleet.variants": " ".join(variant.name for variant in record.variants),
    }
    rest = {
        **{f"metric.{key}": f"{value:g}" for key, value in sorted(record.metrics.items())},
        **{f"lineage.{key}": value for key, value in sorted(record.lineage.items())},
        **{f"label.{key}": value for key, value in sorted(record.labels.items())},
    }
    shown = {key: text[:MAX_VALUE] for key, text in (first | rest).items() if text}
    kept = {key: text for key, text in shown.items() if len(key) <= MAX_KEY}
    return dict(list(kept.items())[:MAX_TAGS])
