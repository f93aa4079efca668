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
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces import job_parts, script_archive
from edgefleet.interfaces.abilities import CanTrainDistributed
from edgefleet.interfaces.automation import VERSION_FILE, CanAutomate, registered_in
from edgefleet.interfaces.compilation import CanCompile
from edgefleet.interfaces.run_outputs import drop
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet_aws import datasets, job_request, outputs
from edgefleet_aws.compilations import Compilations
from edgefleet_aws.errors import code_of
from edgefleet_aws.instances import choose
from edgefleet_aws.pipelines import Pipelines
from edgefleet_aws.run_log import RunLog
from edgefleet_aws.service import AwsService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.automation import Automation, AutomationStatus
    from edgefleet.interfaces.compilation import CompilationJob, CompilationStatus
    from edgefleet.interfaces.training import TrainingJob
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

_NAME = re.compile(r"[a-zA-Z0-9](?:-*[a-zA-Z0-9]){0,62}")
# A pipeline's jobs: its execution, the step's name, ten characters of SageMaker's own.
_STEP = re.compile(r"pipelines-[a-z0-9]+-[a-z]+-(?P<fleet>[0-9a-f]{6})-[A-Za-z0-9]+")
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


class SageMakerTrainer(AwsService, CanAutomate, CanCompile, CanTrainDistributed, Trainer):
    """Runs scripts on SageMaker.

    Args:
        clients: to reach AWS with; closed with the trainer.
        settings: role, image, machines, bucket, prefix.
        base: folder that a relative ``cache`` starts from.
    """

    needs = ("trainer", "automating", "compiling")

    def __init__(self, clients: Clients, settings: AwsSettings, *, base: Path) -> None:
        self._clients, self._settings = clients, settings
        self._cache = (base / settings.cache.expanduser()).absolute() / settings.prefix / "runs"
        fleet = f"{settings.bucket}/{settings.prefix}"
        self._fleet = hashlib.sha256(fleet.encode()).hexdigest()[:6]
        self._logs: dict[str, RunLog] = {}
        self._pipelines = Pipelines(clients, settings, self._fleet)
        compiled = self._cache.with_name("compiled")
        self._compilations = Compilations(clients, settings, self._fleet, compiled)

    @property
    def max_machines(self) -> int:
        return self._settings.max_machines

    def _submit(self, job: TrainingJob) -> str:
        settings = self._settings
        _, role = job_request.image_and_role(settings)
        params = job_request.hyperparameters(job.params)
        instance = choose(job.resources, settings, self._offered())
        archive = script_archive.pack(job.script.parent)
        run_id = f"{job_parts.new_id(job.name)}-{self._fleet}"
        data = None
        if job.data is not None:
            data = datasets.bring(job.data, self._clients, settings)
        order = job_parts.order_of(job.script, job, None if data is None else data.inside)
        code = job_request.send_code(self._clients, settings, f"training/{run_id}", archive, order)
        request = job_request.training_request(
            settings,
            job.resources,
            instance=instance,
            role=role,
            params=params,
            channels={"code": code, **({} if data is None else {"training": data.address})},
            output=f"training/{run_id}/output",
            tags=job_request.tags_of(settings, data),
            checkpoints=f"training/{run_id}/checkpoints/",
        )
        try:
            self._clients.sagemaker.create_training_job(TrainingJobName=run_id, **request)
        except Exception as error:
            # Nobody else has this name: an answer was lost and boto3 has asked again.
            if code_of(error) != "ResourceInUse":
                raise
        return run_id

    def _offered(self) -> frozenset[str]:
        model = self._clients.sagemaker.meta.service_model
        return frozenset(model.shape_for("TrainingInstanceType").enum)

    def _mine(self, run_id: str) -> bool:
        """Whether a job is this fleet's: started here, or by a pipeline, which names it itself."""
        if not _NAME.fullmatch(run_id):
            return False
        own, step = run_id.endswith(f"-{self._fleet}"), _STEP.fullmatch(run_id)
        return own or (step is not None and step["fleet"] == self._fleet)

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
        fresh = RunLog(self._clients, run_id, restarts=self._settings.training_spot)
        return self._logs.setdefault(run_id, fresh).read(offset)

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

    def _forget(self, run_id: str) -> None:
        drop(self._cache / run_id)

    def _automate(self, automation: Automation) -> str:
        return self._pipelines.start(automation, self._offered())

    def _automation_status(self, execution_id: str) -> AutomationStatus | None:
        return self._pipelines.status(execution_id)

    def _cancel_automation(self, execution_id: str) -> None:
        self._pipelines.stop(execution_id)

    def _registered(self, execution_id: str) -> str | None:
        status = self._pipelines.status(execution_id)
        for step in () if status is None else status.steps:
            if step.name == "register" and step.run and step.state is RunState.SUCCEEDED:
                return registered_in((self._outputs(step.run) / VERSION_FILE).read_text("utf-8"))
        return None

    def _step_run(self, run_id: str) -> TrainingRun:
        return self.get(run_id)

    def _compile(self, job: CompilationJob) -> str:
        return self._compilations.start(job)

    def _compilation_status(self, compilation_id: str) -> CompilationStatus | None:
        return self._compilations.status(compilation_id)

    def _cancel_compilation(self, compilation_id: str) -> None:
        self._compilations.stop(compilation_id)

    def _compiled(self, compilation_id: str) -> Path:
        return self._compilations.fetch(compilation_id)


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
