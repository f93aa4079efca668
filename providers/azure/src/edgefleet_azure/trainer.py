"""The trainer: Azure ML command jobs that run a plain script in any environment with Python.

Rules kept here:

- What can't be given or doesn't fit is refused before anything is sent.
- A run's id is the job's name. Its end tells whose fleet it is, because jobs of a workspace share
  one name space; its random part makes a repeated request harmless.
- azure-ai-ml is imported when a job is submitted. Everything else goes over Azure Resource Manager.
"""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.errors import IntegrityError
from edgefleet.interfaces import job_parts, script_archive
from edgefleet.interfaces.abilities import CanTrainDistributed
from edgefleet.interfaces.automation import CanAutomate
from edgefleet.interfaces.run_outputs import drop
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import RunState, RunStatus
from edgefleet.training import PARAMS_VARIABLE
from edgefleet_azure import datasets, job_request, outputs
from edgefleet_azure.pipelines import Pipelines
from edgefleet_azure.run_log import RunLog
from edgefleet_azure.service import AzureService
from edgefleet_azure.workspace import Workspace

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.automation import Automation, AutomationStatus
    from edgefleet.interfaces.training import TrainingJob
    from edgefleet.interfaces.training_data import Channel
    from edgefleet.interfaces.training_run import TrainingRun
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_BEFORE = {"NotStarted", "Starting", "Provisioning", "Preparing", "Queued", "Paused"}
_ENDS = {"Completed": RunState.SUCCEEDED, "Failed": RunState.FAILED}
_CANCELED = "Canceled"
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


class AzureMLTrainer(AzureService, CanAutomate, CanTrainDistributed, Trainer):
    """Runs scripts on Azure ML.

    Args:
        clients: to reach Azure with; closed with the trainer.
        settings: workspace, environment, compute, storage account, prefix.
        base: folder that a relative ``cache`` starts from.
    """

    needs = ("trainer",)

    def __init__(self, clients: Clients, settings: AzureSettings, *, base: Path) -> None:
        self._clients, self._settings = clients, settings
        self._cache = (base / settings.cache.expanduser()).absolute() / settings.prefix / "runs"
        self._fleet = hashlib.sha256(settings.models_url.encode()).hexdigest()[:6]
        self._workspace = Workspace(clients, settings)
        self._pipelines = Pipelines(clients, settings, self._workspace, self._fleet)
        self._logs: dict[str, RunLog] = {}
        self._steps: dict[str, bool] = {}

    @property
    def max_machines(self) -> int:
        return self._settings.max_machines

    def _submit(self, job: TrainingJob) -> str:
        settings = self._settings
        settings.needed("environment", "training")
        params = job_parts.params_text(job.params, max_bytes=job_request.MAX_PARAMS_BYTES)
        on = job_request.where(job.resources, settings, self._workspace)
        archive = script_archive.pack(job.script.parent)
        run_id = f"{job_parts.new_id(job.name)}-{self._fleet}"
        data = None
        if job.data is not None:
            data = datasets.bring(job.data, self._clients, self._workspace)
        order = job_parts.order_of(job.script, job, None if data is None else data.inside)
        place = f"runs/{run_id}"
        code = job_request.send_code(self._clients, self._workspace, place, archive, order)
        asked = job_request.Asked(
            name=job.name,
            inputs={"code": code, **({} if data is None else {"training": data.address})},
            output=self._workspace.address(datasets.CONTAINER, f"{place}/output"),
            params=params,
            checkpoints=self._workspace.address(datasets.CONTAINER, f"{place}/checkpoints")
            if settings.training_spot
            else None,
        )
        command = job_request.command_of(asked, on, settings)
        command.name = run_id
        command.experiment_name = f"edgefleet-{settings.prefix}"
        command.tags = _tags(settings, data)
        # Nobody else has this name: a request that is repeated finds the same job there.
        self._clients.ml().jobs.create_or_update(command)
        return run_id

    def _mine(self, run_id: str) -> bool:
        """Whether a job is this fleet's: started here, or a step of one of its pipelines."""
        if not _NAME.fullmatch(run_id):
            return False
        if run_id.endswith(f"-{self._fleet}"):
            return True
        if run_id not in self._steps:
            told = self._workspace.run(run_id)
            parent = str((told or {}).get("parentRunId") or "")
            if told is None:
                return False
            self._steps[run_id] = parent.endswith(f"-{self._fleet}")
        return self._steps[run_id]

    def _status(self, run_id: str) -> RunStatus | None:
        job = self._workspace.read(f"jobs/{run_id}") if self._mine(run_id) else None
        if job is None:
            return None
        before = job["properties"]["status"] in _BEFORE
        return _status_of(job, {} if before else self._workspace.run(run_id, "details") or {})

    def _list(self) -> Iterator[RunStatus]:
        for job in self._workspace.all("jobs"):
            kind = job["properties"].get("jobType")
            if kind == "Command" and str(job["name"]).endswith(f"-{self._fleet}"):
                yield _status_of(job, {})

    def _log(self, run_id: str, offset: int) -> bytes:
        if not self._mine(run_id):
            return b""
        return self._logs.setdefault(run_id, RunLog(self._workspace, run_id)).read(offset)

    def _cancel(self, run_id: str) -> None:
        status = self._status(run_id)
        if status is None or status.state.ended:
            return
        try:
            self._workspace.act(f"jobs/{run_id}/cancel")
        except Exception:
            status = self._status(run_id)
            if status is None or not status.state.ended:
                raise  # else it ended by itself just then

    def _outputs(self, run_id: str) -> Path:
        folder = self._cache / run_id
        if not folder.is_dir():
            job = self._workspace.read(f"jobs/{run_id}") or {"properties": {}}
            kept = (job["properties"].get("outputs") or {}).get(job_request.KEPT) or {}
            store = f"/datastores/{self._workspace.datastore(datasets.CONTAINER)}/paths/"
            _, found, path = str(kept.get("uri") or "").partition(store)
            if not found:
                raise IntegrityError(
                    f"run {run_id} doesn't tell where its outputs are: {kept}",
                    cure="look at its outputs in Azure ML studio",
                )
            container = self._clients.container(datasets.CONTAINER)
            outputs.fetch(container, path.rstrip("/") + "/", folder)
        return folder

    def _forget(self, run_id: str) -> None:
        drop(self._cache / run_id)

    def _automate(self, automation: Automation) -> str:
        return self._pipelines.start(automation)

    def _automation_status(self, execution_id: str) -> AutomationStatus | None:
        return self._pipelines.status(execution_id)

    def _cancel_automation(self, execution_id: str) -> None:
        self._pipelines.stop(execution_id)

    def _registered(self, execution_id: str) -> str | None:
        return self._pipelines.registered(execution_id)

    def _step_run(self, run_id: str) -> TrainingRun:
        return self.get(run_id)


def _tags(settings: AzureSettings, data: Channel | None) -> dict[str, str]:
    """What tells whose a job is, and what it was trained on."""
    tags = {"edgefleet.prefix": settings.prefix}
    if data is not None and data.digest is not None:
        tags["edgefleet.data"] = data.digest
    return tags


def _status_of(job: dict[str, Any], details: dict[str, Any]) -> RunStatus:
    """A run from its job, and from its details in the run history; {} where those aren't asked."""
    asked = job["properties"]
    status = str(asked["status"])
    started, ended = details.get("startTimeUtc"), details.get("endTimeUtc")
    reason = ((details.get("error") or {}).get("error") or {}).get("message")
    limit = (asked.get("limits") or {}).get("timeout")
    state = _ENDS.get(status, RunState.PENDING if status in _BEFORE else RunState.RUNNING)
    if status == _CANCELED:
        state = RunState.CANCELLED
        if _over(started, ended, limit):
            state, reason = RunState.FAILED, f"ended by Azure ML: over its time, {limit}"
    variables = asked.get("environmentVariables") or {}
    evidence = {"status": status, "id": str(job["id"])}
    studio = ((asked.get("services") or {}).get("Studio") or {}).get("endpoint")
    if studio:
        evidence["studio"] = str(studio)
    return RunStatus(
        id=job["name"],
        state=state,
        submitted=(job.get("systemData") or {}).get("createdAt"),
        started=started,
        ended=ended,
        reason=reason,
        params=json.loads(variables.get(PARAMS_VARIABLE, "{}")),
        evidence=evidence,
    )


def _over(started: str | None, ended: str | None, limit: str | None) -> bool:
    """Whether a run that was canceled had come to its limit: Azure ML tells no difference."""
    found = _DURATION.fullmatch(limit or "")
    if not (started and ended and found):
        return False
    days, hours, minutes, seconds = (float(part or 0) for part in found.groups())
    allowed = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    return datetime.fromisoformat(ended) - datetime.fromisoformat(started) >= allowed
