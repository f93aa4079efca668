"""What the settings of every provider that is reached over a network refuse and tell."""

from __future__ import annotations

from typing import ClassVar

import pytest
from pydantic import ValidationError

from edgefleet.cli.settings import settings_of
from edgefleet.errors import ProfileError
from edgefleet.plugins.provider import RemoteSettings


class NimbusSettings(RemoteSettings):
    """Settings of a provider.

    Attributes:
        image: what scripts run in.
    """

    provider: ClassVar[str] = "nimbus"
    image: str | None = None


def test_a_setting_that_is_needed_is_named_with_its_table() -> None:
    with pytest.raises(ProfileError, match="training needs the setting 'image'") as told:
        NimbusSettings().needed("image", "training")
    assert told.value.cure == "set `image` in the profile's table [… .nimbus]"
    assert NimbusSettings(image="python:3.11").needed("image", "training") == "python:3.11"


@pytest.mark.parametrize("mirror", ["https://user:secret@cdn.example.com/x", "gopher://cdn/x", ""])
def test_a_mirror_that_is_no_address_for_pointers_is_refused(mirror: str) -> None:
    with pytest.raises(ValidationError, match="mirrors"):
        NimbusSettings(mirrors=("https://cdn.example.com/x", mirror))


@pytest.mark.parametrize("tries", [0, 21])
def test_calls_are_tried_once_to_twenty_times(tries: int) -> None:
    with pytest.raises(ValidationError, match="max_attempts"):
        NimbusSettings(max_attempts=tries)


def test_shared_settings_are_told_and_the_provider_is_none_of_them() -> None:
    found = {setting.name: setting.about for setting in settings_of(NimbusSettings)}
    assert list(found) == ["prefix", "mirrors", "max_attempts", "image"]
    assert all(found.values())
