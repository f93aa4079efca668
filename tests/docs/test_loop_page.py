"""The page about the loop: its file is one, its CronJob is one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import kubernetes_validate
import pytest
import yaml
from pydantic import BaseModel

from edgefleet.cli.errors import EXIT_CODES, LOOP_HELD, LOOP_WAITS
from edgefleet.loop.reading import read_spec
from edgefleet.loop.record import STEPS
from edgefleet.loop.spec import LoopSpec

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/how-to/close-the-loop.md").read_text("utf-8")


def block(name: str) -> str:
    [text] = re.findall(rf"<!-- {name} -->\n```yaml\n(.*?)```", PAGE, re.DOTALL)
    found: str = text
    return found


def test_the_file_is_a_loop(tmp_path: Path) -> None:
    (tmp_path / "loop.yaml").write_text(block("loop"))
    (tmp_path / "train.py").write_text("")
    (tmp_path / "frozen.npz").write_bytes(b"")
    assert read_spec(tmp_path / "loop.yaml").model == "digits"


def test_the_file_shows_every_field() -> None:
    left = {"evaluate", "output", "policy", "labels"}  # rare ones, told in the specification
    written = set(re.findall(r"(\w+):", block("loop")))

    def fields(kind: type[BaseModel]) -> set[str]:
        found = set[str]()
        for name, field in kind.model_fields.items():
            found.add(name)
            for part in (field.annotation, *get_args(field.annotation)):
                if isinstance(part, type) and issubclass(part, BaseModel):
                    found |= fields(part) if part.__module__.endswith("loop.spec") else set()
        return found

    assert fields(LoopSpec) - left <= written


def test_the_table_has_every_step() -> None:
    assert tuple(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)) == STEPS


def test_the_exit_codes_are_those_of_the_command() -> None:
    told = {int(code) for code in re.findall(r"^\| (\d) \| ", PAGE, re.MULTILINE)}
    assert told == {0, 1, LOOP_WAITS, LOOP_HELD}
    assert told <= EXIT_CODES.keys()


@pytest.mark.parametrize("version", ["1.31", "1.34", "1.37"])
def test_the_cron_job_is_one(version: str) -> None:
    kubernetes_validate.validate(yaml.safe_load(block("cron job")), version, strict=True)


def test_the_cron_job_mounts_what_it_names() -> None:
    pod = yaml.safe_load(block("cron job"))["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    mounted = {mount["name"] for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["volumes"]}


def test_the_workflow_has_the_parts_that_a_workflow_needs() -> None:
    workflow: dict[Any, Any] = yaml.safe_load(block("workflow"))
    assert {"schedule", "workflow_dispatch"} == workflow[True].keys()  # YAML 1.1 reads `on` so
    [job] = workflow["jobs"].values()
    assert all(("run" in step) != ("uses" in step) for step in job["steps"])
