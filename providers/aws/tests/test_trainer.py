from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgefleet.errors import (
    AccessDeniedError,
    ConfigurationError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    UnsupportedError,
)
from edgefleet.interfaces import script_archive
from edgefleet.interfaces.training import Resources, RunState, TrainingJob
from edgefleet.testing.cloud.rules import Rule
from edgefleet_aws import outputs
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.instances import choose
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.run_log import GROUP
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.trainer import SageMakerTrainer

TIMEOUT_S = 120.0
OFFERED = ("ml.m5.xlarge", "ml.p5.48xlarge", "ml.g5.xlarge")


@pytest.fixture
def trainer(clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
    return SageMakerTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "code" / "train.py"
    path.parent.mkdir()
    path.write_text("print('done')", encoding="utf-8")
    return path


def _count(cloud: AwsMock, operation: str, below: str) -> int:
    lines = [line.split(" ") for line in cloud.seen()]
    return sum(line[1] == f"s3.{operation}" and below in line[2] for line in lines)


def test_the_same_data_are_sent_once(
    cloud: AwsMock,
    trainer: SageMakerTrainer,
    settings: AwsSettings,
    script: Path,
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    (data / "sub").mkdir(parents=True)
    for name in ("a.txt", "sub/b.txt"):
        (data / name).write_text(name)
    for _ in range(2):
        trainer.submit(TrainingJob(script=script, data=data)).wait(timeout_s=TIMEOUT_S)
    assert _count(cloud, "PutObject", f"/{settings.prefix}/training/data/") == 2


def test_data_that_lie_in_s3_are_used_where_they_are(
    trainer: SageMakerTrainer, clients: Clients, settings: AwsSettings, script: Path
) -> None:
    key = f"{settings.prefix}/elsewhere/a.txt"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=b"from afar")
    script.write_text(
        "import os, pathlib\n"
        "print((pathlib.Path(os.environ['EDGEFLEET_DATA_DIR']) / 'a.txt').read_text())"
    )
    job = TrainingJob(script=script, data=f"{settings.root}/elsewhere/")
    assert list(trainer.submit(job).wait(timeout_s=TIMEOUT_S).logs()) == ["from afar"]


def test_the_evidence_tells_what_sagemaker_says(trainer: SageMakerTrainer, script: Path) -> None:
    status = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S).status
    assert status.evidence["secondary_status"] == "Completed"
    assert status.evidence["TrainingJobArn"].endswith(status.id)


def test_what_the_container_says_of_a_failure_is_the_reason(
    trainer: SageMakerTrainer, script: Path
) -> None:
    script.write_text("raise SystemExit(7)")
    run = trainer.submit(TrainingJob(script=script))
    list(run.logs(follow=True))
    status = run.status
    assert status.state is RunState.FAILED
    assert status.reason == "AlgorithmError: the script ended with status 7, exit code: 7"


def test_a_run_over_its_time_names_the_limit(trainer: SageMakerTrainer, script: Path) -> None:
    script.write_text("import threading; threading.Event().wait()")
    run = trainer.submit(TrainingJob(script=script, resources=Resources(max_runtime_s=0.5)))
    list(run.logs(follow=True))
    assert run.status.reason == "ended by SageMaker: MaxRuntimeExceeded = 1 s"


def test_a_log_is_read_from_its_start_again_when_its_tokens_have_ended(
    cloud: AwsMock, trainer: SageMakerTrainer, script: Path
) -> None:
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert (whole := list(run.logs())) == ["done"]
    fault = Fault("InvalidParameterException", "The specified nextToken is invalid.")
    cloud.rules.add(Rule("logs.GetLogEvents", skip=1, fault=fault))
    assert list(run.logs()) == whole
    cloud.rules.add(Rule("logs.GetLogEvents", fault=fault, times=None))
    with pytest.raises(InvalidInputError, match="nextToken"):
        run.metric_history("loss")


def test_a_log_that_somebody_deleted_is_empty(
    clients: Clients, trainer: SageMakerTrainer, script: Path
) -> None:
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["done"]
    logs: Any = clients.logs  # of which more is called here than by what is tested
    streams = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=run.id)
    for stream in streams["logStreams"]:
        logs.delete_log_stream(logGroupName=GROUP, logStreamName=stream["logStreamName"])
    assert list(run.logs()) == []
    logs.delete_log_group(logGroupName=GROUP)
    assert list(run.logs()) == []


def test_spot_training_is_asked_for(
    make_settings: Callable[..., AwsSettings], clients: Clients, script: Path
) -> None:
    settings = make_settings(training_spot=True)
    trainer = SageMakerTrainer(clients, settings, base=script.parent)
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    told = clients.sagemaker.describe_training_job(TrainingJobName=run.id)
    assert told["EnableManagedSpotTraining"]
    assert told["StoppingCondition"]["MaxWaitTimeInSeconds"] == 2 * settings.max_runtime_s


def test_a_spot_run_that_is_interrupted_goes_on_from_its_checkpoint(
    make_settings: Callable[..., AwsSettings], clients: Clients, script: Path, cloud: AwsMock
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
    trainer = SageMakerTrainer(clients, make_settings(training_spot=True), base=script.parent)
    run = trainer.submit(TrainingJob(script=script))
    assert next(run.logs(follow=True)) == "kept"
    cloud.interrupt_training(run.id)
    run.wait(timeout_s=TIMEOUT_S)
    told = clients.sagemaker.describe_training_job(TrainingJobName=run.id)
    steps = [step["Status"] for step in told["SecondaryStatusTransitions"]]
    once = ["Starting", "Downloading", "Training"]
    assert steps == [*once, "Interrupted", *once, "Uploading", "Completed"]
    assert list(run.logs()) == ["kept", "from seven"]


def test_a_run_that_is_no_spot_training_is_never_interrupted(
    trainer: SageMakerTrainer, script: Path, cloud: AwsMock
) -> None:
    script.write_text("from edgefleet import training; print(training.checkpoint_dir())")
    run = trainer.submit(TrainingJob(script=script)).wait(timeout_s=TIMEOUT_S)
    assert list(run.logs()) == ["None"]
    with pytest.raises(ValueError, match="no spot training"):
        cloud.interrupt_training(run.id)


def test_machines_disk_limits_and_whose_it_is_are_asked_for(
    make_settings: Callable[..., AwsSettings], clients: Clients, script: Path
) -> None:
    settings = make_settings(training_volume_gib=77)
    trainer = SageMakerTrainer(clients, settings, base=script.parent)
    resources = Resources(instance="ml.g5.xlarge", count=2, max_runtime_s=99.5)
    run = trainer.submit(TrainingJob(script=script, resources=resources))
    told = clients.sagemaker.describe_training_job(TrainingJobName=run.id)
    machines = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 77}
    assert told["ResourceConfig"] == machines
    assert told["StoppingCondition"] == {"MaxRuntimeInSeconds": 100}
    assert told["RoleArn"] == settings.training_role
    assert told["AlgorithmSpecification"]["TrainingImage"] == settings.training_image
    run.wait(timeout_s=TIMEOUT_S)


def test_data_that_may_not_be_sent_name_the_action(
    cloud: AwsMock, trainer: SageMakerTrainer, script: Path
) -> None:
    cloud.rules.add(Rule("s3.PutObject", fault=Fault("AccessDenied", "no", 403)))
    with pytest.raises(AccessDeniedError, match="s3:PutObject"):
        trainer.submit(TrainingJob(script=script, data=script))
    assert trainer.list() == ()


@pytest.mark.parametrize("missing", ["training_role", "training_image"])
def test_training_without_a_role_or_an_image_names_the_setting(
    missing: str, make_settings: Callable[..., AwsSettings], clients: Clients, script: Path
) -> None:
    trainer = SageMakerTrainer(clients, make_settings(**{missing: None}), base=script.parent)
    with pytest.raises(ConfigurationError, match=missing):
        trainer.submit(TrainingJob(script=script))


@pytest.mark.parametrize(
    "params", [{"x": "y" * 3000}, {"k" * 300: 1}, {f"k{n}": n for n in range(101)}]
)
def test_parameters_that_sagemaker_does_not_take_are_refused(
    params: dict[str, str | int], trainer: SageMakerTrainer, script: Path
) -> None:
    with pytest.raises(LimitExceededError, match="file of the data"):
        trainer.submit(TrainingJob(script=script, params=dict(params)))


# Machines


@pytest.mark.parametrize(
    "wants,machine",
    [
        (Resources(), "ml.m5.xlarge"),
        (Resources(instance="ml.p5.48xlarge"), "ml.p5.48xlarge"),
        (Resources(gpus=1), "ml.g5.xlarge"),
        (Resources(memory_gib=20), "ml.m5.2xlarge"),
        (Resources(gpus=4, memory_gib=200), "ml.g5.24xlarge"),
    ],
)
def test_the_smallest_machine_that_fits_is_chosen(
    wants: Resources, machine: str, settings: AwsSettings
) -> None:
    assert choose(wants, settings, OFFERED) == machine


@pytest.mark.parametrize(
    "wants",
    [
        Resources(instance="ml.nothing.large"),
        Resources(gpus=3),
        Resources(instance="ml.m5.xlarge", gpus=1),
        Resources(instance="ml.p5.48xlarge", gpus=1),
        Resources(count=9),
        Resources(memory_gib=10_000),
    ],
)
def test_a_machine_that_cannot_be_given_is_refused(wants: Resources, settings: AwsSettings) -> None:
    with pytest.raises(UnsupportedError):
        choose(wants, settings, OFFERED)


# The source archive


def test_the_same_files_give_the_same_archive(script: Path) -> None:
    first = script_archive.pack(script.parent)
    os.utime(script, (1, 1))
    assert script_archive.pack(script.parent) == first


def test_hidden_files_caches_and_links_stay_at_home(script: Path, tmp_path: Path) -> None:
    folder = script.parent
    for name in (".env", "__pycache__/train.pyc", "venv/bin/python", "pkg/a.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (folder / "link.py").symlink_to(tmp_path / "secret")
    with tarfile.open(fileobj=io.BytesIO(script_archive.pack(folder))) as archive:
        names = [name for name in archive.getnames() if name.startswith("source/")]
    assert names == ["source/pkg/a.py", "source/train.py"]


def test_a_folder_that_is_too_large_is_refused(
    script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (script.parent / "data.bin").open("wb") as stream:
        stream.truncate(script_archive.MAX_BYTES + 1)
    with pytest.raises(LimitExceededError, match="folder of its own"):
        script_archive.pack(script.parent)


# What comes back


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def _link(name: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, "/etc/passwd"
    return member


@pytest.mark.parametrize(
    "data",
    [
        _archive((tarfile.TarInfo("../up"), b"x")),
        _archive((tarfile.TarInfo("/etc/x"), b"x")),
        _archive((tarfile.TarInfo("a/../../x"), b"x")),
        _archive((_link("a", tarfile.SYMTYPE), b"")),
        _archive((_link("a", tarfile.LNKTYPE), b"")),
        _archive((_link("a", tarfile.FIFOTYPE), b"")),
        _archive((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a"), b"y")),
        _archive((tarfile.TarInfo("a"), b"x"), (tarfile.TarInfo("a/b/c"), b"y")),
        _archive((tarfile.TarInfo("a"), b"x" * 10_000))[:60],
        b"no archive at all",
    ],
    ids=["up", "absolute", "inside-up", "link", "hard", "fifo", "twice", "below", "cut", "none"],
)
def test_an_archive_that_reaches_outside_or_is_damaged_leaves_nothing(
    data: bytes, clients: Clients, settings: AwsSettings, tmp_path: Path
) -> None:
    key = f"{settings.prefix}/model.tar.gz"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=data)
    with pytest.raises(IntegrityError):
        outputs.fetch(clients.s3, f"s3://{settings.bucket}/{key}", tmp_path / "runs" / "one")
    assert list((tmp_path / "runs").iterdir()) == []
    assert not (tmp_path / "up").exists()
