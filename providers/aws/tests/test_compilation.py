"""SageMaker Neo: jobs, refusals, and what becomes of the file that a job made."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import boto3
import numpy as np
import onnx
import pytest
from botocore.exceptions import ClientError
from onnx import TensorProto, helper

import edgefleet
from edgefleet.errors import (
    CancelledError,
    ConfigurationError,
    InvalidInputError,
    NotFoundError,
    TrainingFailedError,
    UnsupportedError,
)
from edgefleet.interfaces.compilation import CompilationJob, CompilationRun
from edgefleet.interfaces.training import RunState
from edgefleet.optimization.adding import add_variant
from edgefleet.optimization.packaging import bundle_from_onnx
from edgefleet.protocol.target import BUILTIN, HardwareTarget, choose_variant
from edgefleet.testing.cloud.rules import Rule
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.compilation import NOTE
from edgefleet_aws.cloud.strictness import release
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.permissions import OPERATOR
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.trainer import SageMakerTrainer

TIMEOUT_S = 120.0


@pytest.fixture
def trainer(clients: Clients, settings: AwsSettings, tmp_path: Path) -> SageMakerTrainer:
    return SageMakerTrainer(clients, settings, base=tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Callable[..., Path]:
    """Makes an ONNX file that adds a constant."""

    def make(opset: int = 12, rows: int | str = 1) -> Path:
        shape = [rows, 2]
        graph = helper.make_graph(
            [helper.make_node("Add", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
            [helper.make_tensor("w", TensorProto.FLOAT, [2], [0.5, 0.0])],
        )
        made = helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7
        )
        onnx.save(made, tmp_path / "model.onnx")
        return tmp_path / "model.onnx"

    return make


def job(model: Path, *, device: str = "rasp4b", opset: int = 12, **more: object) -> CompilationJob:
    shapes = more.pop("shapes", {"x": (1, 2)})
    return CompilationJob.model_validate(
        {"model": model, "opset": opset, "shapes": shapes, "device": device, **more}
    )


def test_a_compilation_ends_with_an_archive_that_the_mock_says_is_not_compiled(
    trainer: SageMakerTrainer, model: Callable[..., Path]
) -> None:
    path = model()
    run = trainer.compile(job(path)).wait(timeout_s=TIMEOUT_S)
    with tarfile.open(run.file) as archive:
        assert archive.getnames() == ["model.onnx", NOTE]
        content = archive.extractfile("model.onnx")
        assert content is not None
        assert content.read() == path.read_bytes()
    assert (run.status.device, run.status.format) == ("rasp4b", "neo")


def test_what_was_made_is_one_more_variant_for_targets_whose_engine_opens_it(
    trainer: SageMakerTrainer, model: Callable[..., Path], tmp_path: Path
) -> None:
    path = model()
    inputs = np.zeros((1, 2), dtype=np.float32)
    plain = bundle_from_onnx(path, tmp_path / "plain", name="m", self_test_inputs=inputs)
    run = trainer.compile(job(path)).wait(timeout_s=TIMEOUT_S)
    more = add_variant(
        plain,
        run.file,
        tmp_path / "more",
        model="m",
        target="neo-box",
        model_format=run.status.format,
    )
    more.verify()
    box = HardwareTarget(
        name="neo-box", about="", arch="aarch64", precisions=("fp32",), formats=("neo", "onnx")
    )
    assert choose_variant(more.variants, box).variant.name == "neo-box-neo"
    for other in BUILTIN:
        if "fp32" in other.precisions and "onnx" in other.formats:
            assert choose_variant(more.variants, other).variant.name == "fp32"
    added = more.details("neo-box-neo")
    assert added.self_test == plain.details("fp32").self_test
    assert (added.metrics, added.lineage["added_to"]) == ({}, plain.digest)


def test_options_of_the_compiler_and_the_limit_are_passed_on(
    trainer: SageMakerTrainer, model: Callable[..., Path], clients: Clients
) -> None:
    options = {"gpu-code": "sm_53", "trt-ver": "5.0.6", "cuda-ver": "10.0"}
    run = trainer.compile(
        job(model(), device="jetson_nano", options=options, max_runtime_s=120.5)
    ).wait(timeout_s=TIMEOUT_S)
    told = clients.get("sagemaker").describe_compilation_job(CompilationJobName=run.id)  # type: ignore[attr-defined]
    assert json.loads(told["OutputConfig"]["CompilerOptions"]) == options
    assert told["StoppingCondition"] == {"MaxRuntimeInSeconds": 121}


@pytest.mark.parametrize("device", ["ml_c5", "lambda", "deeplens", "jetson_orin", ""])
def test_a_device_that_neo_does_not_take_is_refused_with_those_it_takes(
    device: str, trainer: SageMakerTrainer, model: Callable[..., Path], cloud: AwsMock
) -> None:
    start = len(list(cloud.seen()))
    with pytest.raises(UnsupportedError, match="jetson_xavier"):
        trainer.compile(job(model(), device=device))
    assert list(cloud.seen())[start:] == []


def test_a_newer_opset_than_that_of_onnx_1_7_is_refused(
    trainer: SageMakerTrainer, model: Callable[..., Path]
) -> None:
    with pytest.raises(UnsupportedError, match="opset 12"):
        trainer.compile(job(model(13), opset=13))


@pytest.mark.parametrize(
    "opset,shapes,reason",
    [(13, {"x": (1, 2)}, "opset 13"), (12, {"z": (1, 2)}, "DataInputConfig")],
)
def test_what_neo_cannot_compile_fails_with_its_reason(
    opset: int,
    shapes: dict[str, tuple[int, ...]],
    reason: str,
    trainer: SageMakerTrainer,
    model: Callable[..., Path],
) -> None:
    run = trainer.compile(job(model(opset), shapes=shapes))
    with pytest.raises(TrainingFailedError, match=reason):
        run.wait(timeout_s=TIMEOUT_S)
    with pytest.raises(TrainingFailedError, match="made no file"):
        _ = run.file


def test_a_compilation_that_is_stopped_is_cancelled(
    trainer: SageMakerTrainer, model: Callable[..., Path], cloud: AwsMock
) -> None:
    through = threading.Event()
    cloud.rules.add(Rule("s3.GetObject", hold=through))
    run = trainer.compile(job(model()))
    run.cancel()
    through.set()
    with pytest.raises(CancelledError):
        run.wait(timeout_s=TIMEOUT_S)
    run.cancel()
    assert run.status.state is RunState.CANCELLED


def test_an_answer_that_was_lost_makes_no_second_compilation(
    trainer: SageMakerTrainer, model: Callable[..., Path], cloud: AwsMock
) -> None:
    cloud.rules.add(Rule("sagemaker.CreateCompilationJob", cut_answer_at=0))
    run = trainer.compile(job(model())).wait(timeout_s=TIMEOUT_S)
    assert run.status.state is RunState.SUCCEEDED


def test_a_compilation_of_another_fleet_is_not_this_ones(
    trainer: SageMakerTrainer,
    make_settings: Callable[..., AwsSettings],
    clients: Clients,
    model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    other = SageMakerTrainer(clients, make_settings(), base=tmp_path)
    run = other.compile(job(model())).wait(timeout_s=TIMEOUT_S)
    with pytest.raises(NotFoundError):
        trainer.compilation_status(run.id)


def test_compiling_without_a_role_names_the_setting(
    make_settings: Callable[..., AwsSettings],
    clients: Clients,
    model: Callable[..., Path],
    tmp_path: Path,
) -> None:
    trainer = SageMakerTrainer(clients, make_settings(training_role=None), base=tmp_path)
    with pytest.raises(ConfigurationError, match="training_role"):
        trainer.compile(job(model()))


def test_operators_are_told_the_calls_that_compiling_makes_and_no_more(
    trainer: SageMakerTrainer,
    model: Callable[..., Path],
    cloud: AwsMock,
    called: Callable[[], set[str]],
) -> None:
    through = threading.Event()
    cloud.rules.add(Rule("s3.GetObject", hold=through))
    trainer.compile(job(model())).cancel()
    through.set()
    assert trainer.compile(job(model())).wait(timeout_s=TIMEOUT_S).file.is_file()
    assert called() == set(OPERATOR["compiling"])


# The fleet's own call


@pytest.fixture
def fleet(settings: AwsSettings, tmp_path: Path) -> edgefleet.Fleet:
    told = settings.model_dump(mode="json", exclude_none=True)
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in told.items())
    text = f'[profiles.p]\nprovider = "aws"\n[profiles.p.aws]\n{table}'
    (tmp_path / "edgefleet.toml").write_text(text, encoding="utf-8")
    return edgefleet.connect("p", config=tmp_path / "edgefleet.toml")


def test_a_fleet_compiles_a_file_and_asks_for_shapes_that_it_leaves_open(
    fleet: edgefleet.Fleet, model: Callable[..., Path]
) -> None:
    with fleet:
        path = model(rows="n")
        with pytest.raises(InvalidInputError, match="give its whole shape"):
            fleet.compile(path, device="rasp4b")
        with pytest.raises(InvalidInputError, match="no input z"):
            fleet.compile(path, device="rasp4b", shapes={"z": [1]})
        run = fleet.compile(path, device="rasp4b", shapes={"x": [4, 2]}).wait(timeout_s=TIMEOUT_S)
        assert run.file.is_file()


# What the mock refuses, as SageMaker does


@pytest.mark.parametrize(
    "inputs,output,word",
    [
        ({"S3Uri": "s3://b/model.onnx"}, {}, "tar.gz"),
        ({}, {"TargetPlatform": {"Os": "LINUX", "Arch": "ARM64"}}, "TargetPlatform"),
        ({"Framework": "CAFFE"}, {}, "Framework"),
        ({}, {"TargetDevice": "toaster"}, "TargetDevice"),
    ],
)
def test_a_job_that_is_not_asked_for_as_neo_takes_it_is_refused(
    inputs: dict[str, object], output: dict[str, object], word: str, cloud: AwsMock
) -> None:
    raw = boto3.client("sagemaker")
    release(raw)  # the mock itself is to refuse
    request = {
        "CompilationJobName": "x",
        "RoleArn": "arn:aws:iam::123456789012:role/x",
        "InputConfig": {"S3Uri": "s3://b/m.tar.gz", "Framework": "ONNX", **inputs},
        "OutputConfig": {"S3OutputLocation": "s3://b/o", "TargetDevice": "rasp4b", **output},
        "StoppingCondition": {"MaxRuntimeInSeconds": 900},
    }
    with pytest.raises(ClientError, match=word):
        raw.create_compilation_job(**request)


def test_an_archive_of_two_files_fails_the_job(
    trainer: SageMakerTrainer, clients: Clients, settings: AwsSettings
) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name in ("a.onnx", "b.onnx"):
            archive.addfile(tarfile.TarInfo(name))
    key = f"{settings.prefix}/two.tar.gz"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=packed.getvalue())
    name = f"two-{trainer._fleet}"
    clients.sagemaker.create_compilation_job(
        CompilationJobName=name,
        RoleArn=settings.training_role,
        InputConfig={"S3Uri": f"s3://{settings.bucket}/{key}", "Framework": "ONNX"},
        OutputConfig={"S3OutputLocation": f"{settings.root}/o", "TargetDevice": "rasp4b"},
        StoppingCondition={"MaxRuntimeInSeconds": 900},
    )
    with pytest.raises(TrainingFailedError, match="one model file"):
        CompilationRun(trainer, name).wait(timeout_s=TIMEOUT_S)
