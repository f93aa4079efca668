"""The command line over the mock: install, enrol, deploy's dry run, doctor, teardown, git."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from edgefleet.cli.app import cli
from edgefleet.interfaces.state import StateStore
from providers.kubernetes.tests.deployer_rig import IMAGE, Rig

Run = Callable[..., str]


@pytest.fixture
def rig(tmp_path: Path, state: Callable[[], StateStore]) -> Iterator[Rig]:
    made = Rig(tmp_path / "cloud", state)
    yield made
    made.close()


@pytest.fixture
def run(rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command line with a profile; gives what it printed."""
    config = tmp_path / "edgefleet.toml"
    monkeypatch.setenv("EDGEFLEET_CONFIG", str(config))
    monkeypatch.setenv("KUBECONFIG", str(rig.cloud.kubeconfig))

    def run(*arguments: str, expect: int = 0, **settings: object) -> str:
        told = {"runtime_image": IMAGE, "max_attempts": 2, **settings}
        lines = [f"{key} = {json.dumps(value)}" for key, value in told.items()]
        profile = [
            "[profiles.plant]",
            'registry = "local"',
            'state = "kubernetes"',
            'deployers = ["kubernetes"]',
            "[profiles.plant.kubernetes]",
            *lines,
        ]
        config.write_text("\n".join(profile) + "\n", encoding="utf-8")
        result = CliRunner().invoke(cli, [*arguments, "--profile", "plant"])
        assert result.exit_code == expect, result.output
        return result.stdout

    return run


def test_a_dry_run_writes_manifests_and_installing_puts_them_in_place(
    run: Run, rig: Rig, tmp_path: Path
) -> None:
    before = rig.versions()
    target = tmp_path / "out"
    options = ("--provider", "kubernetes", "--group", "line-3")
    run("install", *options, "--dry-run", "--output", str(target))
    assert rig.versions() == before
    documents = [yaml.safe_load(one.read_bytes()) for one in target.rglob("objects/*.yaml")]
    assert {"DaemonSet", "Role"} <= {one["kind"] for one in documents}
    run("install", *options)
    for document in documents:
        metadata = document["metadata"]
        rig.store().get(document["kind"], metadata["name"], metadata.get("namespace") or "")
    plan = json.loads((target / "plan.json").read_text())
    assert {one["action"] for one in plan["documents"]} == {"create"}


def test_a_node_is_enrolled_listed_and_explained(run: Run) -> None:
    run("install", "--provider", "kubernetes")
    run("device", "enroll", "a", "--group", "line-3", "--label", "target=x86-cpu")
    (listed,) = json.loads(run("devices", "--json"))["devices"]
    assert (listed["name"], listed["group"]) == ("a", "line-3")
    told = run("why", "a")
    assert "no pod of DaemonSet edgefleet-runtime-line-3" in told
    assert "evidence  cloud: node: Ready" in told


def test_doctor_asks_for_every_permission(run: Run) -> None:
    run("install", "--provider", "kubernetes")
    assert "patch nodes in the cluster" in run("doctor", "--json")


def test_a_teardown_takes_roles_along(run: Run, rig: Rig) -> None:
    run("install", "--provider", "kubernetes", "--group", "line-3")
    run("install", "--provider", "kubernetes", "--teardown", "--yes")
    assert not rig.store().list("DaemonSet", "edgefleet")
    assert not rig.store().list("Role", "edgefleet")


def test_a_profile_delivers_through_git(run: Run, tmp_path: Path) -> None:
    site = {"delivery": "git", "git_dir": "site"}
    run("install", "--provider", "kubernetes", "--group", "line-3", **site)
    listing = yaml.safe_load((tmp_path / "site" / "kustomization.yaml").read_bytes())
    assert any("daemonset" in path for path in listing["resources"])
    assert "line-3" in run("status", **site)
