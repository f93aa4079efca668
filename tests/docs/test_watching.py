"""The page about watching a device names every figure there is, and asks for no other."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import yaml

from device_runtime.tests.serving import FakeModel, served, table_of
from edgefleet_runtime.figures import device_families
from edgefleet_runtime.reconciler.machine import State
from edgefleet_runtime.serve.metrics import model_families, process_families
from edgefleet_runtime.sync.sync import SyncState

if TYPE_CHECKING:
    from typing import Any

PAGE = (Path(__file__).parents[2] / "docs/how-to/watch-a-device.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*)\|", re.MULTILINE)
SCRAPE = re.compile(r"<!-- scrape: \w+ -->\n```yaml\n(.*?)```", re.DOTALL)
ASKED = re.compile(r"<!-- ask -->\n```text\n(.*?)```", re.DOTALL)


def told() -> dict[str, tuple[str, set[str]]]:
    """Name -> kind and labels of every family that a device tells."""
    store: Any = SimpleNamespace(used_bytes=lambda: 1, max_bytes=2)
    shelves = {"alarms": 1}
    sync = SimpleNamespace(state=SyncState(why="link", delivered=1.0))
    spool: Any = SimpleNamespace(
        used_bytes=1, max_bytes=2, dropped=0, waiting=shelves, dropped_by_shelf=shelves, sync=sync
    )
    fetcher: Any = SimpleNamespace(bytes_fetched=1)
    state = State(device="cam-07", fleet=None)
    families = (
        *model_families(table_of(served(FakeModel()))),
        *process_families(),
        *device_families(store, spool, fetcher, state, 1.5),
    )
    return {family.name: (family.kind, set(family.samples[0].labels)) for family in families}


def test_the_page_lists_every_figure_with_its_kind_and_labels() -> None:
    listed = {
        name: (kind, {label.strip() for label in labels.split(",") if label.strip()})
        for name, kind, labels in ROW.findall(PAGE)
    }
    assert listed == told()


def test_the_questions_ask_for_figures_that_there_are() -> None:
    [questions] = ASKED.findall(PAGE)
    names = set(re.findall(r"(?:nv|edgefleet|process)_\w+", questions))
    assert names
    assert names <= told().keys()


def test_the_scrape_configurations_are_yaml_with_one_job_each() -> None:
    jobs = [yaml.safe_load(text)["scrape_configs"] for text in SCRAPE.findall(PAGE)]
    assert [[job["job_name"] for job in each] for each in jobs] == [["edgefleet"]] * 2
