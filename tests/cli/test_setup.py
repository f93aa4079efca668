"""`init`, `doctor`, `providers`, `install`, `targets`, `completion`, `devices up`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, Field

from edgefleet.cli.init import file_text
from edgefleet.cli.settings import settings_of
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import ProviderSettings
from edgefleet.profile import load_profile
from tests.cli.conftest import Run, RunJson


class Sink(BaseModel):
    """A table."""

    kind: Literal["a"]


class OtherSink(BaseModel):
    """Another."""

    kind: Literal["b"]


class CloudSettings(ProviderSettings):
    """Settings with all that settings may have.

    Attributes:
        bucket: where models lie; must exist, or be one that
            this account may make.
        zones: tried in turn.
    """

    bucket: str
    zones: tuple[str, ...] = ("a", "b")
    retries: int | None = None
    mode: Literal["apply", "git"] = "apply"
    names: tuple[Annotated[str, Field(pattern="^a")], ...] = ()
    labels: dict[str, Annotated[str, Field(pattern="^b")]] | None = None
    sinks: tuple[Annotated[Sink | OtherSink, Field(discriminator="kind")], ...] = ()


def test_init_writes_a_profile_that_loads_and_overwrites_nothing(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    made = run_json("init", "--profile", "plant-a")
    assert made["profile"] == "plant-a"
    assert load_profile("plant-a").plugins() == ("local",)
    assert "overwrite it with --force" in run("init", expect=4).stderr
    run("init", "--force")
    assert load_profile().name == "default"
    assert "no provider 'nimbus'" in run("init", "--provider", "nimbus", expect=3).stderr


def test_settings_are_told_with_type_default_and_meaning() -> None:
    found = {setting.name: setting for setting in settings_of(CloudSettings)}
    assert found["bucket"].required
    assert found["bucket"].about.endswith("must exist, or be one that this account may make.")
    assert (found["zones"].type, found["zones"].default) == ("list of text", ["a", "b"])
    assert found["retries"].type == "number"
    assert found["mode"].type == '"apply" or "git"'
    assert [found[name].type for name in ("names", "labels", "sinks")] == [
        "list of text",
        "table",
        "list of tables",
    ]
    assert "fleets share an account" in found["prefix"].about
    text = file_text("plant", "cloud", CloudSettings)
    assert 'bucket = ""  # fill in: text' in text
    assert '# zones = ["a", "b"]' in text


def states(checks: list[dict[str, Any]], area: str) -> dict[str, str]:
    return {check["name"]: check["state"] for check in checks if check["area"] == area}


def test_doctor_finds_this_machine_in_order(run: Run, run_json: RunJson, tmp_path: Path) -> None:
    found = run_json("doctor")
    assert found["ok"]
    assert states(found["checks"], "provider")["local"] == "ok"
    assert states(found["checks"], "accelerator")["CPUExecutionProvider"] == "ok"
    assert states(found["checks"], "fleet")["registry"] == "ok"
    assert "CPUExecutionProvider" in run("doctor").stdout
    assert not (tmp_path / ".edgefleet").exists()


def test_doctor_knows_the_extras_of_datasets_rules_and_loops(run_json: RunJson) -> None:
    extras = states(run_json("doctor")["checks"], "extra")
    assert {extras[name] for name in ("analysis", "images", "rules", "loop")} == {"ok"}


def test_doctor_tells_what_is_wrong_with_a_profile_and_goes_on(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    (tmp_path / "edgefleet.toml").write_text(
        '[profiles.default]\nprovider = "local"\n[profiles.default.local]\ncolour = "red"\n'
        '[profiles.far]\nprovider = "nimbus"\n'
    )
    found = run_json("doctor", expect=1)
    assert not found["ok"]
    assert states(found["checks"], "profile") == {
        "edgefleet.toml": "ok",
        "default": "error",
        "far": "error",
    }
    said = run("doctor", expect=1).stdout
    assert said.count("mend that key in the profile") == 1, "what shows in many places is told once"
    assert "unknown: [….local]: colour: there is no such key" in run("providers", "local").stdout
    wrong = next(check for check in found["checks"] if check["name"] == "default")
    assert "colour" in wrong["detail"]
    assert "edgefleet providers local" in wrong["cure"]
    assert states(found["checks"], "accelerator")


def test_doctor_refuses_two_builds_of_onnxruntime_together(
    run: Run, run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("onnxruntime", "onnxruntime_gpu"):
        folder = tmp_path / "site" / f"{name}-1.0.0.dist-info"
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = run_json("doctor", expect=1)
    assert states(found["checks"], "distribution")["onnxruntime and onnxruntime-gpu"] == "error"
    assert "pip uninstall --yes onnxruntime onnxruntime-gpu" in run("doctor", expect=1).stdout


def test_doctor_shows_a_plugin_that_fails_to_import(
    run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "site" / "broken_cloud-1.0.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-cloud\nVersion: 1.0\n")
    (folder / "entry_points.txt").write_text("[edgefleet.providers]\nbroken = broken_cloud\n")
    (tmp_path / "site" / "broken_cloud.py").write_text("raise RuntimeError('no luck')\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = run_json("doctor", expect=1)
    seen = states(found["checks"], "provider")
    assert (seen["broken"], seen["local"]) == ("error", "ok")


@pytest.fixture
def fresh_providers() -> Iterator[None]:
    """No provider is remembered from another test, nor by the next."""
    discovery.provider.cache_clear()
    yield
    discovery.provider.cache_clear()
    sys.modules.pop("edgefleet_acme", None)
    sys.modules.pop("acme_clouds", None)


def put(site: Path, name: str, version: str, entry: str, source: str) -> None:
    """Install a distribution with one provider."""
    module = name.replace("-", "_")
    folder = site / f"{module}-{version}.dist-info"
    folder.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    (folder / "METADATA").write_text(about)
    (folder / "entry_points.txt").write_text(f"[edgefleet.providers]\n{entry} = {module}\n")
    (site / f"{module}.py").write_text(source)


PROVIDER = """
from edgefleet.plugins.hooks import hookimpl
from edgefleet.plugins.provider import Provider, ProviderSettings, Role

class Acme(Provider):
    name = "acme"
    roles = frozenset({Role.STATE})
    settings_type = ProviderSettings

    def state(self, settings, context):
        import acme_sdk

@hookimpl
def edgefleet_provider():
    return Acme()
"""


@pytest.mark.usefixtures("fresh_providers")
def test_doctor_lets_a_plugin_have_versions_of_its_own(
    run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "site", "edgefleet-acme", "7.3", "acme", PROVIDER)
    put(tmp_path / "site", "acme-clouds", "8.0", "clouds", PROVIDER)
    monkeypatch.syspath_prepend(tmp_path / "site")
    found = run_json("doctor", expect=1)["checks"]
    checks = {check["name"]: check for check in found if check["area"] == "distribution"}
    for name, version in (("edgefleet-acme", "7.3"), ("acme-clouds", "8.0")):
        assert (checks[name]["state"], checks[name]["detail"]) == ("ok", version)
    assert all("acme" not in (check["cure"] or "") for check in checks.values())
    (wrong,) = [check for check in found if check["name"] == "clouds"]
    assert "calls itself 'acme'" in wrong["detail"]


@pytest.mark.usefixtures("fresh_providers")
def test_providers_tell_why_a_service_cannot_be_built(
    run: Run, run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "site", "edgefleet-acme", "7.3", "acme", PROVIDER)
    monkeypatch.syspath_prepend(tmp_path / "site")
    facts = run_json("providers", "acme")
    assert facts["roles"] == {"state": None}
    assert "No module named 'acme_sdk'" in facts["problems"]["state"]
    assert "needs its settings" not in run("providers", "acme").stdout


STATE = """
        from edgefleet.interfaces.state import StateStore

        class Odd(StateStore):
            provider = "acme"
            _read = _write = _delete = None

            def _keys(self, prefix):
                return None

        return Odd()
"""


@pytest.mark.usefixtures("fresh_providers")
def test_doctor_tells_where_a_provider_breaks(
    run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = PROVIDER.replace("        import acme_sdk\n", STATE.strip("\n") + "\n")
    put(tmp_path / "site", "edgefleet-acme", "7.3", "acme", source)
    monkeypatch.syspath_prepend(tmp_path / "site")
    text = '[profiles.default]\nprovider = "local"\nstate = "acme"\n'
    (tmp_path / "edgefleet.toml").write_text(text)
    found = run_json("doctor", expect=1)["checks"]
    (state,) = [c for c in found if (c["area"], c["name"]) == ("fleet", "state")]
    assert state["detail"].endswith("is not iterable, in state.keys of provider 'acme'")


@pytest.mark.usefixtures("fresh_providers")
def test_of_two_providers_with_one_name_both_origins_are_told(
    run: Run, run_json: RunJson, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "site", "edgefleet-acme", "7.3", "acme", PROVIDER)
    put(tmp_path / "site", "acme-clouds", "8.0", "acme", PROVIDER)
    monkeypatch.syspath_prepend(tmp_path / "site")
    listed = {provider["name"]: provider for provider in run_json("providers")["providers"]}
    assert listed["acme"]["distribution"] == "acme-clouds 8.0 and edgefleet-acme 7.3"
    refused = run("providers", "acme", expect=1).stderr
    assert "cure: keep one: pip uninstall acme-clouds or edgefleet-acme" in refused
    assert states(run_json("doctor", expect=1)["checks"], "provider")["acme"] == "error"


def test_providers_are_listed_and_shown(run: Run, run_json: RunJson) -> None:
    listed = {provider["name"]: provider for provider in run_json("providers")["providers"]}
    assert listed["local"]["mock"]
    shown = run_json("providers", "local")
    assert set(shown["roles"]) == {"registry", "trainer", "deployer", "telemetry", "state"}
    assert "CanEnroll" in shown["roles"]["deployer"]
    assert [setting["name"] for setting in shown["settings"]] == ["prefix", "root", "supervise"]
    assert all(setting["about"] for setting in shown["settings"])
    assert "CanEnroll" in run("providers", "local").stdout
    assert "installed: " in run("providers", "nimbus", expect=3).stderr


def test_there_is_nothing_to_install_on_the_local_provider(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    assert run_json("install")["deployers"] == []
    assert run_json("install", "--dry-run", "--output", "out")["documents"] == []
    assert (tmp_path / "out" / "plan.json").is_file()
    assert "lacks CanInstall" in run("install", "--provider", "local", expect=1).stderr
    assert "deployers there are: local" in run("install", "--provider", "x", expect=3).stderr
    run("install", "--teardown", "--dry-run", expect=2)
    run("install", "--data", expect=2)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_gets_its_completion_script(run: Run, shell: str) -> None:
    assert "_EDGEFLEET_COMPLETE" in run("completion", shell).stdout


def test_the_shell_is_told_commands_and_profiles(run: Run) -> None:
    run("init", "--profile", "plant-a")
    told = {}
    for words in ("edgefleet de", "edgefleet --profile p"):
        done = subprocess.run(
            [sys.executable, "-c", "from edgefleet.cli import main; main()"],
            env={
                **os.environ,
                "_EDGEFLEET_COMPLETE": "bash_complete",
                "COMP_WORDS": words,
                "COMP_CWORD": str(len(words.split()) - 1),
            },
            capture_output=True,
            text=True,
            check=True,
        )
        told[words] = done.stdout.split()
    assert "plain,deploy" in told["edgefleet de"]
    assert told["edgefleet --profile p"] == ["plain,plant-a"]


def test_local_devices_run_until_they_are_stopped(run: Run, run_json: RunJson) -> None:
    run("device", "enroll", "cam-1", "--group", "line")
    with subprocess.Popen(
        [sys.executable, "-m", "edgefleet.cli", "devices", "up"], stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stderr is not None
            assert "running 1 device;" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=90)
            assert process.returncode == 130
        finally:
            process.kill()
    assert run_json("devices")["devices"][0]["evidence"]["process"] == "none"
