from __future__ import annotations

import string
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import AccessDeniedError, UnavailableError
from edgefleet.interfaces.values import ApprovalState
from edgefleet.protocol.names import MODEL_PATTERN
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.strictness import compiled, service_model
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.registry import SageMakerRegistry, group_name
from edgefleet_aws.settings import AwsSettings

names = st.from_regex(MODEL_PATTERN).filter(lambda name: len(name) <= 63)
prefixes = st.text(string.ascii_lowercase + string.digits + "-", min_size=1, max_size=32).filter(
    lambda prefix: not prefix.startswith("-") and not prefix.endswith("-")
)


@pytest.fixture
def settings(make_settings: Callable[..., AwsSettings]) -> AwsSettings:
    return make_settings(max_attempts=1)


@pytest.fixture
def registry(clients: Clients, settings: AwsSettings) -> SageMakerRegistry:
    return SageMakerRegistry(clients, settings)


def _package(clients: Clients, settings: AwsSettings, model: str = "digits") -> dict[str, Any]:
    """The newest package of a model, as SageMaker describes it."""
    pages = clients.sagemaker.get_paginator("list_model_packages").paginate(
        ModelPackageGroupName=group_name(settings.prefix, model)
    )
    found = [package for page in pages for package in page["ModelPackageSummaryList"]]
    newest = max(found, key=lambda package: int(package["ModelPackageVersion"]))
    return clients.sagemaker.describe_model_package(ModelPackageName=newest["ModelPackageArn"])


def test_a_version_is_a_package_that_people_can_read(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    bundle = samples.bundle(tmp_path, metrics={"accuracy": 0.97}, lineage={"run": "train-1"})
    pushed = registry.push(bundle, "digits", version="2026.11", labels={"line": "3"})
    package = _package(clients, settings)
    assert package["ModelPackageGroupName"] == f"{settings.prefix}-digits"
    assert package["ModelPackageDescription"] == f"digits:2026.11 {pushed.digest}"
    assert package["ModelApprovalStatus"] == "PendingManualApproval"
    shown = package["CustomerMetadataProperties"]
    assert shown["edgefleet:digest"] == bundle.digest
    assert {"metric:accuracy", "lineage:run", "label:line"} <= shown.keys()


def test_a_decision_made_here_shows_in_sagemaker(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.approve("digits:1", by="ada", reason="looks\nright")
    package = _package(clients, settings)
    assert package["ModelApprovalStatus"] == "Approved"
    assert package["ApprovalDescription"] == "ada: looks right"


def test_a_decision_made_in_sagemaker_holds_here(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.reject("digits:1", by="ada")
    clients.sagemaker.update_model_package(
        ModelPackageArn=_package(clients, settings)["ModelPackageArn"],
        ModelApprovalStatus="Approved",
        ApprovalDescription="seen on the line",
    )
    approval = registry.get("digits:1").approval
    assert (approval.state, approval.reason) == (ApprovalState.APPROVED, "seen on the line")
    assert registry.versions("digits")[0].approval == approval
    # and it survives a change of something else
    assert registry.label("digits:1", {"line": "3"}).approval == approval


def test_a_package_that_lags_behind_a_decision_here_does_not_undo_it(
    registry: SageMakerRegistry, cloud: AwsMock, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    registry.approve("digits:1", by="ada")
    fault = Fault("ServiceUnavailable", "busy", 503)
    cloud.rules.add(Rule("sagemaker.UpdateModelPackage", fault=fault))
    with pytest.raises(UnavailableError):
        registry.reject("digits:1", by="grace")
    assert registry.get("digits:1").approval.state is ApprovalState.REJECTED


def test_a_push_that_ended_before_its_package_was_made_is_whole_and_gets_one_later(
    registry: SageMakerRegistry,
    cloud: AwsMock,
    clients: Clients,
    settings: AwsSettings,
    tmp_path: Path,
) -> None:
    bundle = samples.bundle(tmp_path)
    fault = Fault("ServiceUnavailable", "busy", 503)
    cloud.rules.add(Rule("sagemaker.CreateModelPackage", fault=fault))
    with pytest.raises(UnavailableError):
        registry.push(bundle, "digits")
    assert [version.version for version in registry.versions("digits")] == ["1"]
    assert registry.push(bundle, "digits").version == "1"
    package = _package(clients, settings)
    assert package["ModelPackageVersion"] == 1
    assert package["ModelPackageDescription"] == f"digits:1 {bundle.digest}"


def test_a_push_whose_answer_was_lost_is_one_version(
    cloud: AwsMock,
    make_settings: Callable[..., AwsSettings],
    make_clients: Callable[[AwsSettings], Clients],
    tmp_path: Path,
) -> None:
    settings = make_settings(max_attempts=2)
    clients = make_clients(settings)
    registry = SageMakerRegistry(clients, settings)
    bundle = samples.bundle(tmp_path)
    for descriptor in bundle.blobs():
        registry.blobs.put(descriptor, partial(bundle.open, descriptor))
    cloud.rules.add(Rule("s3.PutObject", cut_answer_at=0))
    cloud.rules.add(Rule("sagemaker.CreateModelPackage", cut_answer_at=0))
    assert registry.push(bundle, "digits").version == "1"
    assert len(registry.versions("digits")) == 1
    assert _package(clients, settings)["ModelPackageVersion"] == 1


def test_deleting_a_version_deletes_its_package(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    for seed in (1, 2):
        registry.push(samples.bundle(tmp_path, seed), "digits")
    registry.delete("digits:2")
    assert _package(clients, settings)["ModelPackageDescription"].startswith("digits:1 ")


def test_a_version_whose_package_somebody_deleted_stays_and_can_be_deleted(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    arn = _package(clients, settings)["ModelPackageArn"]
    clients.sagemaker.delete_model_package(ModelPackageName=arn)
    assert registry.get("digits:1").approval.state is ApprovalState.PENDING
    registry.delete("digits:1")
    assert registry.versions("digits") == ()


@pytest.mark.parametrize("call", ["get", "versions", "alias", "delete", "approve"])
def test_whatever_is_called_says_which_action_is_missing(
    call: str, registry: SageMakerRegistry, cloud: AwsMock, tmp_path: Path
) -> None:
    registry.push(samples.bundle(tmp_path), "digits")
    said = "User: ada is not authorized to perform: sagemaker:ListModelPackages on resource: x"
    fault = Fault("AccessDeniedException", said)
    # an alias asks twice: for the version, and whether the name is taken
    cloud.rules.add(Rule("sagemaker.ListModelPackages", skip=call == "alias", fault=fault))
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: registry.get("digits:1"),
        "versions": lambda: registry.versions("digits"),
        "alias": lambda: registry.alias("digits:1", "1"),
        "delete": lambda: registry.delete("digits:1"),
        "approve": lambda: registry.approve("digits:1", by="ada"),
    }
    with pytest.raises(AccessDeniedError, match="do sagemaker:ListModelPackages"):
        calls[call]()


def test_more_than_sagemaker_takes_is_kept_all_the_same(
    registry: SageMakerRegistry, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    labels = {f"key-{n}": "x" * n for n in range(1, 80)} | {"long": "y" * 300, "odd": "a\u2603{}"}
    registry.push(samples.bundle(tmp_path), "digits", labels=labels)
    assert registry.get("digits:1").labels == labels
    assert len(_package(clients, settings)["CustomerMetadataProperties"]) == 50


def test_listing_takes_no_call_a_package(
    registry: SageMakerRegistry, cloud: AwsMock, tmp_path: Path
) -> None:
    for seed in range(3):
        registry.push(samples.bundle(tmp_path, seed), "digits")
    before = len(list(cloud.seen()))
    registry.versions("digits")
    asked = [line.split(" ")[1] for line in list(cloud.seen())[before:]]
    assert asked.count("sagemaker.ListModelPackages") == 1
    assert asked.count("sagemaker.DescribeModelPackage") == 0


@given(names, prefixes)
def test_every_group_name_is_one_that_sagemaker_takes(name: str, prefix: str) -> None:
    shape = service_model("sagemaker").shape_for("EntityName")
    group = group_name(prefix, name.strip())
    assert compiled(shape.metadata["pattern"]).fullmatch(group)
    assert len(group) <= shape.metadata["max"]


@given(st.lists(st.tuples(prefixes, names), min_size=2, max_size=2, unique=True))
def test_different_models_have_different_groups(pairs: list[tuple[str, str]]) -> None:
    (one, other) = [group_name(prefix, name) for prefix, name in pairs]
    assert one != other


@pytest.mark.parametrize(
    "one,other",
    [(("a", "b-c"), ("a-b", "c")), (("a", "b.c"), ("a", "b-c")), (("a", "b_c"), ("a", "b.c"))],
)
def test_names_that_look_alike_have_different_groups(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert group_name(*one) != group_name(*other)
