from __future__ import annotations

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ConflictError,
    EdgeFleetError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.testing.cloud.rules import Rule
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.errors import translate
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.state import S3StateStore

Make = Callable[..., AwsSettings]
MakeClients = Callable[[AwsSettings], Clients]


def _calls(cloud: AwsMock, operation: str, below: str) -> list[str]:
    """Statuses of an operation's calls on a fleet's paths, oldest first."""
    lines = [line.split(" ") for line in cloud.seen()]
    return [line[3] for line in lines if line[1] == operation and f"/{below}/" in line[2]]


@pytest.fixture
def state(make_clients: MakeClients, settings: AwsSettings) -> S3StateStore:
    return S3StateStore(make_clients(settings), settings)


def test_a_throttled_call_is_repeated(
    cloud: AwsMock, state: S3StateStore, settings: AwsSettings
) -> None:
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("SlowDown", "reduce your rate", 503)))
    state.write("doc", b"x", expect=None)
    assert _calls(cloud, "s3.PutObject", settings.prefix) == ["503", "200"]


def test_a_call_that_is_throttled_to_the_end_says_so(
    cloud: AwsMock, make_settings: Make, make_clients: MakeClients
) -> None:
    settings = make_settings(max_attempts=2)
    registry = SageMakerRegistry(make_clients(settings), settings)
    fault = Fault("ThrottlingException", "Rate exceeded")
    cloud.rules.add(Rule("s3.ListObjectsV2", times=None, fault=fault))
    with pytest.raises(ThrottledError, match=r"Rate exceeded[\s\S]*higher rate") as caught:
        registry.list()
    assert (caught.value.provider, caught.value.retryable) == ("aws", True)


@pytest.mark.parametrize(
    "fault,kind,cure",
    [
        (Fault("ExpiredToken", "no"), AccessExpiredError, "aws sso login"),
        (Fault("RequestTimeTooSkewed", "no", 403), ConfigurationError, "clock"),
        (Fault("InvalidAccessKeyId", "no", 403), AccessDeniedError, "get-caller-identity"),
        (Fault("AccessDenied", "no", 403), AccessDeniedError, "s3:PutObject"),
        (Fault("NoSuchBucket", "no", 404), NotFoundError, "`bucket`"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
def test_what_s3_refuses_comes_with_its_cure(
    cloud: AwsMock, state: S3StateStore, fault: Fault, kind: type[EdgeFleetError], cure: str
) -> None:
    cloud.rules.add(Rule("s3.PutObject", fault=fault))
    with pytest.raises(kind, match=cure) as caught:
        state.write("doc", b"x", expect=None)
    assert caught.value.operation == "state.write"


def test_a_missing_bucket_is_told(make_settings: Make, make_clients: MakeClients) -> None:
    settings = make_settings(bucket="nobody-made-this-one")
    with pytest.raises(NotFoundError, match="bucket"):
        S3StateStore(make_clients(settings), settings).write("doc", b"x", expect=None)


def test_access_denied_names_the_action_that_aws_names(
    cloud: AwsMock, make_clients: MakeClients, settings: AwsSettings
) -> None:
    said = "User: arn:aws:iam::1:user/ada is not authorized to perform: sagemaker:ListModelPackages"
    cloud.rules.add(Rule("sagemaker.ListModelPackages", fault=Fault("AccessDeniedException", said)))
    clients = make_clients(settings)
    with pytest.raises(ClientError) as caught:
        next(iter(clients.sagemaker.get_paginator("list_model_packages").paginate()))
    told = translate(caught.value)
    assert isinstance(told, AccessDeniedError)
    assert "let the identity in use do sagemaker:ListModelPackages" in str(told)


def test_a_cloud_that_is_not_there_is_unavailable(
    make_settings: Make, make_clients: MakeClients
) -> None:
    settings = make_settings(endpoint_url="http://127.0.0.1:9", max_attempts=1)
    with pytest.raises(UnavailableError, match="network"):
        S3StateStore(make_clients(settings), settings).read("doc")


def test_no_credentials_are_told_with_the_cure(
    monkeypatch: pytest.MonkeyPatch, make_clients: MakeClients, settings: AwsSettings
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with pytest.raises(AccessDeniedError, match="aws configure"):
        S3StateStore(make_clients(settings), settings).read("doc")


def test_a_missing_profile_of_credentials_is_told(
    make_settings: Make, make_clients: MakeClients
) -> None:
    settings = make_settings(credentials_profile="nobody")
    with pytest.raises(ConfigurationError, match="credentials_profile"):
        S3StateStore(make_clients(settings), settings).read("doc")


def test_a_deletion_that_was_only_throttled_tells_what_is_gone_as_gone(
    cloud: AwsMock, state: S3StateStore
) -> None:
    tag = state.write("doc", b"1", expect=None)
    slowly = Fault("SlowDown", "reduce your rate", 503)
    gone = Fault("NoSuchKey", "The specified key does not exist.", 404)
    cloud.rules.add(Rule("s3.DeleteObject", fault=slowly))
    cloud.rules.add(Rule("s3.DeleteObject", fault=gone))
    with pytest.raises(ConflictError, match="is gone"):
        state.delete("doc", expect=tag)


def test_a_repeated_write_takes_nobody_elses_document_for_its_own(
    cloud: AwsMock, state: S3StateStore
) -> None:
    tag = state.write("doc", b"1", expect=None)
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("InternalError", "maybe done", 500)))
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("PreconditionFailed", "no", 412)))
    with pytest.raises(ConflictError, match="somebody else"):
        state.write("doc", b"2", expect=tag)


def test_a_repeated_write_whose_document_went_away_meanwhile_conflicts(
    cloud: AwsMock, state: S3StateStore
) -> None:
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("InternalError", "maybe done", 500)))
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("PreconditionFailed", "no", 412)))
    with pytest.raises(ConflictError):
        state.write("doc", b"2", expect=None)
