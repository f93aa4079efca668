"""Building a profile's services: settings checked, roles composed, groups told apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import edgefleet as ef
from edgefleet.errors import (
    AmbiguousReferenceError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    ProfileError,
    UnsupportedError,
)
from edgefleet.testing.kit import samples

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from edgefleet.fleet import Fleet


def connect(folder: Path, text: str) -> Fleet:
    config = folder / "edgefleet.toml"
    config.write_text(text)
    return ef.connect("test", config=config)


@pytest.mark.parametrize(
    "table, said",
    [
        ("", "root: Field required"),
        ('[profiles.test.template]\nroot = "x"\ncolour = "red"', "colour: there is no such key"),
        ("[profiles.test.template]\nroot = 5", "root: "),
        (
            '[profiles.test.template]\nroot = "x"\nprefix = "Not_legal"',
            "prefix: String should match",
        ),
    ],
    ids=["missing", "unknown", "wrong type", "wrong form"],
)
def test_wrong_settings_name_the_table_and_the_key(tmp_path: Path, table: str, said: str) -> None:
    with connect(tmp_path, f'[profiles.test]\nprovider = "template"\n{table}\n') as fleet:
        with pytest.raises(ProfileError) as caught:
            _ = fleet.registry
        assert f"[profiles.test.template]: {said}" in str(caught.value)
        assert "cure: mend that key" in str(caught.value)


def test_wrong_settings_never_show_the_value_given(tmp_path: Path) -> None:
    table = '[profiles.test.template]\nroot = "x"\nprefix = "S3CRET!"'
    with (
        connect(tmp_path, f'[profiles.test]\nprovider = "template"\n{table}\n') as fleet,
        pytest.raises(ProfileError) as caught,
    ):
        _ = fleet.registry
    assert "S3CRET!" not in str(caught.value)


def test_a_role_that_a_provider_lacks_names_those_it_has(tmp_path: Path) -> None:
    text = '[profiles.test]\nprovider = "template"\n[profiles.test.template]\nroot = "x"\n'
    with (
        connect(tmp_path, text) as fleet,
        pytest.raises(UnsupportedError, match="'template' has no trainer") as caught,
    ):
        _ = fleet.trainer
    assert "deployer, registry, state, telemetry" in str(caught.value)


def test_a_role_that_the_profile_lacks_names_the_line_to_add(tmp_path: Path) -> None:
    text = '[profiles.test]\nregistry = "template"\n[profiles.test.template]\nroot = "x"\n'
    with connect(tmp_path, text) as fleet:
        with pytest.raises(ProfileError, match='add  state = "…"'):
            _ = fleet.state
        with pytest.raises(ProfileError, match="add  deployers = "):
            fleet.groups()


def test_relative_folders_start_at_the_profiles_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = '[profiles.test]\nprovider = "template"\n[profiles.test.template]\nroot = "share"\n'
    monkeypatch.chdir("/")
    with connect(tmp_path, text) as fleet:
        fleet.state.write("doc", b"{}", expect=None)
    assert (tmp_path / "share" / "edgefleet" / "fleet.db").is_file()


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Fleet]:
    """A fleet over two deployers, with a group of the same name on each."""
    text = """
        [profiles.test]
        provider = "template"
        deployers = ["template", "local"]
        [profiles.test.template]
        root = "share"
        [profiles.test.local]
        root = "here"
        supervise = false
    """
    with connect(tmp_path, text) as fleet:
        for device, group in (
            ("a", "template/line-3"),
            ("b", "local/line-3"),
            ("c", "template/yard"),
        ):
            fleet.enroll(device, group=group)
        yield fleet


def test_a_bare_name_that_fits_two_groups_is_ambiguous(two: Fleet, tmp_path: Path) -> None:
    model = two.push(samples.bundle(tmp_path, size=400), "digits", progress=False)
    with pytest.raises(AmbiguousReferenceError, match="template/line-3, local/line-3"):
        two.deploy(model, to="line-3")
    assert two.deploy(model, to="yard").group == "template/yard"
    for group in ("template/line-3", "local/line-3"):
        assert two.deploy(model, to=group).group == group


def test_devices_where_a_group_belongs_are_refused_with_what_to_give(
    two: Fleet, tmp_path: Path
) -> None:
    model = two.push(samples.bundle(tmp_path, size=400), "digits", progress=False)
    for wrong in (["a", "b"], two.devices(), two.groups()[0]):
        for asked in (two.deploy, two.plan):
            with pytest.raises(InvalidInputError, match="names no group") as caught:
                asked(model, to=wrong)  # type: ignore[arg-type]
            assert "give one GROUP or DEPLOYER/GROUP as a text" in str(caught.value)
            assert "fleet.roll_out takes several" in str(caught.value)


def test_what_is_not_pushed_yet_is_no_version_to_deploy(two: Fleet, tmp_path: Path) -> None:
    bundle = samples.bundle(tmp_path, size=400)
    with pytest.raises(InvalidInputError, match="push it first"):
        two.deploy(bundle, to="yard")  # type: ignore[arg-type]


def test_numbers_come_from_one_counter_over_all_deployers(two: Fleet, tmp_path: Path) -> None:
    model = two.push(samples.bundle(tmp_path, size=400), "digits", progress=False)
    numbers = [
        two.deploy(model, to=group).number
        for group in ("template/line-3", "local/line-3", "template/yard")
    ]
    assert numbers == [1, 2, 3]


def test_a_device_in_a_group_of_another_deployer_is_named(two: Fleet) -> None:
    with pytest.raises(ConflictError, match="'a' is in a group of template"):
        two.enroll("a", group="local/line-3")


def test_devices_are_found_whichever_deployer_has_them(two: Fleet) -> None:
    assert [device.name for device in two.devices()] == ["a", "c", "b"]
    assert two.device("b").info.group == "line-3"
    assert [device.name for device in two.devices("local/line-3")] == ["b"]
    with pytest.raises(NotFoundError):
        two.device("d")


def test_devices_are_a_tuple_as_groups_are_and_a_wrong_group_is_told_at_once(two: Fleet) -> None:
    assert len(two.devices()) == 3
    assert two.devices("local/line-3")[0].name == "b"
    with pytest.raises(NotFoundError, match="no group 'nowhere'"):
        two.devices("nowhere")
