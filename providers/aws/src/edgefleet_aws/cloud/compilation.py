"""SageMaker Neo's jobs: real states, real refusals, no compiler.

A job reads the archive, holds it to what Neo takes, and yields an archive with the model as it came
and a note that says so. moto's are complete at once and yield nothing; these replace them.
"""

from __future__ import annotations

import io
import json
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from edgefleet.errors import InvalidModelError
from edgefleet.optimization.onnx_file import inspect
from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

ACCOUNT = "123456789012"  # moto's
MAX_OPSET = 12  # ONNX 1.7: developer guide, "Supported Frameworks" of edge devices
MAX_REASON = 1024
NOTE = "not-compiled.txt"
_KEPT = ("CompilationJobName", "RoleArn", "InputConfig", "OutputConfig", "StoppingCondition")


class _RefusedError(Exception):
    """What Neo can't compile."""


class CompilationJobs:
    """All compilation jobs of the mock cloud.

    Args:
        client: makes boto3 clients of the mock cloud by service.
    """

    def __init__(self, client: Callable[[str], Any]) -> None:
        self._client = client
        self._lock = threading.Lock()
        self._jobs: dict[str, dict[str, Any]] = {}
        self._stops: dict[str, threading.Event] = {}
        self._threads: list[threading.Thread] = []

    @property
    def operations(self) -> Mapping[str, Callable[[Call, Any], Any]]:
        """What is answered here."""
        return {
            "CreateCompilationJob": self._create,
            "DescribeCompilationJob": self._describe,
            "StopCompilationJob": self._stop,
        }

    def close(self) -> None:
        """End every job and return when none runs; may be called twice."""
        with self._lock:
            for stop in self._stops.values():
                stop.set()
            threads, self._threads = self._threads, []
        for thread in threads:
            thread.join()

    def _create(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        name = request["CompilationJobName"]
        if "InputConfig" not in request:
            raise Fault("ValidationException", "this mock compiles what InputConfig names only")
        output = request["OutputConfig"]
        if ("TargetDevice" in output) == ("TargetPlatform" in output):
            raise Fault("ValidationException", "one of TargetDevice and TargetPlatform is needed")
        if not request["InputConfig"]["S3Uri"].endswith(".tar.gz"):
            raise Fault("ValidationException", "S3Uri must point to a .tar.gz archive")
        arn = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:compilation-job/{name}"
        now = time.time()
        device = output.get("TargetDevice", "platform")
        place = f"{output['S3OutputLocation'].rstrip('/')}/model-{device}.tar.gz"
        with self._lock:
            if name in self._jobs:
                raise Fault("ResourceInUse", f"Compilation job already exists: {arn}")
            self._jobs[name] = {
                **{key: request[key] for key in _KEPT},
                "CompilationJobArn": arn,
                "CompilationJobStatus": "STARTING",
                "CreationTime": now,
                "LastModifiedTime": now,
                "FailureReason": "",
                "ModelArtifacts": {"S3ModelArtifacts": place},
            }
            self._stops[name] = threading.Event()
            thread = threading.Thread(target=self._run, args=(name,), daemon=True)
            self._threads.append(thread)
        thread.start()
        return {"CompilationJobArn": arn}

    def _job(self, name: str) -> dict[str, Any]:
        found = self._jobs.get(name)
        if found is None:
            raise Fault("ResourceNotFound", f"Could not find compilation job {name}")
        return found

    def _describe(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            return dict(self._job(request["CompilationJobName"]))

    def _stop(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        name = request["CompilationJobName"]
        with self._lock:
            job = self._job(name)
            if job["CompilationJobStatus"] not in {"STARTING", "INPROGRESS"}:
                status = job["CompilationJobStatus"]
                raise Fault("ValidationException", f"A job in status {status} can't be stopped.")
            job["CompilationJobStatus"] = "STOPPING"
            self._stops[name].set()
        return {}

    def _tell(self, name: str, **members: object) -> None:
        with self._lock:
            self._jobs[name] |= {"LastModifiedTime": time.time(), **members}

    def _run(self, name: str) -> None:
        with self._lock:
            if self._jobs[name]["CompilationJobStatus"] == "STARTING":
                self._jobs[name]["CompilationJobStatus"] = "INPROGRESS"
            self._jobs[name]["CompilationStartTime"] = time.time()
        reason = ""
        try:
            self._work(name)
        except _RefusedError as error:
            reason = f"ClientError: {error}"
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's status tells
            reason = f"InternalServerError: {error}"
        status = "FAILED" if reason else "COMPLETED"
        if self._stops[name].is_set():
            status, reason = "STOPPED", ""
        self._tell(
            name,
            CompilationJobStatus=status,
            FailureReason=reason[:MAX_REASON],
            CompilationEndTime=time.time(),
        )

    def _work(self, name: str) -> None:
        with self._lock:
            job = dict(self._jobs[name])
        s3, asked = self._client("s3"), job["InputConfig"]
        parts = urlsplit(asked["S3Uri"])
        try:
            reply = s3.get_object(Bucket=parts.netloc, Key=parts.path[1:])
        except s3.exceptions.NoSuchKey as error:
            raise _RefusedError(f"no object at {asked['S3Uri']}") from error
        model = _model_in(reply["Body"].read())
        if asked["Framework"] == "ONNX":
            _check_onnx(model, json.loads(asked.get("DataInputConfig", "{}")))
        if self._stops[name].is_set():
            return
        place = urlsplit(job["ModelArtifacts"]["S3ModelArtifacts"])
        s3.put_object(Bucket=place.netloc, Key=place.path[1:], Body=_yielded(model))


def _model_in(archive: bytes) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as opened:
            files = [member for member in opened if member.isfile()]
            content = opened.extractfile(files[0]) if len(files) == 1 else None
            if content is None:
                raise _RefusedError("InputConfiguration: the archive must hold one model file")
            return content.read()
    except tarfile.TarError as error:
        raise _RefusedError("InputConfiguration: no tar.gz archive") from error


def _check_onnx(model: bytes, shapes: dict[str, list[int]]) -> None:
    with tempfile.TemporaryDirectory(prefix="mock-neo-") as folder:
        path = Path(folder) / "model.onnx"
        path.write_bytes(model)
        try:
            file = inspect(path)
        except InvalidModelError as error:
            raise _RefusedError(f"LoadModel: {error.message}") from error
    if file.opset > MAX_OPSET:
        raise _RefusedError(f"LoadModel: opset {file.opset} is newer than ONNX 1.7's")
    wanted = {one.name: len(one.shape) for one in file.interface.inputs}
    if {name: len(shape) for name, shape in shapes.items()} != wanted:
        raise _RefusedError(f"InputConfiguration: DataInputConfig must give {sorted(wanted)}")


def _yielded(model: bytes) -> bytes:
    """What stands for a compiled model: the model as it came, and a note that says so."""
    packed = io.BytesIO()
    note = b"A mock cloud has no compiler: this archive holds the model as it came.\n"
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        for name, data in (("model.onnx", model), (NOTE, note)):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()
