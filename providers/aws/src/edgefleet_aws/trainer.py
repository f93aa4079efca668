"""The trainer: SageMaker training jobs that run a plain script in any image with Python.

Rules kept here:

- What can't be given or doesn't fit SageMaker's limits is refused before anything is sent.
- The script's folder, a small entry script and an order go along in the channel ``code``; the image
  needs nothing of EdgeFleet. Parameters are hyperparameters, each value as JSON.
- A run's id is the job's name. Its end tells whose fleet it is, because jobs of an account share
  one name space; its random part makes a repeated request harmless.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError, EdgeFleetError, LimitExceededError
from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet_aws import container_entry, datasets, outputs, source
from edgefleet_aws.errors import code_of, translate
from edgefleet_aws.instances import choose
from edgefleet_aws.proofs import prove
from edgefleet_aws.run_log import RunLog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.interfaces.training import Param, TrainingJob
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

ENTRY = "edgefleet_entry.py"
MAX_PARAMS = 100  # hyperparameters of a job, and their sizes: botocore's model of SageMaker
MAX_KEY = 256
MAX_VALUE = 2500
_NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
_BEFORE = {
    "Starting",
    "LaunchingMLInstances",
    "PreparingTrainingStack",
    "Downloading",
    "DownloadingTrainingImage",
    "Pending",
}
_TOO_LONG = {"MaxRuntimeExceeded", "MaxWaitTimeExceeded"}
_ENDED = {"Completed", "Failed", "Stopped"}


class SageMakerTrainer(CanProve, Trainer):
    """Runs scripts on SageMaker.

    Args:
        clients: to reach AWS with; closed with the trainer.
        settings: role, image, machines, bucket, prefix.
        base: folder that a relative ``cache`` starts from.
    """

    provider = "aws"

    def __init__(self, clients: Clients, settings: AwsSettings, *, base: Path) -> None:
        self._clients, self._settings = clients, settings
        self._cache = (base / settings.cache.expanduser()).absolute() / settings.prefix / "runs"
        fleet = f"{settings.bucket}/{settings.prefix}"
        self._fleet = hashlib.sha256(fleet.encode()).hexdigest()[:6]
        self._logs: dict[str, RunLog] = {}

    def close(self) -> None:
        self._clients.close()

    def _translate(self, error: Exception) -> EdgeFleetError | None:
        return translate(error)

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._clients, self._settings, ("trainer",))

    def _submit(self, job: TrainingJob) -> str:
        settings = self._settings
        if settings.training_role is None or settings.training_image is None:
            raise ConfigurationError(
                "training on SageMaker needs a role and an image",
                cure="set `training_role` and `training_image` in the profile",
            )
        params = _hyperparameters(job.params)
        instance = choose(job.resources, settings, self._offered())
        archive = source.pack(job.script.parent)
        now = datetime.now(UTC)
        short = re.sub(r"[^a-z0-9]+", "-", job.name[:30]).strip("-")
        run_id = f"{short}-{now:%Y%m%d-%H%M%S}-{secrets.token_hex(3)}-{self._fleet}"
        data = None
        if job.data is not None:
            data = datasets.bring(job.data, self._clients, settings)
        order = {
            "script": job.script.name,
            "data": None if data is None else data.inside,
            "requirements": list(job.requirements),
        }
        code = f"{settings.prefix}/training/{run_id}/code/"
        for name, content in (
            (container_entry.SOURCE, archive),
            (container_entry.ORDER, json.dumps(order).encode()),
            (ENTRY, Path(container_entry.__file__).read_bytes()),
        ):
            self._clients.s3.put_object(Bucket=settings.bucket, Key=code + name, Body=content)
        channels = [_channel("code", f"s3://{settings.bucket}/{code}")]
        if data is not None:
            channels.append(_channel("training", data.address))
        limit = math.ceil(job.resources.max_runtime_s or settings.max_runtime_s)
        stopping = {"MaxRuntimeInSeconds": limit}
        if settings.training_spot:  # it has to be at least the run's own limit
            stopping["MaxWaitTimeInSeconds"] = 2 * limit
        tags = {"edgefleet:prefix": settings.prefix}
        if data is not None and data.digest is not None:
            tags["edgefleet:data"] = data.digest
        try:
            self._clients.sagemaker.create_training_job(
                TrainingJobName=run_id,
                HyperParameters=params,
                AlgorithmSpecification={
                    "TrainingImage": settings.training_image,
                    "TrainingInputMode": "File",
                    "ContainerEntrypoint": ["python3", f"/opt/ml/input/data/code/{ENTRY}"],
                },
                RoleArn=settings.training_role,
                InputDataConfig=channels,
                OutputDataConfig={"S3OutputPath": f"{settings.root}/training/{run_id}/output"},
                ResourceConfig={
                    "InstanceType": instance,
                    "InstanceCount": job.resources.count,
                    "VolumeSizeInGB": settings.training_volume_gib,
                },
                StoppingCondition=stopping,
                EnableManagedSpotTraining=settings.training_spot,
                Tags=[{"Key": key, "Value": value} for key, value in tags.items()],
            )
        except Exception as error:
            # Nobody else has this name: an answer was lost and boto3 has asked again.
            if code_of(error) != "ResourceInUse":
                raise
        return run_id

    def _offered(self) -> frozenset[str]:
        model = self._clients.sagemaker.meta.service_model
        return frozenset(model.shape_for("TrainingInstanceType").enum)

    def _mine(self, run_id: str) -> bool:
        return bool(_NAME.fullmatch(run_id)) and run_id.endswith(f"-{self._fleet}")

    def _describe(self, run_id: str) -> dict[str, Any] | None:
        if not self._mine(run_id):
            return None
        try:
            return self._clients.sagemaker.describe_training_job(TrainingJobName=run_id)
        except Exception as error:
            if code_of(error) in {"ValidationException", "ResourceNotFound"}:
                return None  # the name is well-formed, so that is all it can mean
            raise

    def _status(self, run_id: str) -> RunStatus | None:
        job = self._describe(run_id)
        return None if job is None else _status_of(job)

    def _list(self) -> Iterator[RunStatus]:
        pages = self._clients.sagemaker.get_paginator("list_training_jobs").paginate(
            NameContains=self._fleet, SortBy="CreationTime", SortOrder="Descending"
        )
        for page in pages:
            for job in page["TrainingJobSummaries"]:
                if self._mine(job["TrainingJobName"]):
                    yield _status_of(job)

    def _log(self, run_id: str, offset: int) -> bytes:
        if not self._mine(run_id):
            return b""
        return self._logs.setdefault(run_id, RunLog(self._clients, run_id)).read(offset)

    def _cancel(self, run_id: str) -> None:
        job = self._describe(run_id)
        if job is None or job["TrainingJobStatus"] in _ENDED:
            return
        try:
            self._clients.sagemaker.stop_training_job(TrainingJobName=run_id)
        except Exception:
            job = self._describe(run_id)
            if job is None or job["TrainingJobStatus"] not in _ENDED:
                raise  # else it ended by itself just then

    def _outputs(self, run_id: str) -> Path:
        folder = self._cache / run_id
        if not folder.is_dir():
            job = self._describe(run_id) or {}
            outputs.fetch(self._clients.s3, job["ModelArtifacts"]["S3ModelArtifacts"], folder)
        return folder


def _channel(name: str, address: str) -> dict[str, Any]:
    where = {
        "S3DataType": "S3Prefix",
        "S3Uri": address,
        "S3DataDistributionType": "FullyReplicated",
    }
    return {"ChannelName": name, "DataSource": {"S3DataSource": where}, "InputMode": "File"}


def _hyperparameters(params: dict[str, Param]) -> dict[str, str]:
    """Parameters as SageMaker takes them: text by name, here JSON."""
    texts = {key: json.dumps(value) for key, value in params.items()}
    wrong = [key for key, text in texts.items() if len(key) > MAX_KEY or len(text) > MAX_VALUE]
    if wrong or len(texts) > MAX_PARAMS:
        raise LimitExceededError(
            f"SageMaker takes {MAX_PARAMS} parameters, names of {MAX_KEY} characters and values of "
            f"{MAX_VALUE}; over it: {', '.join(key[:40] for key in wrong) or len(texts)}",
            cure="put them in a file of the data",
        )
    return texts


def _status_of(job: dict[str, Any]) -> RunStatus:
    """A run from the answer of DescribeTrainingJob, or from a listing, which tells less."""
    state, secondary = _state(job), str(job.get("SecondaryStatus", ""))
    reason = job.get("FailureReason")
    if state is RunState.FAILED and secondary in _TOO_LONG:
        limit = job.get("StoppingCondition", {}).get("MaxRuntimeInSeconds")
        reason = f"ended by SageMaker: {secondary}" + (f" = {limit} s" if limit else "")
    evidence = {"status": str(job["TrainingJobStatus"]), "secondary_status": secondary}
    steps = job.get("SecondaryStatusTransitions") or [{}]
    if message := steps[-1].get("StatusMessage"):
        evidence["message"] = str(message)
    for field in ("BillableTimeInSeconds", "TrainingJobArn"):
        if field in job:
            evidence[field] = str(job[field])
    params = job.get("HyperParameters", {})
    return RunStatus(
        id=job["TrainingJobName"],
        state=state,
        submitted=job.get("CreationTime"),
        started=job.get("TrainingStartTime"),
        ended=job.get("TrainingEndTime"),
        reason=reason,
        params={key: json.loads(text) for key, text in params.items()},
        evidence={key: text for key, text in evidence.items() if text},
    )


def _state(job: dict[str, Any]) -> RunState:
    secondary = job.get("SecondaryStatus", "")
    match job["TrainingJobStatus"]:
        case "Completed":
            return RunState.SUCCEEDED
        case "Failed":
            return RunState.FAILED
        case "Stopped":
            return RunState.FAILED if secondary in _TOO_LONG else RunState.CANCELLED
        case _:
            return RunState.PENDING if secondary in _BEFORE else RunState.RUNNING
