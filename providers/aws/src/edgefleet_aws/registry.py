"""The registry: bytes and records in S3, and a SageMaker model package beside each version.

A model's packages lie in one group, ``PREFIX-NAME`` (docs/adr/0009).
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces.shown_registry import ShownRegistry
from edgefleet.interfaces.values import Approval, ApprovalState
from edgefleet.protocol.digest import blob_path
from edgefleet_aws.blobs import S3BlobStore
from edgefleet_aws.errors import code_of
from edgefleet_aws.service import AwsService
from edgefleet_aws.state import S3StateStore

if TYPE_CHECKING:
    from edgefleet.interfaces.values import ModelVersion
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

_STATES = {
    ApprovalState.PENDING: "PendingManualApproval",
    ApprovalState.APPROVED: "Approved",
    ApprovalState.REJECTED: "Rejected",
}
_OURS = {theirs: ours for ours, theirs in _STATES.items()}
_MARK = re.compile(r"-x[0-9a-f]{10}$")
MAX_GROUP = 63  # characters of a group's name, botocore's model of SageMaker
MAX_ENTRIES = 50  # metadata properties of a package, their keys and values
MAX_KEY = 128
MAX_VALUE = 256
MAX_REASON = 1024
MAX_PAGE = 100
# What a key or value may be made of: [\p{L}\p{Z}\p{N}_.:/=+\-@], which Python spells otherwise.
_TAKEN = re.compile(r"[\w \u00a0.:/=+\-@]+")
_DECIDED = "edgefleet:decided"
_DECISION = "edgefleet:decision"
_ABSENT = {"ValidationException", "ResourceNotFound"}


class SageMakerRegistry(AwsService, ShownRegistry):
    """Model versions in S3 and SageMaker.

    Args:
        clients: to reach AWS with; closed with the registry.
        settings: bucket and prefix.
    """

    needs = ("registry",)

    def __init__(self, clients: Clients, settings: AwsSettings) -> None:
        super().__init__(
            S3BlobStore(clients, settings), S3StateStore(clients, settings), provider="aws"
        )
        self._clients = clients
        self._settings = settings
        self._prefix = settings.prefix
        self._root = settings.root

    # Packages

    def _decided(self, record: ModelVersion, shown: dict[str, Any]) -> Approval | None:
        status = _OURS.get(shown.get("ModelApprovalStatus", ""), record.approval.state)
        if status is record.approval.state:
            return None
        full = self._clients.sagemaker.describe_model_package(
            ModelPackageName=shown["ModelPackageArn"]
        )
        metadata = full.get("CustomerMetadataProperties", {})
        if metadata.get(_DECISION) == full.get("ModelApprovalStatus"):
            return None  # a decision of ours that a later one has overtaken in the record
        who = full.get("LastModifiedBy", {})
        return Approval(
            state=_OURS[full["ModelApprovalStatus"]],
            by=who.get("UserProfileName") or who.get("IamIdentity", {}).get("Arn") or "SageMaker",
            at=full.get("LastModifiedTime"),
            reason=full.get("ApprovalDescription"),
        )

    def _hide(self, record: ModelVersion) -> None:
        package = self._shown_of(record)
        try:
            if package is not None:
                self._clients.sagemaker.delete_model_package(
                    ModelPackageName=package["ModelPackageArn"]
                )
        except Exception as error:
            if code_of(error) not in _ABSENT:  # else somebody was first
                raise

    def _shown(self, name: str) -> dict[str, dict[str, Any]]:
        pages = self._clients.sagemaker.get_paginator("list_model_packages").paginate(
            ModelPackageGroupName=group_name(self._prefix, name),
            PaginationConfig={"PageSize": MAX_PAGE},
        )
        found = {}
        try:
            for page in pages:
                for package in page["ModelPackageSummaryList"]:
                    told = str(package.get("ModelPackageDescription", ""))
                    reference, _, _ = told.partition(" ")
                    found[reference.partition(":")[2]] = dict(package)
        except Exception as error:
            if code_of(error) not in _ABSENT:
                raise
            return {}  # no group yet
        return found

    def _show(self, record: ModelVersion) -> None:
        metadata = _metadata(record)
        package = self._shown_of(record)
        if package is None:
            self._make(record, metadata)
            return
        full = self._clients.sagemaker.describe_model_package(
            ModelPackageName=package["ModelPackageArn"]
        )
        stale = set(full.get("CustomerMetadataProperties", {})) - set(metadata)
        self._clients.sagemaker.update_model_package(
            ModelPackageArn=package["ModelPackageArn"],
            ModelApprovalStatus=_STATES[record.approval.state],
            ApprovalDescription=_said(record.approval),
            CustomerMetadataProperties=metadata,
            **({"CustomerMetadataPropertiesToRemove": sorted(stale)} if stale else {}),
        )

    def _make(self, record: ModelVersion, metadata: dict[str, str]) -> None:
        group = group_name(self._prefix, record.name)
        request = {
            "ModelPackageGroupName": group,
            "ModelPackageDescription": f"{record.reference} {record.digest}",
            "ModelApprovalStatus": _STATES[record.approval.state],
            "CustomerMetadataProperties": metadata,
            "SourceUri": f"{self._root}/{blob_path(record.digest)}",
        }
        # The same request again, whoever finds the package missing, makes no second one.
        request["ClientToken"] = hashlib.sha256(repr(request).encode()).hexdigest()[:36]
        try:
            self._clients.sagemaker.create_model_package(**request)
        except Exception as error:
            if code_of(error) not in _ABSENT:
                raise
            self._make_group(group, record.name)
            self._clients.sagemaker.create_model_package(**request)

    def _make_group(self, group: str, name: str) -> None:
        try:
            self._clients.sagemaker.create_model_package_group(
                ModelPackageGroupName=group,
                ModelPackageGroupDescription=f"EdgeFleet model {name} of {self._root}",
                Tags=[{"Key": "edgefleet:prefix", "Value": self._prefix}],
            )
        except Exception as error:
            if code_of(error) != "ValidationException" or "already exists" not in str(error):
                raise


def group_name(prefix: str, name: str) -> str:
    """The model package group of a model: ``PREFIX-NAME`` where SageMaker's pattern takes that.

    Dashes of the prefix are doubled, so that two fleets never share a group. A name with a dot or
    an underscore, or one that is too long, is changed and marked with ``-x`` and ten digits of its
    hash.
    """
    plain = f"{prefix.replace('-', '--')}-{name}"
    if len(plain) <= MAX_GROUP and not re.search(r"[._]", name) and not _MARK.search(plain):
        return plain
    mark = "-x" + hashlib.sha256(plain.encode()).hexdigest()[:10]
    return re.sub(r"[._]", "-", plain)[: MAX_GROUP - len(mark)].rstrip("-") + mark


def _metadata(record: ModelVersion) -> dict[str, str]:
    """What a package's metadata show of a record: as much as SageMaker takes."""
    approval = record.approval
    first = {
        "edgefleet:version": record.version,
        "edgefleet:digest": record.digest,
        _DECISION: _STATES[approval.state],
        _DECIDED: _moment(approval.at),
        "edgefleet:variants": " ".join(variant.name for variant in record.variants),
    }
    rest = {
        **{f"metric:{key}": f"{value:g}" for key, value in sorted(record.metrics.items())},
        **{f"lineage:{key}": value for key, value in sorted(record.lineage.items())},
        **{f"label:{key}": value for key, value in sorted(record.labels.items())},
    }
    shown = {key: text for key, text in (first | rest).items() if _fits(key, text)}
    return dict(list(shown.items())[:MAX_ENTRIES])


def _fits(key: str, text: str) -> bool:
    if not 0 < len(text) <= MAX_VALUE or len(key) > MAX_KEY:
        return False
    return bool(_TAKEN.fullmatch(key) and _TAKEN.fullmatch(text))


def _moment(at: datetime | None) -> str:
    return "" if at is None else at.isoformat()


def _said(approval: Approval) -> str:
    """Who decided, and why, in one line."""
    told = ": ".join(part for part in (approval.by, approval.reason) if part)
    return " ".join(told.split())[:MAX_REASON]
