"""Every example runs, as a reader would run it: in a folder of its own, against a mock cloud."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

EXAMPLES = Path(__file__).parents[2] / "examples"
# Examples of a cloud find their devices there, and run against its mock alone.
CLOUDS = ("aws", "azure", "kubernetes")
MOCKS = {
    "kubernetes": "kubernetes,gcp",
    "gcp": "gcp,local",
    "gcp_artifacts.py": "gcp,kubernetes",
    "gateway": "gateway,local",
}
"""Where several stand around an example of a cloud, or one example; the first that serves a role
has it."""
OF_MOCK = {"plain": "gateway"}
"""Whose mock an example runs against, by its name's first word, where that isn't the mock's."""
SETS = (*CLOUDS, *OF_MOCK, "gcp", "vessel")  # the vessel has a test of its own, which sails it once
MOCKED = tuple(entry.name for entry in entry_points(group="edgefleet.mocks"))


def cloud_of(name: str) -> str:
    """Whose mock an example needs."""
    first = name.partition("_")[0]
    return OF_MOCK.get(first, first)


SCRIPTS = sorted(
    path.name
    for path in EXAMPLES.glob("*.py")
    if "connect(" in path.read_text() and not path.name.startswith(SETS)
)
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb") if not path.name.startswith(SETS))
ON_CLOUDS = sorted(
    path.name
    for path in EXAMPLES.glob("*")
    if path.name.startswith(SETS)
    and cloud_of(path.name) in MOCKED
    and path.suffix in {".py", ".ipynb"}
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A reader's folder with the examples in it and no configuration around."""
    for path in EXAMPLES.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    return tmp_path


def environment(folder: Path) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith("EDGEFLEET_")}
    return {**kept, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}


def test_there_are_examples() -> None:
    assert "quickstart.py" in SCRIPTS
    assert NOTEBOOKS
    for cloud in CLOUDS:
        names = {
            f"{cloud}_{name}" for name in ("first_fleet.py", "retrain.py", "first_fleet.ipynb")
        }
        assert names <= set(ON_CLOUDS)
    assert {"gcp_artifacts.py", "gcp_first_fleet.py", "plain_linux_fleet.py"} <= set(ON_CLOUDS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_on_the_embedded_fleet(name: str, folder: Path) -> None:
    subprocess.run([sys.executable, name], cwd=folder, env=environment(folder), check=True)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_runs_unchanged_against_a_mock(name: str, folder: Path) -> None:
    command = [sys.executable, "-m", "edgefleet.cli", "mock", "local", "--", sys.executable, name]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)


@pytest.mark.parametrize("name", ON_CLOUDS)
def test_example_of_a_cloud_runs_against_its_mock(name: str, folder: Path) -> None:
    cloud = cloud_of(name)
    script = [sys.executable, name]
    if name.endswith(".ipynb"):
        script = ["jupyter-execute", "--timeout=300", name]
    against(MOCKS.get(name, MOCKS.get(cloud, cloud)), script, folder)


def test_plain_devices_take_what_a_cloud_keeps(folder: Path) -> None:
    against("gateway,aws", [sys.executable, "plain_linux_fleet.py"], folder)


def against(mocks: str, script: list[str], folder: Path) -> None:
    """Run a script against mocks with two devices."""
    mock = ["mock", mocks, "--devices", "2", "--group", "line-3", "--", *script]
    command = [sys.executable, "-m", "edgefleet.cli", *mock]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_runs(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key, value in environment(folder).items():
        monkeypatch.setenv(key, value)
    notebook = nbformat.read(folder / name, as_version=4)  # type: ignore[no-untyped-call]
    NotebookClient(
        notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": folder}}
    ).execute()
    shown = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if output.get("data", {}).get("text/html")
    ]
    assert len(shown) >= 4, "versions, plans and statuses show themselves as tables"
