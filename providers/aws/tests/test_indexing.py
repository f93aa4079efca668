"""Fleet indexing: one setting of the account, which fleets of ours and others share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgefleet_aws import indexing
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.stack import Stack
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.template import INDEXING, MAKE_BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

    MakeFleet = Callable[..., GreengrassDeployer]

THEIRS = {
    "thingIndexingMode": "REGISTRY_AND_SHADOW",
    "thingConnectivityIndexingMode": "STATUS",
    "deviceDefenderIndexingMode": "OFF",
    "namedShadowIndexingMode": "ON",
    "customFields": [{"name": "attributes.site", "type": "String"}],
    "filter": {
        "namedShadowNames": ["theirs"],
        "geoLocations": [{"name": "shadow.name.theirs.reported.place", "order": "LatLon"}],
    },
}


@pytest.fixture
def make_fleet(
    cloud: AwsMock,
    make_settings: Callable[..., AwsSettings],
    make_clients: Callable[[AwsSettings], Clients],
) -> Iterator[MakeFleet]:
    def make(**changes: Any) -> GreengrassDeployer:
        settings = make_settings(runtime_python="/usr/bin/python3", **changes)
        clients = make_clients(settings)
        return GreengrassDeployer(clients, settings, state=lambda: S3StateStore(clients, settings))

    yield make
    cloud.fleet.remove()


def test_the_setting_is_not_touched_unless_asked_for(
    make_fleet: MakeFleet, cloud: AwsMock, clients: Clients
) -> None:
    start = len(list(cloud.seen()))
    make_fleet().install()
    assert not any("IndexingConfiguration" in line for line in list(cloud.seen())[start:])
    assert indexing.read(clients.iot)["thingIndexingMode"] == "OFF"


def test_the_fleets_shadow_is_indexed_when_asked_for(
    make_fleet: MakeFleet, clients: Clients
) -> None:
    make_fleet(fleet_indexing=True).install()
    there = indexing.read(clients.iot)
    assert there["thingIndexingMode"] == "REGISTRY"
    assert there["namedShadowIndexingMode"] == "ON"
    assert there["filter"]["namedShadowNames"] == ["edgefleet"]


def test_what_others_set_stays(make_fleet: MakeFleet, clients: Clients) -> None:
    indexing.write(clients.iot, THEIRS)
    fleet = make_fleet(fleet_indexing=True)
    fleet.install()
    names = ["edgefleet", "theirs"]
    added = {**THEIRS, "filter": {**THEIRS["filter"], "namedShadowNames": names}}  # type: ignore[dict-item]
    assert indexing.read(clients.iot) == added
    fleet.uninstall()
    assert indexing.read(clients.iot) == THEIRS


def test_installing_again_sends_no_setting(
    make_fleet: MakeFleet, cloud: AwsMock, clients: Clients
) -> None:
    fleet = make_fleet(fleet_indexing=True)
    fleet.install()
    start = len(list(cloud.seen()))
    fleet.install()
    assert not any("UpdateIndexing" in line for line in list(cloud.seen())[start:])


def test_a_teardown_turns_off_what_install_turned_on(
    make_fleet: MakeFleet, clients: Clients
) -> None:
    before = indexing.read(clients.iot)
    fleet = make_fleet(fleet_indexing=True)
    fleet.install()
    fleet.uninstall()
    assert indexing.read(clients.iot) == before


def test_only_the_last_fleet_of_an_account_takes_the_shadow_out(
    make_fleet: MakeFleet, clients: Clients, make_settings: Callable[..., AwsSettings]
) -> None:
    before = indexing.read(clients.iot)
    fleet = make_fleet(fleet_indexing=True)
    fleet.install()
    other = Stack(clients.cloudformation, make_settings())
    other.apply({MAKE_BUCKET: "no", INDEXING: "all"})
    fleet.uninstall()
    assert indexing.read(clients.iot)["filter"]["namedShadowNames"] == ["edgefleet"]
    fleet.install()
    other.remove()
    fleet.uninstall()
    assert indexing.read(clients.iot) == before


def test_a_shadow_that_was_indexed_before_any_fleet_stays_so(
    make_fleet: MakeFleet, clients: Clients
) -> None:
    theirs = {**THEIRS, "filter": {"namedShadowNames": ["edgefleet"]}}
    indexing.write(clients.iot, theirs)
    fleet = make_fleet(fleet_indexing=True)
    fleet.install()
    fleet.install()
    fleet.uninstall()
    assert indexing.read(clients.iot) == theirs


def test_turning_the_option_off_takes_the_shadow_out(
    make_fleet: MakeFleet, clients: Clients, settings: AwsSettings
) -> None:
    before = indexing.read(clients.iot)
    make_fleet(prefix=settings.prefix, fleet_indexing=True).install()
    make_fleet(prefix=settings.prefix).install()
    assert indexing.read(clients.iot) == before


def test_a_dry_run_shows_the_whole_setting_as_it_would_be(make_fleet: MakeFleet) -> None:
    fleet = make_fleet(fleet_indexing=True)
    assert "indexing.json" in {one.path for one in fleet.install_documents()}
    fleet.install()
    assert "indexing.json" not in {one.path for one in fleet.install_documents()}
