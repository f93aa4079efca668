"""Profiles on pages say what there is: each provider takes the settings of its table.

Blocks of a page that name the same profile add up, as a reader adds them to the file.
"""

from __future__ import annotations

import re
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from edgefleet_azure.settings import AzureSettings
from edgefleet_gateway.settings import GatewaySettings
from edgefleet_gcp.settings import GcpSettings
from edgefleet_kubernetes.settings import KubernetesSettings

ROOT = Path(__file__).parents[2]
SETTINGS: dict[str, type[BaseModel]] = {
    "azure": AzureSettings,
    "gateway": GatewaySettings,
    "gcp": GcpSettings,
    "kubernetes": KubernetesSettings,
}
BLOCK = re.compile(r"^( *)```toml\n(.*?)^ *```", re.DOTALL | re.MULTILINE)
PROFILE = re.compile(r"^\[profiles\.[\w-]+\.(?:" + "|".join(SETTINGS) + r")\]$", re.MULTILINE)


def blocks(page: Path) -> list[str]:
    found = [textwrap.dedent(match[0]) for match in BLOCK.finditer(page.read_text("utf-8"))]
    texts = [text.partition("\n")[2].rpartition("```")[0] for text in found]
    return [text for text in texts if PROFILE.search(text)]


PAGES = {
    str(page.relative_to(ROOT)): page
    for page in (*(ROOT / "docs").rglob("*.md"), *(ROOT / "providers").glob("*/README.md"))
    if blocks(page)
}


def test_profiles_are_found_on_pages() -> None:
    named = {f"docs/how-to/{name}.md" for name in ("azure", "gke", "google-cloud", "kubernetes")}
    assert named <= PAGES.keys()


@pytest.mark.parametrize("name", sorted(PAGES))
def test_settings_on_a_page_are_taken(name: str) -> None:
    tables: dict[tuple[str, str], dict[str, Any]] = {}
    for text in blocks(PAGES[name]):
        for profile, found in tomllib.loads(text)["profiles"].items():
            for provider in SETTINGS.keys() & found.keys():
                tables.setdefault((profile, provider), {}).update(found[provider])
    assert tables
    for (_, provider), table in tables.items():
        SETTINGS[provider].model_validate(table)
