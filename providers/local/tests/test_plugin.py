from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from edgefleet.errors import UnsupportedError
from edgefleet.plugins import discovery
from edgefleet.plugins.provider import Context, Role
from edgefleet_local.plugin import LocalProvider
from edgefleet_local.settings import LocalSettings

HEAVY = ("numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "edgefleet_runtime")


def _context(base: Path) -> Context:
    return Context(base=base, name="local", state=lambda: None)


def test_the_entry_points_name_it() -> None:
    assert isinstance(discovery.provider("local"), LocalProvider)
    assert discovery.load("local", discovery.MOCKS).name == "local"


@pytest.mark.parametrize("role", list(Role))
def test_every_role_is_served_and_nothing_is_written_for_it(role: Role, tmp_path: Path) -> None:
    provider = LocalProvider()
    assert role in provider.roles
    service = getattr(provider, role.value)(LocalSettings(), _context(tmp_path))
    assert (service.provider, service.role) == ("local", role.value)
    service.close()
    assert list(tmp_path.iterdir()) == []


def test_connecting_imports_nothing_heavy(tmp_path: Path) -> None:
    script = (
        "import edgefleet, json, sys; fleet = edgefleet.connect(); "
        "fleet.registry, fleet.state, fleet.telemetry, fleet.deployers, fleet.trainer; "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, check=True
    )
    loaded = json.loads(done.stdout)
    assert [name for name in HEAVY if name in loaded] == []
    assert list(tmp_path.iterdir()) == []


def test_a_relative_root_starts_where_the_profile_lies(tmp_path: Path) -> None:
    assert LocalSettings().home(tmp_path) == tmp_path / ".edgefleet" / "fleet"
    assert LocalSettings(root=Path("x"), prefix="b").home(tmp_path) == tmp_path / "x" / "b"
    assert LocalSettings(root=tmp_path / "y").home(Path("/base")) == tmp_path / "y" / "fleet"


def test_the_users_home_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    assert LocalSettings(root=Path("~/fleets")).home(Path("/b")) == Path("/home/ada/fleets/fleet")


@pytest.mark.parametrize("wrong", [{"prefix": "../x"}, {"prefix": ""}, {"rooot": "x"}])
def test_wrong_settings_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(ValidationError):
        LocalSettings.model_validate(wrong)


def test_fleets_of_different_prefixes_do_not_meet(tmp_path: Path) -> None:
    provider, context = LocalProvider(), _context(tmp_path)
    one, other = (
        provider.state(LocalSettings(prefix=prefix), context) for prefix in ("one", "other")
    )
    one.write("fleet", b"1", expect=None)
    assert other.read("fleet") is None


def test_windows_is_refused_with_the_cure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(UnsupportedError, match="WSL"):
        LocalProvider().registry(LocalSettings(), _context(tmp_path))
