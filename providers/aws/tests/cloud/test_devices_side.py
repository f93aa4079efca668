"""What a device may do with its certificate and with its role's keys, as install's policies say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from edgefleet.errors import AccessDeniedError, InvalidInputError, LimitExceededError
from edgefleet_aws.clients import Clients
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import Names

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.cloud.device_cloud import DeviceCloud
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings


@pytest.fixture
def devices(cloud: AwsMock, clients: Clients, settings: AwsSettings) -> Iterator[DeviceCloud]:
    """A fleet with the two things cam-1 and cam-2; no nucleus runs."""
    cloud.fleet.install(settings)
    for thing in ("cam-1", "cam-2"):
        clients.iot.create_thing(thingName=thing)
        clients.iot.add_thing_to_thing_group(thingGroupName=settings.prefix, thingName=thing)
    yield cloud.fleet.greengrass.devices
    cloud.fleet.remove()


@pytest.fixture
def s3_as(
    devices: DeviceCloud, settings: AwsSettings, monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Any]:
    """S3 with a device's keys."""

    def client(thing: str) -> Any:
        keys = devices.keys(thing)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys["SecretAccessKey"])
        monkeypatch.setenv("AWS_SESSION_TOKEN", keys["Token"])
        return Clients(settings).s3

    return client


def refusal(call: Callable[..., Any], **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return code_of(caught.value)


def test_a_device_writes_below_its_own_name_only(
    s3_as: Callable[[str], Any], settings: AwsSettings
) -> None:
    s3, bucket = s3_as("cam-1"), settings.bucket
    s3.put_object(Bucket=bucket, Key=f"{settings.prefix}/devices/cam-1/segments/x", Body=b"")
    for key in ("devices/cam-2/segments/x", "devices/cam-10/x", "state/x", "blobs/sha256/x"):
        said = refusal(s3.put_object, Bucket=bucket, Key=f"{settings.prefix}/{key}", Body=b"")
        assert said == "AccessDenied"


def test_a_device_reads_blobs_only(
    s3_as: Callable[[str], Any], clients: Clients, settings: AwsSettings
) -> None:
    at = {"Bucket": settings.bucket}
    for key in ("blobs/sha256/x", "state/x", "devices/cam-1/x"):
        clients.s3.put_object(**at, Key=f"{settings.prefix}/{key}", Body=b"data")
    s3 = s3_as("cam-1")
    with s3.get_object(**at, Key=f"{settings.prefix}/blobs/sha256/x")["Body"] as body:
        assert body.read() == b"data"
    for key in ("state/x", "devices/cam-1/x"):
        assert refusal(s3.get_object, **at, Key=f"{settings.prefix}/{key}") == "AccessDenied"


def test_keys_that_ended_are_refused_as_that(
    s3_as: Callable[[str], Any], devices: DeviceCloud, settings: AwsSettings
) -> None:
    s3 = s3_as("cam-1")
    devices.expired.add("cam-1")
    key = f"{settings.prefix}/blobs/sha256/x"
    assert refusal(s3.get_object, Bucket=settings.bucket, Key=key) == "ExpiredToken"


def test_a_device_publishes_on_its_own_topics_only(
    devices: DeviceCloud, settings: AwsSettings
) -> None:
    names = Names(settings)
    devices.publish("cam-1", names.hot_topic("cam-1"), b"{}")
    for topic in (
        names.hot_topic("cam-2"),
        "$aws/things/cam-2/shadow/name/edgefleet/update",
        "$aws/things/cam-1/shadow/update",
        names.invoke_topic("cam-1"),
    ):
        with pytest.raises(AccessDeniedError):
            devices.publish("cam-1", topic, b"{}")


def test_a_device_hears_its_own_requests_only(devices: DeviceCloud, settings: AwsSettings) -> None:
    names, heard = Names(settings), list[bytes]()
    devices.subscribe("cam-1", names.invoke_topic("cam-1"), lambda _, data: heard.append(data))
    for topic in (names.invoke_topic("cam-2"), names.invoke_topic("+"), "#"):
        with pytest.raises(AccessDeniedError):
            devices.subscribe("cam-1", topic, lambda _, data: heard.append(data))
    devices.deliver(names.invoke_topic("cam-2"), b"not for it")
    devices.deliver(names.invoke_topic("cam-1"), b"for it")
    assert heard == [b"for it"]


def test_hot_events_land_below_the_name_in_the_topic(
    devices: DeviceCloud, clients: Clients, settings: AwsSettings
) -> None:
    devices.publish("cam-1", Names(settings).hot_topic("cam-1"), b'{"events": []}')
    pages = clients.s3.get_paginator("list_objects_v2").paginate(
        Bucket=settings.bucket, Prefix=f"{settings.prefix}/devices/"
    )
    (key,) = [one["Key"] for page in pages for one in page.get("Contents", ())]
    assert key.startswith(f"{settings.prefix}/devices/cam-1/hot/")
    with clients.s3.get_object(Bucket=settings.bucket, Key=key)["Body"] as body:
        assert body.read() == b'{"events": []}'


def test_a_shadow_over_eight_kilobytes_is_refused(devices: DeviceCloud) -> None:
    update = json.dumps({"state": {"reported": {"x": "y" * 8192}}}).encode()
    with pytest.raises(LimitExceededError, match="8 KB"):
        devices.publish("cam-1", "$aws/things/cam-1/shadow/name/edgefleet/update", update)


def test_messages_and_topics_that_iot_core_refuses_are_refused(
    devices: DeviceCloud, settings: AwsSettings
) -> None:
    topic = Names(settings).hot_topic("cam-1")
    with pytest.raises(LimitExceededError):
        devices.publish("cam-1", topic, bytes((128 << 10) + 1))
    with pytest.raises(InvalidInputError, match="slashes"):
        devices.publish("cam-1", "a/b/c/d/e/f/g/h/i", b"")
