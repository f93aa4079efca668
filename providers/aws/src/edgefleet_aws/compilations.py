"""Models compiled by SageMaker Neo, for the devices that it still takes.

Neo's list is frozen: ONNX 1.7 at most
(https://docs.aws.amazon.com/sagemaker/latest/dg/neo-supported-devices-edge-frameworks.html), whose
newest opset is 12 (https://github.com/onnx/onnx/blob/main/docs/Versioning.md). What it makes runs
in its own runtime, DLR, for which EdgeFleet has no engine.
"""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from edgefleet.errors import LimitExceededError, UnsupportedError
from edgefleet.interfaces.compilation import CompilationStatus
from edgefleet.interfaces.job_parts import new_id
from edgefleet.interfaces.training import RunState
from edgefleet.protocol.digest import digest_of_file, hex_of
from edgefleet_aws.errors import code_of
from edgefleet_aws.reading import ObjectStream

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import BinaryIO

    from edgefleet.interfaces.compilation import CompilationJob
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

FORMAT = "neo"
MAX_OPSET = 12
MAX_BYTES = 2 << 30  # of an ONNX file without external data: protobuf's limit
_NO_DEVICES = {"lambda", "deeplens"}  # a cloud target, and a device whose service has ended
_STATES = {
    "STARTING": RunState.PENDING,
    "INPROGRESS": RunState.RUNNING,
    "STOPPING": RunState.RUNNING,
    "STOPPED": RunState.CANCELLED,
    "FAILED": RunState.FAILED,
    "COMPLETED": RunState.SUCCEEDED,
}
_MISSING = {"ResourceNotFound", "ValidationException"}


class Compilations:
    """The compilation jobs of one fleet.

    Args:
        clients: to reach AWS with.
        settings: role, bucket, prefix.
        fleet: the mark that the names of the fleet's jobs end with.
        cache: folder for what was made.
    """

    def __init__(self, clients: Clients, settings: AwsSettings, fleet: str, cache: Path) -> None:
        self._clients, self._settings = clients, settings
        self._fleet, self._cache = fleet, cache
        self._name = re.compile(rf"[a-z0-9](?:-*[a-z0-9]){{0,55}}-{fleet}")

    def start(self, job: CompilationJob) -> str:
        """Send the model, start the job, and give its name."""
        settings = self._settings
        role = settings.needed("training_role", "compiling")
        _check(job, self._devices())
        key = self._send(job.model)
        name = f"{new_id(job.device)}-{self._fleet}"
        output: dict[str, Any] = {
            "S3OutputLocation": f"{settings.root}/compilations/{name}/",
            "TargetDevice": job.device,
        }
        if job.options:
            output["CompilerOptions"] = json.dumps(job.options)
        try:
            self._clients.sagemaker.create_compilation_job(
                CompilationJobName=name,
                RoleArn=role,
                InputConfig={
                    "S3Uri": f"s3://{settings.bucket}/{key}",
                    "DataInputConfig": json.dumps({k: list(v) for k, v in job.shapes.items()}),
                    "Framework": "ONNX",
                },
                OutputConfig=output,
                StoppingCondition={"MaxRuntimeInSeconds": math.ceil(job.max_runtime_s)},
                Tags=[{"Key": "edgefleet:prefix", "Value": settings.prefix}],
            )
        except Exception as error:
            # Nobody else has this name: an answer was lost and boto3 has asked again.
            if code_of(error) != "ResourceInUse":
                raise
        return name

    def _send(self, model: Path) -> str:
        """Put a model where Neo reads it, as one file in a tar.gz; gives the object's key."""
        digest = hex_of(digest_of_file(model)[0])
        key = f"{self._settings.prefix}/compilations/models/{digest}.tar.gz"
        with tempfile.TemporaryDirectory(prefix="edgefleet-compile-") as folder:
            packed = Path(folder) / "model.tar.gz"
            with tarfile.open(packed, "w:gz", compresslevel=1, dereference=True) as archive:
                archive.add(model, arcname="model.onnx")
            self._clients.s3.upload_file(str(packed), self._settings.bucket, key)
        return key

    def _devices(self) -> frozenset[str]:
        shape = self._clients.sagemaker.meta.service_model.shape_for("TargetDevice")
        return frozenset(name for name in shape.enum if not name.startswith("ml_")) - _NO_DEVICES

    def _describe(self, name: str) -> dict[str, Any] | None:
        if not self._name.fullmatch(name):
            return None
        try:
            return self._clients.sagemaker.describe_compilation_job(CompilationJobName=name)
        except Exception as error:
            if code_of(error) in _MISSING:
                return None
            raise

    def status(self, name: str) -> CompilationStatus | None:
        """A job now; None for one that SageMaker doesn't know, or another fleet's."""
        told = self._describe(name)
        if told is None:
            return None
        return CompilationStatus(
            id=name,
            state=_STATES[told["CompilationJobStatus"]],
            device=str(told["OutputConfig"].get("TargetDevice", "")),
            format=FORMAT,
            submitted=told.get("CreationTime"),
            ended=told.get("CompilationEndTime"),
            reason=told.get("FailureReason") or None,
        )

    def stop(self, name: str) -> None:
        """End a job; no error when it has ended."""
        status = self.status(name)
        if status is None or status.state.ended:
            return
        try:
            self._clients.sagemaker.stop_compilation_job(CompilationJobName=name)
        except Exception:
            status = self.status(name)
            if status is None or not status.state.ended:
                raise  # else it ended by itself just then

    def fetch(self, name: str) -> Path:
        """The archive that a job made, on this machine; it appears when it is complete."""
        path = self._cache / f"{name}.tar.gz"
        if path.is_file():
            return path
        told = self._describe(name) or {}
        parts = urlsplit(told["ModelArtifacts"]["S3ModelArtifacts"])
        stream = ObjectStream(self._clients.s3, {"Bucket": parts.netloc, "Key": parts.path[1:]}, 0)
        self._cache.mkdir(parents=True, exist_ok=True)
        with (
            io.BufferedReader(stream, 1 << 20) as source,
            tempfile.TemporaryDirectory(prefix=".compiled-", dir=self._cache) as scratch,
        ):
            fresh = Path(scratch) / "archive"
            with fresh.open("wb") as target:
                shutil.copyfileobj(cast("BinaryIO", source), target, 1 << 20)
            fresh.replace(path)
        return path


def _check(job: CompilationJob, devices: Collection[str]) -> None:
    if job.device not in devices:
        raise UnsupportedError(
            f"SageMaker Neo compiles for no edge device {job.device!r}",
            cure=f"it takes: {', '.join(sorted(devices))}",
        )
    if job.opset > MAX_OPSET:
        raise UnsupportedError(
            f"{job.model} is of opset {job.opset}; Neo reads ONNX 1.7, opset {MAX_OPSET}, at most",
            cure=f"export it with opset {MAX_OPSET}, or ship it as it is: devices run newer opsets",
        )
    if job.model.stat().st_size > MAX_BYTES:
        raise LimitExceededError(
            f"{job.model} has more than {MAX_BYTES >> 30} GiB", cure="ship it as it is"
        )
