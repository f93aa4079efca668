"""Mock clouds of one session know each other: what is lent, where telemetry goes, whom to trust."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.plugins.discovery import MOCKS
from edgefleet.plugins.provider import Role
from edgefleet.profile import load_profile
from edgefleet.testing.cloud.authority import Authority
from edgefleet.testing.mock import Borrowed, mock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.plugins.conftest import Install

CLOUD = """
    import os

    from edgefleet.plugins.provider import Role
    from edgefleet.testing.cloud.authority import Authority
    from edgefleet.testing.mock import MockCloud

    class Cloud(MockCloud):
        name = "NAME"
        roles = frozenset(map(Role, ROLES))
        running = False
        writes_elsewhere = WRITES
        had = None

        def start(self):
            self.running, self.had = True, self.borrowed
            self.certified = Authority(self.state / "authority", vendor="NAME")

        def stop(self):
            self.running = False

        @property
        def environment(self):
            return {"BUNDLE": str(self.certified.bundle)}

        settings = {}

        @property
        def authority(self):
            return self.certified

        @property
        def lent(self):
            assert self.running
            return {"READ_NAME": "yes", "BUNDLE": str(self.certified.bundle)}

        @property
        def segments(self):
            return "box://NAME"

        def add_device(self, name, *, group, labels=None):
            self.added, self.inherited = self.borrowed, os.environ.get("READ_keeper")

        def kill_device(self, name):
            pass

        def start_device(self, name):
            pass

        def seen(self):
            yield from ()
"""
ALL = [role.value for role in Role]
KEEPS = ["registry", "state", "telemetry"]


@pytest.fixture
def clouds(install: Install) -> Callable[..., None]:
    """Installs mock clouds that serve some roles."""

    def clouds(**roles: list[str]) -> None:
        for name, served in roles.items():
            source = CLOUD.replace("NAME", name).replace("ROLES", repr(served))
            source = source.replace("WRITES", repr(name != "tied"))
            install(name, source, group=MOCKS)

    return clouds


def test_devices_read_what_other_clouds_hold(clouds: Any) -> None:
    clouds(keeper=KEEPS, plant=ALL)
    with mock("keeper", "plant", devices=1) as session:
        plant: Any = session.clouds[1]
        assert plant.added.variables["READ_keeper"] == "yes"
        assert "READ_plant" not in plant.added.variables


def test_clouds_that_deploy_lend_to_each_other(clouds: Any) -> None:
    clouds(alpha=ALL, beta=ALL)
    with mock("alpha", "beta") as session:
        one, other = session.clouds
        assert one.borrowed.variables.keys() == {"READ_beta", "BUNDLE"}
        assert other.borrowed.variables.keys() == {"READ_alpha", "BUNDLE"}


def test_devices_that_start_with_their_cloud_have_what_is_lent(clouds: Any) -> None:
    clouds(plant=ALL, keeper=KEEPS)
    with mock("plant", "keeper") as session:
        plant: Any = session.clouds[0]
        assert plant.had.variables["READ_keeper"] == "yes"


def test_devices_write_where_the_profile_reads(clouds: Any) -> None:
    clouds(keeper=KEEPS, plant=ALL)
    with mock("keeper", "plant") as session:
        assert session.clouds[1].borrowed.segments == "box://keeper"


def test_a_cloud_that_no_device_writes_to_is_not_where_the_profile_reads(clouds: Any) -> None:
    clouds(keeper=KEEPS, tied=ALL)
    with mock("keeper", "tied") as session:
        profile = load_profile("mock", config=session.config)
        assert profile.provider_of("telemetry") == "tied"
        assert profile.provider_of("state") == "keeper"
        assert session.clouds[1].borrowed.segments is None


def test_what_is_lent_is_in_place_while_a_device_is_added_and_gone_after(clouds: Any) -> None:
    clouds(keeper=KEEPS, plant=ALL)
    with mock("keeper", "plant", devices=1) as session:
        plant: Any = session.clouds[1]
        assert plant.inherited == "yes"
        assert "READ_keeper" not in os.environ


def test_devices_of_the_cloud_that_the_profile_reads_write_to_their_own(clouds: Any) -> None:
    clouds(keeper=KEEPS, plant=ALL)
    with mock("plant", "keeper") as session:
        assert session.clouds[0].borrowed.segments is None


def test_a_cloud_alone_borrows_nothing(clouds: Any) -> None:
    clouds(plant=ALL)
    with mock("plant", devices=1) as session:
        plant: Any = session.clouds[0]
        assert plant.added == Borrowed()


def subjects(bundle: Path) -> set[str]:
    context = ssl.create_default_context(cafile=str(bundle))
    return {str(found["subject"]) for found in context.get_ca_certs()}


def test_whosever_bundle_is_trusted_all_clouds_of_the_session_are(clouds: Any) -> None:
    clouds(alpha=ALL, beta=ALL, gamma=KEEPS)
    with mock("alpha", "beta", "gamma") as session:
        for cloud in session.clouds:
            assert cloud.authority is not None
            known = " ".join(subjects(cloud.authority.bundle))
            for name in ("alpha", "beta", "gamma"):
                assert f"EdgeFleet mock of {name}" in known


def test_an_authority_trusts_others_again_where_its_folder_is_there_already(tmp_path: Path) -> None:
    other = Authority(tmp_path / "other", vendor="others")
    first = Authority(tmp_path / "own", vendor="ours")
    for _ in range(2):
        first.trust(other)
    again = Authority(tmp_path / "own", vendor="ours")
    told = again.bundle.read_bytes()
    assert told.count(other.certificate.read_bytes()) == 1
    assert told.count(first.certificate.read_bytes()) == 1
