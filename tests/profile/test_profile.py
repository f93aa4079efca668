"""Profiles: which file, which profile in it, and what is wrong with it, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import BaseModel, ValidationError, field_validator

from edgefleet.errors import ProfileError
from edgefleet.profile import (
    CONFIG_VARIABLE,
    PROFILE_VARIABLE,
    config_file,
    first_problem,
    load_profile,
    profile_names,
)

if TYPE_CHECKING:
    from pathlib import Path

TWO = """
[profiles.default]
provider = "local"

[profiles.plant-a]
registry = "aws"
trainer = "aws"
telemetry = "gcp"
state = "aws"
deployers = ["kubernetes", "aws"]
require_approval = true

[profiles.plant-a.aws]
bucket = "models"

[profiles.plant-a.recorded]
heartbeat_s = 60
"""


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to stand in, and nothing in the user's own."""
    for variable in (CONFIG_VARIABLE, PROFILE_VARIABLE, "XDG_CONFIG_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    folder = tmp_path / "here" / "below"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def two(nowhere: Path) -> Path:
    """A file with two profiles, in the folder above."""
    path = nowhere.parent / "edgefleet.toml"
    path.write_text(TWO)
    return path


def write(folder: Path, text: str) -> Path:
    path = folder / "edgefleet.toml"
    path.write_text(text)
    return path


# Which file


def test_without_a_file_the_default_profile_is_the_local_provider(nowhere: Path) -> None:
    profile = load_profile()
    assert (profile.name, profile.provider, profile.base) == ("default", "local", nowhere)


def test_without_a_file_there_is_no_other_profile() -> None:
    with pytest.raises(ProfileError, match=r"no profile 'plant-a'.*\n.*edgefleet init"):
        load_profile("plant-a")


def test_a_file_in_a_folder_above_is_found(two: Path) -> None:
    assert config_file() == two
    assert load_profile().base == two.parent
    assert profile_names() == ("default", "plant-a")


def test_the_nearest_file_wins(two: Path, nowhere: Path) -> None:
    nearest = write(nowhere, '[profiles.default]\nprovider = "aws"\n')
    assert config_file() == nearest
    assert load_profile().provider == "aws"


def test_the_variable_names_the_file(
    two: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = write(tmp_path, '[profiles.default]\nprovider = "gcp"\n')
    monkeypatch.setenv(CONFIG_VARIABLE, str(other))
    assert load_profile().provider == "gcp"


def test_a_variable_that_names_no_file_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CONFIG_VARIABLE, str(tmp_path / "missing.toml"))
    with pytest.raises(ProfileError, match=f"{CONFIG_VARIABLE} names .*missing.toml"):
        load_profile()


@pytest.mark.parametrize("variable", ["HOME", "XDG_CONFIG_HOME"])
def test_the_users_own_file_comes_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    place = tmp_path / variable / ("" if variable == "XDG_CONFIG_HOME" else ".config")
    (place / "edgefleet").mkdir(parents=True)
    monkeypatch.setenv(variable, str(tmp_path / variable))
    write(place / "edgefleet", '[profiles.default]\nprovider = "azure"\n')
    assert load_profile().provider == "azure"


# Which profile


def test_the_variable_names_the_profile(two: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROFILE_VARIABLE, "plant-a")
    assert load_profile().name == "plant-a"
    assert load_profile("default").name == "default"


def test_the_only_profile_is_the_default_one(nowhere: Path) -> None:
    write(nowhere, '[profiles.plant-b]\nprovider = "local"\n')
    assert load_profile().name == "plant-b"


def test_a_profile_that_is_not_there_is_named_with_those_that_are(two: Path) -> None:
    with pytest.raises(ProfileError, match=r"no profile 'plant-c'.*\n.*default, plant-a"):
        load_profile("plant-c")


def test_of_several_profiles_one_must_be_named(nowhere: Path) -> None:
    write(nowhere, '[profiles.a]\nprovider = "local"\n[profiles.b]\nprovider = "local"\n')
    with pytest.raises(ProfileError, match="profiles there are: a, b"):
        load_profile()


# What is in it


def test_roles_are_composed_of_several_plugins(two: Path) -> None:
    profile = load_profile("plant-a")
    assert profile.plugins() == ("aws", "gcp", "kubernetes")
    assert profile.provider_of("registry") == "aws"
    assert profile.provider_of("telemetry") == "gcp"
    assert profile.deployer_names() == ("kubernetes", "aws")
    assert profile.settings == {"aws": {"bucket": "models"}}
    assert profile.require_approval
    assert profile.recorded is not None
    assert profile.recorded.heartbeat_s == 60


def test_one_provider_serves_every_role_that_is_not_named(two: Path) -> None:
    profile = load_profile("default")
    assert {profile.provider_of(r) for r in ("registry", "trainer", "telemetry", "state")} == {
        "local"
    }
    assert profile.deployer_names() == ("local",)
    assert not profile.require_approval


def test_a_role_that_nobody_serves_names_the_line_to_add(nowhere: Path) -> None:
    write(nowhere, '[profiles.default]\nregistry = "aws"\n')
    with pytest.raises(ProfileError, match=r'no provider for state\n.*add  state = "…"'):
        load_profile().provider_of("state")


@pytest.mark.parametrize(
    "text, said",
    [
        ("[profiles.default\n", "is no valid TOML"),
        ("", r"has no \[profiles"),
        ("profiles = 5\n", r"has no \[profiles"),
        ("[profiles]\ndefault = 5\n", r"has no \[profiles"),
        ('[profiles.default]\nprovidor = "local"\n', "has no key 'providor'"),
        ("[profiles.default]\nprovider = 5\n", r"\[profiles.default\]: provider: "),
        ('[profiles.default]\nprovider = "local"\ndeployers = "local"\n', "deployers: "),
        (
            '[profiles.default]\nprovider = "local"\n[profiles.default.aws]\nbucket = "x"\n',
            r"\[profiles.default.aws\] belongs to no provider",
        ),
        (
            '[profiles.default]\nprovider = "x"\n[profiles.default.recorded]\nheartbeat_s = 0\n',
            r"\[profiles.default.recorded\]: heartbeat_s: ",
        ),
        ('[profiles.default]\nprovider = "local"\nname = "x"\n', "name"),
        ('[profiles.default]\nprovider = "local"\nbase = "/"\n', "base"),
    ],
)
def test_what_is_wrong_is_told_with_file_and_key(nowhere: Path, text: str, said: str) -> None:
    path = write(nowhere, text)
    with pytest.raises(ProfileError, match=said) as caught:
        load_profile()
    assert str(path) in str(caught.value)
    assert caught.value.cure


def test_what_a_validator_says_is_told_in_its_words_alone() -> None:
    class Settings(BaseModel):
        region: str

        @field_validator("region")
        @classmethod
        def _known(cls, _region: str) -> str:
            msg = "no such region"
            raise ValueError(msg)

    with pytest.raises(ValidationError) as caught:
        Settings(region="mars")
    assert first_problem(caught.value) == "region: no such region"
