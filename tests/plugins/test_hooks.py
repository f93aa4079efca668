"""A plugin may veto a deployment before anything is written, and is told after it has happened."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.actor import ACTOR_VARIABLE
from edgefleet.errors import PolicyError, ProviderNotFoundError, VetoedError
from edgefleet.fleet import Fleet
from edgefleet.plugins import discovery
from edgefleet.profile import Profile
from edgefleet.testing.kit import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.plugins.conftest import Install

PLUGIN = """
    from edgefleet.errors import PolicyError
    from edgefleet.plugins.hooks import hookimpl
    from edgefleet_template.plugin import TemplateProvider

    told = []

    class Provider(TemplateProvider):
        name = "strict"

    @hookimpl
    def edgefleet_provider():
        return Provider()

    @hookimpl
    def edgefleet_before_deploy(release, groups, actor):
        versions = {model.version for model in release.models}
        told.append(("before", versions, groups, actor))
        if "2" in versions:
            raise RuntimeError("not during the night shift")
        if "3" in versions:
            raise PolicyError("three is too many")

    @hookimpl
    def edgefleet_after_deploy(deployment, actor):
        told.append(("after", deployment.number, deployment.group, actor))
        raise RuntimeError("the audit log is full")
"""


@pytest.fixture
def fleet(install: Install, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fleet]:
    """A fleet of one group and three versions, with a policy."""
    monkeypatch.setenv(ACTOR_VARIABLE, "ada")
    install("strict", PLUGIN)
    settings = {"strict": {"root": str(tmp_path)}}
    profile = Profile(name="test", base=tmp_path, provider="strict", settings=settings)
    with Fleet(profile) as fleet:
        fleet.enroll("cam-1", group="line-3")
        for seed in range(3):
            fleet.push(samples.bundle(tmp_path, seed, size=400), "digits", progress=False)
        yield fleet


@pytest.fixture
def told(fleet: Fleet) -> list[Any]:
    """What the plugin was told."""
    found: list[Any] = sys.modules["plugin_of_strict_0"].told
    return found


def test_plugins_are_asked_before_and_told_after(fleet: Fleet, told: list[Any]) -> None:
    number = fleet.deploy("digits:1", to="line-3").number
    assert told == [
        ("before", {"1"}, ["strict/line-3"], "ada"),
        ("after", number, "strict/line-3", "ada"),
    ]


def test_a_veto_names_its_reason_and_nothing_is_written(fleet: Fleet, told: list[Any]) -> None:
    documents = list(fleet.state.keys("groups/")), list(fleet.state.keys("fleet/"))
    with pytest.raises(VetoedError, match="not during the night shift"):
        fleet.deploy("digits:2", to="line-3")
    assert [entry[0] for entry in told] == ["before"]
    assert (list(fleet.state.keys("groups/")), list(fleet.state.keys("fleet/"))) == documents
    assert fleet.deployers["strict"].pointer("line-3") is None
    assert fleet.history("line-3") == ()


def test_a_plugins_own_kind_of_refusal_goes_through(fleet: Fleet) -> None:
    with pytest.raises(PolicyError, match="three is too many"):
        fleet.deploy("digits:3", to="line-3")


def test_rolling_back_asks_as_well(fleet: Fleet, told: list[Any]) -> None:
    fleet.deploy("digits:1", to="line-3")
    fleet.rollback("line-3")
    assert [entry[:2] for entry in told if entry[0] == "before"] == [
        ("before", {"1"}),
        ("before", set()),
    ]


def test_a_plan_asks_nobody(fleet: Fleet, told: list[Any]) -> None:
    assert fleet.plan("digits:2", to="line-3").changes
    assert told == []


def test_a_plugin_that_fails_afterwards_is_logged_and_harms_nobody(
    fleet: Fleet, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        fleet.deploy("digits:1", to="line-3")
    assert "plugin strict failed after a deployment" in caplog.text
    assert "the audit log is full" in caplog.text
    assert fleet.group_status("line-3").published


def test_nothing_is_told_where_nothing_changed(fleet: Fleet, told: list[Any]) -> None:
    fleet.deploy("digits:1", to="line-3")
    before = len(told)
    fleet.deploy("digits:1", to="line-3")
    assert len(told) == before


POLICY = """
    from edgefleet.plugins.hooks import hookimpl

    @hookimpl
    def edgefleet_before_deploy(release, groups, actor):
        raise RuntimeError("two people must agree")
"""


def test_a_policy_needs_no_provider(install: Install, tmp_path: Path) -> None:
    install("four-eyes", POLICY, group=discovery.POLICIES)
    install("plain", PLUGIN.replace('"strict"', '"plain"'))
    profile = Profile(
        name="test",
        base=tmp_path,
        provider="plain",
        policies=("four-eyes",),
        settings={"plain": {"root": str(tmp_path)}},
    )
    with Fleet(profile) as fleet:
        fleet.enroll("cam-1", group="line-3")
        fleet.push(samples.bundle(tmp_path, 0, size=400), "digits", progress=False)
        with pytest.raises(VetoedError, match="two people must agree"):
            fleet.deploy("digits:1", to="line-3")


def test_a_policy_that_is_not_installed_is_named(tmp_path: Path) -> None:
    profile = Profile(name="test", base=tmp_path, provider="template", policies=("lost",))
    with pytest.raises(ProviderNotFoundError, match="no policy 'lost' is installed"):
        discovery.manager_of(profile.listeners())
