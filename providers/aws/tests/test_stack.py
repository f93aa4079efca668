"""The fleet's stack: a bucket that may be there, roles that devices have, what teardown leaves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet.interfaces.values import Action
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.stack import Stack
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.template import INDEXING, MAKE_BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

    MakeSettings = Callable[..., AwsSettings]
    MakeDeployer = Callable[[AwsSettings], GreengrassDeployer]

PYTHON = "/opt/edgefleet/bin/python"


@pytest.fixture
def make_deployer(
    cloud: AwsMock, make_clients: Callable[[AwsSettings], Clients]
) -> Iterator[MakeDeployer]:
    def make(settings: AwsSettings) -> GreengrassDeployer:
        clients = make_clients(settings)
        return GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))

    yield make
    cloud.fleet.remove()


@pytest.fixture
def settings(make_settings: MakeSettings) -> AwsSettings:
    """Of a fleet whose bucket is not there."""
    fresh = make_settings()
    return make_settings(prefix=fresh.prefix, bucket=f"{fresh.prefix}-new", runtime_python=PYTHON)


@pytest.fixture
def deployer(make_deployer: MakeDeployer, settings: AwsSettings) -> Iterator[GreengrassDeployer]:
    deployer = make_deployer(settings)
    yield deployer
    deployer.uninstall(data=True)


def buckets(clients: Clients) -> set[str]:
    s3: Any = clients.s3
    return {one["Name"] for one in s3.list_buckets()["Buckets"]}


def made_with(clients: Clients, settings: AwsSettings) -> dict[str, str] | None:
    return Stack(clients.cloudformation, settings).parameters()


def test_a_bucket_that_is_missing_is_made_private(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    s3: Any = clients.s3
    closed = s3.get_public_access_block(Bucket=settings.bucket)["PublicAccessBlockConfiguration"]
    assert set(closed.values()) == {True}
    (rule,) = s3.get_bucket_lifecycle_configuration(Bucket=settings.bucket)["Rules"]
    assert rule["AbortIncompleteMultipartUpload"] == {"DaysAfterInitiation": 7}


def test_a_bucket_that_is_there_is_adopted(
    make_deployer: MakeDeployer, clients: Clients, cloud: AwsMock, settings: AwsSettings
) -> None:
    adopting = settings.model_copy(update={"bucket": cloud.bucket})
    make_deployer(adopting).install()
    assert made_with(clients, adopting) == {MAKE_BUCKET: "no", INDEXING: "no"}


def test_installing_again_keeps_the_bucket_the_stacks_own(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    deployer.install()
    assert made_with(clients, settings) == {MAKE_BUCKET: "yes", INDEXING: "no"}


def test_a_teardown_keeps_the_models(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    key = f"{settings.prefix}/blobs/x"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=b"model")
    deployer.uninstall()
    assert clients.s3.get_object(Bucket=settings.bucket, Key=key)["ContentLength"] == 5
    deployer.install()
    assert made_with(clients, settings) == {MAKE_BUCKET: "no", INDEXING: "no"}


def test_a_teardown_with_data_takes_the_bucket_that_install_made(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    for number in range(3):
        key = f"{settings.prefix}/blobs/{number}"
        clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=b"model")
    deployer.uninstall(data=True)
    assert settings.bucket not in buckets(clients)


def test_a_teardown_with_data_leaves_what_others_keep_in_the_bucket(
    deployer: GreengrassDeployer, clients: Clients, settings: AwsSettings
) -> None:
    deployer.install()
    s3: Any = clients.s3
    for key in (f"{settings.prefix}/blobs/x", f"{settings.prefix}x/theirs"):
        s3.put_object(Bucket=settings.bucket, Key=key, Body=b"model")
    deployer.uninstall(data=True)
    left = s3.list_objects_v2(Bucket=settings.bucket)["Contents"]
    assert [one["Key"] for one in left] == [f"{settings.prefix}x/theirs"]
    s3.delete_object(Bucket=settings.bucket, Key=f"{settings.prefix}x/theirs")
    s3.delete_bucket(Bucket=settings.bucket)


def test_a_bucket_of_another_store_is_not_made(
    make_deployer: MakeDeployer, cloud: AwsMock, settings: AwsSettings
) -> None:
    store = cloud.environment["AWS_ENDPOINT_URL"]
    with pytest.raises(ConfigurationError, match="there is no bucket"):
        make_deployer(settings.model_copy(update={"endpoint_url": store})).install()


def test_roles_that_devices_have_already_are_given_what_devices_may_do(
    make_deployer: MakeDeployer, clients: Clients, make_settings: MakeSettings
) -> None:
    settings = make_settings(runtime_python=PYTHON, device_roles=("TheirTokenExchange",))
    iam: Any = clients.get("iam")
    trust = {"Effect": "Allow", "Principal": {"Service": "x"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
    iam.create_role(RoleName="TheirTokenExchange", AssumeRolePolicyDocument=document)
    deployer = make_deployer(settings)
    deployer.install()
    attached = iam.list_attached_role_policies(RoleName="TheirTokenExchange")["AttachedPolicies"]
    assert [one["PolicyName"] for one in attached] == [Names(settings).devices]
    deployer.uninstall()
    attached = iam.list_attached_role_policies(RoleName="TheirTokenExchange")["AttachedPolicies"]
    assert attached == []
    iam.delete_role(RoleName="TheirTokenExchange")


def test_a_stack_that_could_not_be_made_says_why_and_is_made_again(
    make_deployer: MakeDeployer, clients: Clients, make_settings: MakeSettings
) -> None:
    settings = make_settings(runtime_python=PYTHON, device_roles=("NoSuchRole",))
    with pytest.raises(ConfigurationError, match=r"ROLLBACK_COMPLETE.*NoSuchRole"):
        make_deployer(settings).install()
    iot: Any = clients.iot
    assert iot.list_policies()["policies"] == []
    make_deployer(settings.model_copy(update={"device_roles": ()})).install()
    assert made_with(clients, settings) is not None


def test_what_a_new_template_leaves_out_is_removed(
    make_deployer: MakeDeployer, clients: Clients, settings: AwsSettings
) -> None:
    stack = Stack(clients.cloudformation, settings)
    parameters = {MAKE_BUCKET: "no", INDEXING: "no"}
    stack.apply(parameters)
    smaller = json.loads(stack.body)
    del smaller["Resources"]["HotRule"]
    stack.body = json.dumps(smaller)
    stack.apply(parameters)
    iot: Any = clients.iot
    assert iot.list_topic_rules()["rules"] == []
    stack.remove()


def test_a_dry_run_tells_what_is_there_already(
    deployer: GreengrassDeployer, settings: AwsSettings
) -> None:
    before = {one.path: one.action for one in deployer.install_documents()}
    assert set(before.values()) == {Action.CREATE}
    deployer.install()
    after = {one.path: one.action for one in deployer.install_documents()}
    assert after == dict.fromkeys(before, Action.UNCHANGED)
    assert f"edgefleet-{settings.prefix}-parameters.json" in before


def test_an_alarm_that_can_not_be_stored_is_logged(
    deployer: GreengrassDeployer, clients: Clients, cloud: AwsMock, settings: AwsSettings
) -> None:
    deployer.install()
    clients.s3.delete_bucket(Bucket=settings.bucket)
    names = Names(settings)
    cloud.fleet.greengrass.devices.deliver(names.hot_topic("cam-1"), b'{"alarm": 1}')
    logs: Any = clients.logs
    events = logs.filter_log_events(logGroupName=names.hot_log)["events"]
    said = json.loads(events[0]["message"])
    assert said["topic"] == f"{settings.prefix}/devices/cam-1/hot"
    group = logs.describe_log_groups(logGroupNamePrefix=names.hot_log)["logGroups"][0]
    assert group["retentionInDays"] == 30
