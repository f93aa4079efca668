"""IoT Core's quotas, which operators meet as devices do."""

from __future__ import annotations

import json
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings


@pytest.fixture
def clients(
    make_clients: Callable[[AwsSettings], Clients], make_settings: Callable[..., AwsSettings]
) -> Clients:
    """Clients that try once: boto3 takes this refusal for one that passes."""
    return make_clients(make_settings(max_attempts=1))


@pytest.fixture
def iot(cloud: AwsMock, clients: Clients) -> Any:
    clients.iot.create_thing(thingName="cam-1")
    yield clients.iot
    cloud.fleet.remove()


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "reported,code",
    [
        ({"x": "y" * (8 << 10)}, "RequestEntityTooLargeException"),
        (nested(9), "InvalidRequestException"),
        ({"x": "y" * 8000}, None),
        (nested(8), None),
    ],
)
def test_a_shadow_has_eight_kilobytes_and_eight_levels(
    iot: Any, clients: Clients, reported: Any, code: str | None
) -> None:
    del iot
    payload = json.dumps({"state": {"reported": reported}}).encode()
    with nullcontext() if code is None else pytest.raises(ClientError, match=code):
        clients.iot_data.update_thing_shadow(
            thingName="cam-1", shadowName="edgefleet", payload=payload
        )


def test_a_thing_is_in_ten_groups_at_most(iot: Any) -> None:
    for number in range(11):
        iot.create_thing_group(thingGroupName=f"g{number}")
    for number in (*range(10), 3):  # one that it is in already is no eleventh
        iot.add_thing_to_thing_group(thingName="cam-1", thingGroupName=f"g{number}")
    with pytest.raises(ClientError, match="LimitExceeded"):
        iot.add_thing_to_thing_group(thingName="cam-1", thingGroupName="g10")
