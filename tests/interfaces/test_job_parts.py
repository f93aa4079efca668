"""What every job is sent with."""

from __future__ import annotations

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest

from edgefleet.errors import LimitExceededError
from edgefleet.interfaces import job_parts, training_entry
from edgefleet.interfaces.training import TrainingJob


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    (tmp_path / "train.py").touch()
    return TrainingJob(script=tmp_path / "train.py", requirements=("torch==2.9.1",))


@pytest.mark.parametrize("name", ["digits", "a.b__c", "9", "x" * 63, "x" * 29 + "-y", "Xavier_NX"])
def test_an_id_suits_every_service_and_begins_with_the_name(name: str) -> None:
    made = job_parts.new_id(name)
    assert re.fullmatch(r"[a-z0-9]+(?:-[a-z0-9]+)*", made)
    assert len(made) <= 53
    assert made.startswith(re.split(r"[^a-z0-9]", name.lower()[:30])[0])


def test_two_ids_of_one_name_differ() -> None:
    assert job_parts.new_id("digits") != job_parts.new_id("digits")


def test_the_files_are_those_that_the_entry_script_reads(job: TrainingJob) -> None:
    order = job_parts.order_of(job.script, job, "digits.csv")
    files = job_parts.files_of(b"packed", order)
    assert files[training_entry.SOURCE] == b"packed"
    assert json.loads(files[training_entry.ORDER]) == {
        "script": "train.py",
        "data": "digits.csv",
        "requirements": ["torch==2.9.1"],
    }
    entry = Path(training_entry.__file__).read_bytes()
    assert len(files.pop(training_entry.ENTRY)) == len(entry)
    assert set(files) == {training_entry.SOURCE, training_entry.ORDER}


def test_a_registering_job_brings_the_versions_that_are_here() -> None:
    order = job_parts.registering_order(Path("register_entry.py"), "edgefleet-local", None)
    assert order["lacking"] == {
        "edgefleet_local": f"edgefleet-local=={version('edgefleet-local')}",
        "onnx": f"edgefleet[onnx]=={version('edgefleet')}",
    }


def test_parameters_that_fit_to_the_byte_are_one_json_object() -> None:
    text = job_parts.params_text({"epochs": 3}, max_bytes=13)
    assert json.loads(text) == {"epochs": 3}
    with pytest.raises(LimitExceededError, match="take 13 bytes, 12 fit"):
        job_parts.params_text({"epochs": 3}, max_bytes=12)
