"""The page on running a fleet says what there is: its profiles are settings, its fields exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from edgefleet_kubernetes.settings import KubernetesSettings

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "kubernetes.md"
PROFILE = re.compile(r"```toml\n(.*?)```", re.DOTALL)


def test_profiles_on_the_page_are_settings() -> None:
    texts = PROFILE.findall(PAGE.read_text(encoding="utf-8"))
    found = [
        KubernetesSettings(**profile["kubernetes"])
        for text in texts
        for profile in tomllib.loads(text)["profiles"].values()
    ]
    assert [one.delivery for one in found] == ["apply", "git"]
    assert all(one.runtime_image for one in found)


def test_settings_that_the_page_names_exist() -> None:
    named = set(re.findall(r"`([a-z]+_[a-z_]+)`", PAGE.read_text(encoding="utf-8")))
    assert {"host_path", "watch_pointers", "runtime_image"} <= named
    assert named <= set(KubernetesSettings.model_fields)
