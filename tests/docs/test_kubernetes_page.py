"""The page about Kubernetes: its DaemonSet is one, and its options are the channel's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from edgefleet_runtime.access_options import access_settings
from edgefleet_runtime.channels.kubernetes.settings import OPTIONS, read_settings
from edgefleet_runtime.cli import _parser
from edgefleet_runtime.commands.common import pairs

PAGE = (Path(__file__).parents[2] / "docs/how-to/run-under-kubernetes.md").read_text("utf-8")
EXAMPLE = re.compile(r"<!-- daemon set -->\n```yaml\n(.*?)```", re.DOTALL)
TABLE = re.compile(r"<!-- options -->\n(.*?)\n\n", re.DOTALL)
ROW = re.compile(r"^\| `(\w+)` \| (.*) \|$", re.MULTILINE)


@pytest.fixture
def example() -> dict[str, Any]:
    [text] = EXAMPLE.findall(PAGE)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_the_daemon_set_is_one(example: dict[str, Any], version: str) -> None:
    kubernetes_validate.validate(example, version, strict=True)
    labels = example["spec"]["template"]["metadata"]["labels"]
    assert example["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_runtime_takes_its_arguments_and_finds_its_files(example: dict[str, Any]) -> None:
    pod = example["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    given = _parser("run").parse_args(container["args"])
    settings = read_settings(pairs(given.option, "-o"))
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts.keys() == {volume["name"] for volume in pod["volumes"]}
    assert (settings.pointer.parent, settings.token) == (
        Path(mounts["pointer"]),
        Path(mounts["cluster"]),
    )
    assert settings.registry_credentials is not None
    assert settings.registry_credentials.parent == Path(mounts["registry"])
    assert Path(str(access_settings(given)["token_file"])).parent == Path(mounts["serving"])
    assert str(given.root) == mounts["store"]


def test_the_table_of_options_is_the_channels() -> None:
    [table] = TABLE.findall(PAGE)
    assert dict(ROW.findall(table)) == OPTIONS
