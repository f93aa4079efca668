"""The page "Write a provider in an hour" shows what the files hold, and its first step works."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import tomllib
from pathlib import Path

import msgspec
import pytest

from edgefleet.interfaces import abilities
from edgefleet.interfaces.requests import reply_of, request_of
from edgefleet.testing.kit import (
    automation,
    blobs,
    deployer,
    device_channel,
    fleet,
    inviting,
    receipts,
    receiving,
    registry,
    state,
    state_service,
    telemetry,
    trainer,
    training_service,
    upgrading,
)
from edgefleet.testing.kit.gaps import Conformance
from edgefleet_runtime.channels import requests
from edgefleet_runtime.channels.discovery import GROUP as CHANNELS
from edgefleet_runtime.channels.requests import Message, answer_to

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "write-a-provider.md").read_text(encoding="utf-8")
EXCERPT = re.compile(r"<!-- from: (\S+) -->\n```\w+\n(.*?)\n```", re.DOTALL)
RUN = re.compile(r"<!-- run: (\w+) -->\n```sh\n(.*?)\n```", re.DOTALL)


def holds(file: Path, excerpt: str) -> bool:
    """Whether a file has these lines in a row, however deep they are indented there."""
    lines, wanted = file.read_text(encoding="utf-8").splitlines(), excerpt.splitlines()
    parts = (lines[start : start + len(wanted)] for start in range(len(lines)))
    return any(textwrap.dedent("\n".join(part)) == excerpt for part in parts)


def test_the_page_has_excerpts() -> None:
    assert len(EXCERPT.findall(PAGE)) > 10


@pytest.mark.parametrize("path, excerpt", EXCERPT.findall(PAGE))
def test_an_excerpt_is_what_the_file_holds(path: str, excerpt: str) -> None:
    assert holds(ROOT / path, excerpt), f"{path} has other lines by now"


def test_the_table_of_suites_names_them_and_their_fixtures() -> None:
    listed = dict(re.findall(r"^\| `(\w+Conformance)` \| (.*) \|$", PAGE, re.MULTILINE))
    trainers = (automation, trainer, training_service)
    of_devices = (
        deployer,
        device_channel,
        fleet,
        inviting,
        receipts,
        receiving,
        telemetry,
        upgrading,
    )
    suites = {
        name: suite
        for module in (*trainers, *of_devices, blobs, registry, state, state_service)
        for name, suite in vars(module).items()
        if isinstance(suite, type) and issubclass(suite, Conformance) and name in listed
    }
    assert suites.keys() == listed.keys()
    assert len(suites) == 15
    for name, fixtures in listed.items():
        for fixture in re.findall(r"`(\w+)`", fixtures):
            known = hasattr(suites[name], fixture) or hasattr(abilities, fixture)
            assert known, f"{name} has no fixture {fixture}"


def test_a_channel_is_named_where_the_runtime_looks() -> None:
    (block,) = [
        text for text in re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL) if "Channel" in text
    ]
    assert tomllib.loads(block)["project"]["entry-points"].keys() == {CHANNELS}


def test_a_request_comes_and_its_answer_goes_by_the_functions_that_the_page_names() -> None:
    sent = json.dumps(request_of("/v2", {"a": "b"}, b"body")).encode()
    message = msgspec.json.decode(sent, type=Message)
    answer = answer_to(message, lambda asked: requests.Reply(200, asked.headers, asked.body or b""))
    assert reply_of("cam-07", msgspec.json.encode(answer)) == (200, {"a": "b"}, b"body")
    for name in ("request_of", "reply_of", "Message", "answer_to"):
        assert f"`{name}`" in PAGE


def test_the_copy_under_another_name_passes_its_suites(tmp_path: Path) -> None:
    (script,) = [text for name, text in RUN.findall(PAGE) if name == "copy"]
    shell = ["sh", "-eu", "-c", script]
    subprocess.run(shell, cwd=tmp_path, env={**os.environ, "EDGEFLEET": str(ROOT)}, check=True)
    copy = tmp_path / "edgefleet-acme"
    left = [path for path in copy.rglob("*") if "template" in path.name.lower()]
    assert left == []
    assert '"edgefleet_acme.plugin"' in (copy / "pyproject.toml").read_text()
    pytest_command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    done = subprocess.run(
        [*pytest_command, "-k", "TestState or TestTelemetry or TestDeployer"],
        cwd=copy,
        env={**os.environ, "PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
