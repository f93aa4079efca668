from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgefleet.errors import (
    ConfigurationError,
    IntegrityError,
    LimitExceededError,
    UnavailableError,
    UnsupportedError,
)
from edgefleet.interfaces.training import Resources, RunState, TrainingJob
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.rules import Rule
from edgefleet_azure import outputs
from edgefleet_azure.clients import Clients
from edgefleet_azure.job_request import where
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.trainer import AzureMLTrainer
from edgefleet_azure.workspace import Workspace

TIMEOUT_S = 120.0
FOREVER = "import threading; print('ready', flush=True); threading.Event().wait()"


@pytest.fixture
def trainer(clients: Clients, settings: AzureSettings, tmp_path: Path) -> AzureMLTrainer:
    return AzureMLTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "code" / "train.py"
    path.parent.mkdir()
    path.write_text("print('done')", encoding="utf-8")
    return path


def _sent(cloud: AzureMock, below: str) -> int:
    lines = [line.split(" ") for line in cloud.seen()]
    return sum(line[1].startswith("blob.Put") and below in line[2] for line in lines)


def test_the_same_data_are_sent_once(
    cloud: AzureMock,
    trainer: AzureMLTrainer,
    settings: AzureSettings,
    script: Path,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        (data / name).write_text(name)
    for _ in range(2):
        trainer.submit(TrainingJob(script=script, data=data)).wait(timeout_s=TIMEOUT_S)
    assert _sent(cloud, f"/{settings.prefix}-training/data/") == 2


def test_data_that_lie_in_azure_are_used_where_they_are(
    cloud: AzureMock, trainer: AzureMLTrainer, settings: AzureSettings, script: Path
) -> None:
    script.write_text(
        "import os, pathlib\n"
        "print((pathlib.Path(os.environ['EDGEFLEET_DATA_DIR']) / 'a.txt').read_text())"
    )
    trainer.submit(TrainingJob(script=script, data=script)).cancel()  # makes the datastore
    cloud.ml.storage.write(settings.container("training"), "elsewhere/a.txt", b"from afar")
    address = f"azureml://datastores/{settings.prefix}_training/paths/elsewhere/"
    run = trainer.submit(TrainingJob(script=script, data=address)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["from afar"]


def test_a_run_is_found_again_from_anywhere_by_its_id(
    trainer: AzureMLTrainer, settings: AzureSettings, script: Path, tmp_path: Path
) -> None:
    script.write_text(FOREVER)
    run = trainer.submit(TrainingJob(script=script))
    elsewhere = AzureMLTrainer(Clients(settings), settings, base=tmp_path)
    again = elsewhere.get(run.id)
    assert next(again.logs(follow=True)) == "ready"
    again.cancel()
    elsewhere.close()
    assert list(run.logs(follow=True)) == ["ready"]
    assert run.status.state is RunState.CANCELLED


def test_what_azure_ml_says_of_a_failure_is_the_reason(
    trainer: AzureMLTrainer, script: Path
) -> None:
    script.write_text("raise SystemExit(7)")
    run = trainer.submit(TrainingJob(script=script))
    list(run.logs(follow=True))
    assert run.status.state is RunState.FAILED
    assert "exited with status code 7" in (run.status.reason or "")
    assert run.status.evidence["studio"].startswith("https://ml.azure.com/")


def test_a_run_over_its_time_names_the_limit(trainer: AzureMLTrainer, script: Path) -> None:
    script.write_text(FOREVER)
    run = trainer.submit(TrainingJob(script=script, resources=Resources(max_runtime_s=0.5)))
    list(run.logs(follow=True))
    assert run.status.reason == "ended by Azure ML: over its time, PT1S"


@pytest.mark.parametrize("named", ["azureml:python:3", "azureml:python@latest"])
def test_an_environment_is_named_with_its_version_or_a_label(
    named: str,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    script: Path,
    tmp_path: Path,
) -> None:
    settings = make_settings(environment=named)
    script.write_text("print('here')")
    trainer = AzureMLTrainer(make_clients(settings), settings, base=tmp_path)
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["here"]


def test_a_run_on_spare_capacity_that_is_interrupted_goes_on_from_its_checkpoint(
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    script: Path,
    cloud: AzureMock,
) -> None:
    script.write_text(
        "import threading\n"
        "from edgefleet import training\n"
        "kept = training.checkpoint_dir() / 'step'\n"
        "if kept.exists():\n"
        "    print('from', kept.read_text())\n"
        "else:\n"
        "    kept.write_text('seven')\n"
        "    print('kept', flush=True)\n"
        "    threading.Event().wait()\n"
    )
    settings = make_settings(training_spot=True)
    trainer = AzureMLTrainer(make_clients(settings), settings, base=script.parent)
    run = trainer.submit(TrainingJob(script=script))
    assert next(run.logs(follow=True)) == "kept"
    cloud.ml.jobs.interrupt(run.id)
    run.wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["kept", "from seven"]


def test_a_run_that_is_on_no_spare_capacity_is_never_interrupted(
    trainer: AzureMLTrainer, script: Path, cloud: AzureMock
) -> None:
    script.write_text("from edgefleet import training; print(training.checkpoint_dir())")
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["None"]
    with pytest.raises(ValueError, match="spare machine"):
        cloud.ml.jobs.interrupt(run.id)


def test_several_machines_run_a_process_each_and_the_first_ones_outputs_count(
    trainer: AzureMLTrainer, script: Path
) -> None:
    script.write_text(
        "import os; from edgefleet import training\n"
        "print('rank', os.environ['RANK'], 'of', os.environ['WORLD_SIZE'])\n"
        "(training.output_dir() / f\"{os.environ['RANK']}.txt\").write_text('x')"
    )
    job = TrainingJob(script=script, resources=Resources(count=3))
    run = trainer.submit(job).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["rank 0 of 3"]
    assert [path.name for path in run.outputs.iterdir()] == ["0.txt"]


def test_a_log_whose_address_has_expired_is_asked_for_again(
    cloud: AzureMock, trainer: AzureMLTrainer, script: Path
) -> None:
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["done"]
    storage = cloud.stage.storage
    storage.keys[:] = reversed([key[::-1].strip("=") + "==" for key in storage.keys])
    assert list(run.logs()) == ["done"]


@pytest.mark.parametrize("missing", ["environment", "workspace"])
def test_what_the_profile_lacks_for_training_is_named(
    missing: str, make_settings: Callable[..., AzureSettings], clients: Clients, script: Path
) -> None:
    settings = make_settings(**{missing: None})
    trainer = AzureMLTrainer(clients, settings, base=script.parent)
    with pytest.raises(ConfigurationError, match=missing):
        trainer.submit(TrainingJob(script=script))


def test_parameters_that_are_too_long_are_refused(trainer: AzureMLTrainer, script: Path) -> None:
    with pytest.raises(LimitExceededError, match="file of the data"):
        trainer.submit(TrainingJob(script=script, params={"x": "y" * 20_000}))


def test_a_workspace_that_is_away_is_told_so(
    cloud: AzureMock,
    make_settings: Callable[..., AzureSettings],
    make_clients: Callable[[AzureSettings], Clients],
    script: Path,
) -> None:
    settings = make_settings(max_attempts=1)
    trainer = AzureMLTrainer(make_clients(settings), settings, base=script.parent)
    fault = Refused(503, "ServiceUnavailable", "busy")
    cloud.rules.add(Rule("ml.GetWorkspace", fault=fault, times=None))
    with pytest.raises(UnavailableError):
        trainer.submit(TrainingJob(script=script))


# What a run is given


@pytest.mark.parametrize(
    "wants,size",
    [
        (Resources(), "Standard_DS3_v2"),
        (Resources(instance="Standard_D16s_v3"), "Standard_D16s_v3"),
        (Resources(gpus=1), "Standard_NC4as_T4_v3"),
        (Resources(memory_gib=20), "Standard_D16s_v3"),
        (Resources(gpus=1, memory_gib=200), "Standard_NC24ads_A100_v4"),
    ],
)
def test_serverless_compute_gets_the_smallest_size_that_fits(
    wants: Resources, size: str, clients: Clients, settings: AzureSettings
) -> None:
    found = where(wants, settings, Workspace(clients, settings))
    assert (found.compute, found.size) == (None, size)


def test_the_profiles_compute_runs_what_asks_for_no_other(
    make_settings: Callable[..., AzureSettings], clients: Clients
) -> None:
    settings = make_settings(compute="cpu-cluster")
    workspace = Workspace(clients, settings)
    assert where(Resources(count=4), settings, workspace).compute == "cpu-cluster"
    assert where(Resources(gpus=1), settings, workspace).compute is None


@pytest.mark.parametrize(
    "wants,compute",
    [
        (Resources(instance="Standard_Nothing"), None),
        (Resources(gpus=3), None),
        (Resources(instance="Standard_DS3_v2", gpus=1), None),
        (Resources(count=9), None),
        (Resources(memory_gib=10_000), None),
        (Resources(count=5), "cpu-cluster"),
        (Resources(), "no-such-cluster"),
    ],
)
def test_what_cannot_be_given_is_refused(
    wants: Resources,
    compute: str | None,
    make_settings: Callable[..., AzureSettings],
    clients: Clients,
) -> None:
    settings = make_settings(compute=compute)
    with pytest.raises(UnsupportedError):
        where(wants, settings, Workspace(clients, settings))


# What comes back


@pytest.mark.parametrize("name", ["../up", "a/../../up", "a\\b", "a//b"])
def test_a_blob_that_reaches_outside_leaves_nothing(
    name: str, cloud: AzureMock, clients: Clients, settings: AzureSettings, tmp_path: Path
) -> None:
    cloud.ml.storage.write(settings.container("training"), f"runs/r/output/{name}", b"x")
    container = clients.container("training")
    with pytest.raises(IntegrityError):
        outputs.fetch(container, "runs/r/output/", tmp_path / "runs" / "one")
    assert list((tmp_path / "runs").iterdir()) == []


# What is imported when


def test_microsoft_is_sent_no_telemetry(clients: Clients) -> None:
    assert clients.ml()._operation_config.enable_telemetry is False


def test_naming_the_provider_imports_no_azure_ml() -> None:
    code = (
        "import sys\n"
        "import edgefleet_azure.plugin, edgefleet_azure.trainer, edgefleet_azure.registry\n"
        "assert not [name for name in sys.modules if name.startswith('azure.ai')]\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
