"""SageMaker's model package groups and packages, kept as AWS keeps them.

moto's lose the metadata given at creation, can't delete a package, and leave out members that
botocore's model requires; these replace them.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCOUNT = "123456789012"  # moto's
PAGE = 10  # packages in a page that asks for no number; SageMaker's default
_KEPT = (
    "ModelPackageDescription",
    "ModelApprovalStatus",
    "CustomerMetadataProperties",
    "MetadataProperties",
    "ModelMetrics",
    "InferenceSpecification",
    "SourceUri",
    "ModelPackageRegistrationType",
    "SkipModelValidation",
    "Domain",
    "Task",
)
_SUMMARIZED = (
    "ModelPackageGroupName",
    "ModelPackageVersion",
    "ModelPackageArn",
    "ModelPackageDescription",
    "CreationTime",
    "ModelPackageStatus",
    "ModelApprovalStatus",
    "ModelPackageRegistrationType",
)
MAX_METADATA = 50


class ModelPackages:
    """Groups and their numbered packages; a number is never given twice."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: dict[str, dict[str, Any]] = {}
        self._packages: dict[str, dict[str, Any]] = {}
        self._given: dict[str, tuple[dict[str, Any], str]] = {}

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Groups, packages, and client tokens that were used."""
        with self._lock:
            return {"groups": self._groups, "packages": self._packages, "given": self._given}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have these groups and packages."""
        with self._lock:
            self._groups.update(kept["groups"])
            self._packages.update(kept["packages"])
            self._given.update({token: tuple(one) for token, one in kept["given"].items()})

    @property
    def operations(self) -> Mapping[str, Callable[[Call, Any], Any]]:
        """What is answered here."""
        return {
            "CreateModelPackageGroup": self._create_group,
            "DescribeModelPackageGroup": self._describe_group,
            "CreateModelPackage": self._create,
            "DescribeModelPackage": self._describe,
            "UpdateModelPackage": self._update,
            "DeleteModelPackage": self._delete,
            "ListModelPackages": self._list,
        }

    def _create_group(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        name = request["ModelPackageGroupName"]
        arn = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:model-package-group/{name}"
        with self._lock:
            if name in self._groups:
                raise Fault("ValidationException", f"Model Package Group already exists: {arn}")
            self._groups[name] = {
                **{key: value for key, value in request.items() if key != "Tags"},
                "ModelPackageGroupArn": arn,
                "CreationTime": _now(),
                "CreatedBy": {},
                "ModelPackageGroupStatus": "Completed",
                "last": 0,
            }
        return {"ModelPackageGroupArn": arn}

    def _describe_group(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            group = self._group(request["ModelPackageGroupName"])
            return {key: value for key, value in group.items() if key != "last"}

    def _group(self, name: str) -> dict[str, Any]:
        group = self._groups.get(name.rpartition("/")[2])
        if group is None:
            raise Fault("ValidationException", f"Model Package Group {name} does not exist.")
        return group

    def _create(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        token = request.get("ClientToken")
        with self._lock:
            if token in self._given:
                before, arn = self._given[token]
                if before != request:
                    raise Fault("ConflictException", "the client token was used with other content")
                return {"ModelPackageArn": arn}
            group = self._group(request["ModelPackageGroupName"])
            group["last"] += 1
            name = group["ModelPackageGroupName"]
            arn = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:model-package/{name}/{group['last']}"
            self._packages[arn] = {
                **{key: request[key] for key in _KEPT if key in request},
                "ModelPackageName": name,
                "ModelPackageGroupName": name,
                "ModelPackageVersion": group["last"],
                "ModelPackageArn": arn,
                "CreationTime": _now(),
                "CreatedBy": {},
                "ModelPackageStatus": "Completed",
                "ModelPackageStatusDetails": {"ValidationStatuses": []},
            }
            if token is not None:
                self._given[token] = (request, arn)
        return {"ModelPackageArn": arn}

    def _package(self, name: str) -> dict[str, Any]:
        found = self._packages.get(name)
        if found is None:
            raise Fault("ValidationException", f"ModelPackage {name} does not exist.")
        return found

    def _describe(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            return dict(self._package(request["ModelPackageName"]))

    def _update(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            package = self._package(request["ModelPackageArn"])
            metadata = {
                **package.get("CustomerMetadataProperties", {}),
                **request.get("CustomerMetadataProperties", {}),
            }
            for key in request.get("CustomerMetadataPropertiesToRemove", ()):
                metadata.pop(key, None)
            if len(metadata) > MAX_METADATA:
                raise Fault("ValidationException", f"more than {MAX_METADATA} metadata properties")
            if metadata:
                package["CustomerMetadataProperties"] = metadata
            for key in ("ModelApprovalStatus", "ApprovalDescription", "SourceUri"):
                if key in request:
                    package[key] = request[key]
            package |= {"LastModifiedTime": _now(), "LastModifiedBy": {}}
            return {"ModelPackageArn": package["ModelPackageArn"]}

    def _delete(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            self._package(request["ModelPackageName"])
            del self._packages[request["ModelPackageName"]]
        return {}

    def _list(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            group = self._group(request["ModelPackageGroupName"])["ModelPackageGroupName"]
            found = [p for p in self._packages.values() if p["ModelPackageGroupName"] == group]
        found.sort(
            key=lambda package: package["ModelPackageVersion"],
            reverse=request.get("SortOrder") == "Descending",
        )
        start, size = int(request.get("NextToken") or 0), request.get("MaxResults", PAGE)
        page = found[start : start + size]
        answer: dict[str, Any] = {
            "ModelPackageSummaryList": [
                {key: package[key] for key in _SUMMARIZED if key in package} for package in page
            ]
        }
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return answer


def _now() -> float:
    return datetime.now(UTC).timestamp()
