"""The mock seam: clouds started and stopped, and a profile on which a script runs unchanged."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest

import edgefleet as ef
from edgefleet.errors import ConfigurationError, ProfileError, ProviderNotFoundError
from edgefleet.plugins import discovery
from edgefleet.plugins.discovery import MOCKS
from edgefleet.plugins.provider import Role
from edgefleet.policy_files import policy_of
from edgefleet.profile import CONFIG_VARIABLE, PROFILE_VARIABLE, load_profile
from edgefleet.testing.mock import FAST_TELEMETRY, mock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import Install

CLOUD = """
    from edgefleet.plugins.provider import Role
    from edgefleet.testing.mock import MockCloud

    told = []

    class Cloud(MockCloud):
        name = "NAME"
        roles = frozenset(map(Role, ROLES))

        def start(self):
            told.append("start NAME")

        def stop(self):
            told.append("stop NAME")

        @property
        def environment(self):
            return {"NAME_ENDPOINT": "http://127.0.0.1:1"}

        @property
        def settings(self):
            return {"root": str(self.state), "greeting": "grüß \\"dich\\" 🙂", "sizes": [1, 2]}

        def add_device(self, name, *, group, labels=None):
            told.append(f"add {name} to {group} of NAME")

        def kill_device(self, name):
            told.append(f"kill {name}")

        def start_device(self, name):
            told.append(f"power {name}")

        def seen(self):
            yield from told
"""

ALL = [role.value for role in Role]


@pytest.fixture
def clouds(install: Install) -> Any:
    """Installs mock clouds and gives what each was told."""

    def clouds(**roles: list[str]) -> dict[str, list[str]]:
        told = {}
        for number, (name, served) in enumerate(roles.items()):
            source = CLOUD.replace("NAME", name).replace("ROLES", repr(served))
            install(name, source, group=MOCKS)
            module = f"plugin_of_{name}_{number}"
            told[name] = __import__(module).told
            assert module in sys.modules
        return told

    return clouds


def test_a_cloud_runs_while_the_block_does(clouds: Any) -> None:
    told = clouds(alpha=ALL)["alpha"]
    with mock("alpha", devices=2, group="line-3") as session:
        session.kill_device("dev-01")
        session.start_device("dev-01")
        assert told == [
            "start alpha",
            "add dev-01 to line-3 of alpha",
            "add dev-02 to line-3 of alpha",
            "kill dev-01",
            "power dev-01",
        ]
    assert told[-1] == "stop alpha"


def test_a_cloud_is_stopped_when_the_block_fails(clouds: Any) -> None:
    told = clouds(alpha=ALL)["alpha"]
    with pytest.raises(KeyboardInterrupt), mock("alpha"):
        raise KeyboardInterrupt
    assert told == ["start alpha", "stop alpha"]


def test_each_role_falls_to_the_first_that_serves_it(clouds: Any) -> None:
    clouds(alpha=["registry", "deployer"], beta=ALL)
    with mock("alpha", "beta") as session:
        profile = load_profile("mock", config=session.config)
    assert profile.provider_of("registry") == "alpha"
    assert {profile.provider_of(r) for r in ("trainer", "telemetry", "state")} == {"beta"}
    assert profile.deployer_names() == ("alpha", "beta")
    assert profile.recorded == policy_of(FAST_TELEMETRY, "the mock")


def test_devices_are_added_to_the_first_that_deploys(clouds: Any) -> None:
    told = clouds(alpha=["registry"], beta=ALL)
    with mock("alpha", "beta") as session:
        session.add_device("cam-1", group="yard")
    assert "add cam-1 to yard of beta" in told["beta"]
    assert told["alpha"] == ["start alpha", "stop alpha"]


def test_what_stands_on_other_clouds_starts_when_they_run_and_stops_first(
    clouds: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = clouds(alpha=["deployer"], beta=ALL)
    order: list[str] = []
    alpha, beta = (discovery.load(name, MOCKS) for name in ("alpha", "beta"))

    def written(cloud: Any, config: Path) -> None:
        assert load_profile("mock", config=config).provider_of("state") == "beta"
        assert "beta_ENDPOINT" in os.environ
        order.append("written")

    monkeypatch.setattr(alpha, "operates", True)
    monkeypatch.setattr(alpha, "profile_written", written)
    for cloud in (alpha, beta):
        for step in ("start", "stop"):
            monkeypatch.setattr(
                cloud, step, lambda self, step=step: order.append(f"{step} {self.name}")
            )
    with mock("alpha", "beta", devices=1):
        assert order == ["start beta", "start alpha", "written"]
        assert "beta_ENDPOINT" in os.environ, "it goes on working there"
        assert told["alpha"] == ["add dev-01 to edge of alpha"]
    assert order[3:] == ["stop alpha", "stop beta"]
    assert "beta_ENDPOINT" not in os.environ


def test_a_cloud_that_serves_nothing_harms_nobody(clouds: Any) -> None:
    clouds(alpha=ALL, beta=["registry"])
    with mock("alpha", "beta") as session:
        assert load_profile("mock", config=session.config).plugins() == ("alpha",)


def test_settings_survive_the_file(clouds: Any) -> None:
    clouds(alpha=ALL)
    with mock("alpha") as session:
        settings = load_profile("mock", config=session.config).settings["alpha"]
        assert settings == session.clouds[0].settings
        assert settings["greeting"] == 'grüß "dich" 🙂'


def test_a_script_is_told_where_everything_is(clouds: Any) -> None:
    clouds(alpha=ALL)
    with mock("alpha") as session:
        assert session.environment == {
            CONFIG_VARIABLE: str(session.config),
            PROFILE_VARIABLE: "mock",
            "alpha_ENDPOINT": "http://127.0.0.1:1",
        }


def test_a_role_that_no_cloud_serves_is_told(clouds: Any) -> None:
    clouds(alpha=["registry"])
    with (
        mock("alpha") as session,
        pytest.raises(ConfigurationError, match="none of the mock clouds alpha serves deployer"),
    ):
        session.add_device("cam-1", group="yard")


def test_a_mock_that_is_not_installed_is_told_before_anything_stays(tmp_path: Path) -> None:
    with (
        pytest.raises(ProviderNotFoundError, match="no mock cloud 'nimbus' is installed"),
        mock("nimbus", state=tmp_path / "state"),
    ):
        pass


def test_a_temporary_folder_is_removed_and_a_named_one_kept(clouds: Any, tmp_path: Path) -> None:
    clouds(alpha=ALL)
    with mock("alpha") as session:
        folder = session.config.parent
        assert (folder / "alpha").is_dir()
    assert not folder.exists()
    with mock("alpha", state=tmp_path / "kept") as session:
        assert session.config == tmp_path / "kept" / "edgefleet.toml"
    assert (tmp_path / "kept" / "edgefleet.toml").is_file()


def test_the_environment_is_in_place_while_connected_and_restored_after(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "plant-a")
    monkeypatch.delenv(CONFIG_VARIABLE, raising=False)
    with mock("template") as session:
        with session.connect() as fleet:
            assert os.environ[CONFIG_VARIABLE] == str(session.config)
            assert os.environ[PROFILE_VARIABLE] == "mock"
            assert fleet.registry.list() == ()
        assert os.environ[PROFILE_VARIABLE] == "plant-a"
        assert CONFIG_VARIABLE not in os.environ


def test_a_mock_started_again_on_its_folder_goes_on(tmp_path: Path) -> None:
    with mock("template", state=tmp_path) as session, session.connect() as fleet:
        fleet.state.write("doc", b"{}", expect=None)
    with mock("template", state=tmp_path) as session, session.connect() as fleet:
        assert fleet.state.read("doc") is not None


def test_a_mock_without_a_trainer_leaves_the_role_open() -> None:
    with (
        mock("template") as session,
        session.connect() as fleet,
        pytest.raises(ProfileError, match="names no provider for trainer"),
    ):
        fleet.train(__file__)


def test_connecting_by_hand_needs_the_session_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with mock("template") as session:
        for name, value in session.environment.items():
            monkeypatch.setenv(name, value)
        with ef.connect() as fleet:
            assert fleet.profile.name == "mock"
