"""The page on training keeps its word: its files are written as it says, and its lines run."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet.testing.pages import lay_out, printed
from edgefleet_azure.settings import AzureSettings

PAGE = Path(__file__).parents[3] / "docs" / "how-to" / "train-on-azure-ml.md"


@pytest.fixture
def folder(tmp_path: Path, settings: AzureSettings) -> Path:
    """A reader's folder, with a profile for the mock cloud."""
    told = settings.model_dump(mode="json", exclude_none=True)
    lay_out(PAGE, tmp_path, provider="azure", settings=told)
    return tmp_path


def test_a_reader_of_the_page_trains_pushes_and_automates(folder: Path) -> None:
    told = printed("lines.py", folder)
    assert sum(line.startswith("edgefleet-metric") for line in told) == 30
    assert told[-1].endswith("model.onnx")
    passed, *_ = printed("more_lines.py", folder)
    assert passed == "True line:2"
