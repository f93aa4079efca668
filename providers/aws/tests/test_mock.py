from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.mock import mock
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.strictness import (
    ModelError,
    check_answer,
    compiled,
    release,
    service_model,
)
from edgefleet_aws.mock import AwsMock
from edgefleet_aws.settings import AwsSettings

GROUP = {"ModelPackageGroupName": "letters"}


@pytest.fixture
def unchecked(cloud: AwsMock) -> Any:
    """A SageMaker client without checks of our own: what the cloud itself refuses."""
    from botocore.config import Config

    client = boto3.client("sagemaker", config=Config(parameter_validation=False))
    release(client)
    yield client
    client.close()


def _refused(call: Any, **request: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**request)
    return str(caught.value.response["Error"]["Code"])


def test_it_starts_and_stops_twice_and_leaves_nothing(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    cloud = AwsMock(tmp_path)
    cloud.start()
    cloud.start()
    address = cloud.environment["AWS_ENDPOINT_URL"]
    cloud.stop()
    cloud.stop()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address)
    assert {t.name for t in set(threading.enumerate()) - before if t.name == "mock-aws"} == set()


def test_stopping_it_ends_training_jobs(tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "train.py").write_text(
        "import os, threading; print(os.getpid(), flush=True); threading.Event().wait()"
    )
    with mock("aws", "local", state=tmp_path / "state") as session:
        with session.connect() as fleet:
            run = fleet.train(code / "train.py")
            pid = int(next(iter(run.logs(follow=True))))
        assert Path(f"/proc/{pid}").exists() or sys.platform != "linux"
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_script_runs_unchanged_against_it(tmp_path: Path) -> None:
    script = "import edgefleet; print(edgefleet.connect().registry.list())"
    with mock("aws", "local") as session:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, **session.environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "()\n"


def test_the_operators_own_configuration_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with mock("aws", "local", state=tmp_path / "state") as session, session.connect() as fleet:
        assert fleet.registry.list() == ()


def test_it_tells_what_it_saw(cloud: AwsMock, clients: Clients, settings: AwsSettings) -> None:
    clients.s3.put_object(Bucket=settings.bucket, Key=f"{settings.prefix}/x", Body=b"")
    last = list(cloud.seen())[-1].split(" ", 1)[1]
    assert last == f"s3.PutObject /{settings.bucket}/{settings.prefix}/x 200"


def test_a_mirror_gives_blobs_and_nothing_else(
    cloud: AwsMock, clients: Clients, settings: AwsSettings
) -> None:
    mirror = f"{cloud.environment['AWS_ENDPOINT_URL']}/{settings.bucket}/{settings.prefix}"
    for key in ("blobs/sha256/ab", "state/fleet"):
        place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/{key}"}
        clients.s3.put_object(**place, Body=b"x")
    with urllib.request.urlopen(f"{mirror}/blobs/sha256/ab") as reply:
        assert reply.read() == b"x"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"{mirror}/state/fleet")


# What AWS refuses


@pytest.mark.parametrize(
    "request_",
    [
        {},
        {"ModelPackageGroupName": "under_score"},
        {"ModelPackageGroupName": "x" * 64},
        {"ModelPackageGroupName": 7},
        {**GROUP, "ModelPackageGroupDescription": "x" * 1025},
        {**GROUP, "Tags": [{"Key": "k", "Value": "v"}] * 51},
    ],
    ids=["missing", "pattern", "max", "type", "long", "many"],
)
def test_a_request_that_is_not_as_the_model_says_is_refused(
    request_: dict[str, Any], unchecked: Any
) -> None:
    assert _refused(unchecked.create_model_package_group, **request_) == "ValidationException"


def test_a_wrong_enum_is_refused(unchecked: Any) -> None:
    request = {"ModelPackageGroupName": "g", "ModelApprovalStatus": "Fine"}
    assert _refused(unchecked.create_model_package, **request) == "ValidationException"


def test_clients_of_the_tests_refuse_before_they_send(cloud: AwsMock, clients: Clients) -> None:
    before = len(list(cloud.seen()))
    with pytest.raises(ModelError, match="ModelPackageGroupName"):
        clients.sagemaker.create_model_package_group(ModelPackageGroupName="under_score")
    assert len(list(cloud.seen())) == before


def test_clients_of_a_fleet_on_the_mock_are_held_to_the_model_too(tmp_path: Path) -> None:
    with mock("aws", state=tmp_path) as session, session.connect():
        s3 = boto3.session.Session().client(
            "s3", endpoint_url=session.environment["AWS_ENDPOINT_URL"]
        )
        with pytest.raises(ModelError, match="StorageClass"):
            s3.put_object(Bucket="b", Key="k", Body=b"", StorageClass="SHELF")
        s3.close()


@pytest.mark.parametrize(
    "name,request_",
    [
        ("create_thing", {"thingName": "with space"}),
        ("create_thing_group", {"thingGroupName": "x" * 129}),
        ("create_job", {"jobId": "j", "targets": ["t"], "targetSelection": "SOMETIMES"}),
    ],
    ids=["pattern", "max", "enum"],
)
def test_iot_core_refuses_what_the_model_refuses(
    name: str, request_: dict[str, Any], cloud: AwsMock
) -> None:
    client = boto3.client("iot")
    release(client)
    assert _refused(getattr(client, name), **request_) == "InvalidRequestException"
    client.close()


def test_an_answer_that_is_not_as_the_model_says_is_found() -> None:
    operation = service_model("sagemaker").operation_model("DescribeModelPackage")
    with pytest.raises(ModelError, match="ModelPackageStatus"):
        check_answer(operation, {"ModelPackageName": "x"})


@pytest.mark.parametrize("service", ["sagemaker", "s3", "logs", "iot", "iot-data", "greengrassv2"])
def test_every_pattern_of_a_service_can_be_checked(service: str) -> None:
    model = service_model(service)
    patterns = {model.shape_for(name).metadata.get("pattern") for name in model.shape_names}
    for pattern in patterns - {None}:
        compiled(pattern)


@pytest.mark.parametrize(
    "pattern,fits,fails",
    [
        (r"[\p{Upper}\p{Digit}_]+", "A_1", "a"),
        (r"[\p{L}\p{M}\p{Z}\p{S}\p{N}\p{P}]*", "H\u00e4llo, w\u00f6rld: 3 \u2192 4", "a\nb"),
        (r"([\p{L}\p{Z}\p{N}_.:\/=+\-@]*)${1,128}", "a: b=c@d", "a{b}"),
        (r"[\w-_]*", "a-b_c", "a.b"),
        (r"[a-z]+", "abc", "abc\n"),
    ],
)
def test_a_pattern_means_what_it_means_in_java(pattern: str, fits: str, fails: str) -> None:
    assert compiled(pattern).fullmatch(fits)
    assert not compiled(pattern).fullmatch(fails)


def test_completing_an_upload_without_its_checksums_is_refused(
    clients: Clients, settings: AwsSettings
) -> None:
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/x"}
    upload = clients.s3.create_multipart_upload(**place, ChecksumAlgorithm="SHA256")["UploadId"]
    request = {**place, "UploadId": upload}
    part = clients.s3.upload_part(**request, PartNumber=1, Body=b"x", ChecksumAlgorithm="SHA256")
    named = {"PartNumber": 1, "ETag": part["ETag"]}
    complete = clients.s3.complete_multipart_upload
    assert _refused(complete, **request, MultipartUpload={"Parts": [named]}) == "InvalidRequest"
    named["ChecksumSHA256"] = base64.b64encode(hashlib.sha256(b"x").digest()).decode()
    complete(**request, MultipartUpload={"Parts": [named]})


def test_a_client_token_makes_a_package_once(unchecked: Any) -> None:
    unchecked.create_model_package_group(ModelPackageGroupName="once")
    request = {"ModelPackageGroupName": "once", "ClientToken": "a-token"}
    arns = {unchecked.create_model_package(**request)["ModelPackageArn"] for _ in range(2)}
    assert len(arns) == 1
    assert _refused(unchecked.create_model_package, **request, Task="OTHER") == "ConflictException"


def test_packages_are_listed_oldest_first_unless_asked_otherwise(unchecked: Any) -> None:
    group = {"ModelPackageGroupName": "in-order"}
    unchecked.create_model_package_group(**group)
    for _ in range(2):
        unchecked.create_model_package(**group)

    def versions(**more: str) -> list[int]:
        found = unchecked.list_model_packages(**group, **more)["ModelPackageSummaryList"]
        return [one["ModelPackageVersion"] for one in found]

    assert versions() == [1, 2]
    assert versions(SortOrder="Descending") == [2, 1]


def test_stopping_a_job_that_is_unknown_is_refused(unchecked: Any) -> None:
    assert _refused(unchecked.stop_training_job, TrainingJobName="x") == "ValidationException"


def test_an_unknown_operation_is_refused(cloud: AwsMock) -> None:
    request = urllib.request.Request(
        cloud.environment["AWS_ENDPOINT_URL"],
        data=b"{}",
        headers={
            "Authorization": "AWS4-HMAC-SHA256 Credential=mock/20261121/us-east-1/sagemaker/aws4",
            "X-Amz-Target": "SageMaker.MakeCoffee",
        },
    )
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


def test_a_rule_holds_for_as_many_calls_as_it_says(
    cloud: AwsMock, make_clients: Any, make_settings: Any
) -> None:
    settings = make_settings(max_attempts=1)
    s3 = make_clients(settings).s3
    place = {"Bucket": settings.bucket, "Key": f"{settings.prefix}/x"}
    s3.put_object(**place, Body=b"x")
    cloud.rules.add(Rule("s3.HeadObject", skip=1, times=1, cut_request_at=0))
    s3.head_object(**place)
    with pytest.raises(Exception, match="closed"):
        s3.head_object(**place)
    s3.head_object(**place)
