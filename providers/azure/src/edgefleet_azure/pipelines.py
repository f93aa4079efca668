"""Train, evaluate and register as an Azure ML pipeline job, which goes on when nobody watches.

Rules kept here (docs/adr/0016):

- Every step is a command job with our entry script, so its log, metrics and outputs are read like
  any run's. Where each step's outputs lie is fixed before the pipeline is submitted.
- Azure ML has no condition between steps: the last step compares the metric that the evaluating
  step kept, and registers with our own registry, or doesn't. What the gate says is read here from
  the same metric and the gate that the pipeline job is tagged with.
- The last step may run under an identity of its own (`pipeline_identity`), so that no user's script
  needs the right to register.
- An execution's id is the pipeline job's name, which ends with the fleet's mark.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.interfaces import job_parts, script_archive
from edgefleet.interfaces.automation import (
    VERSION_FILE,
    AutomationStatus,
    Gate,
    StepStatus,
    registered_in,
    told_to_register,
)
from edgefleet.interfaces.training import Resources, RunState
from edgefleet.interfaces.training_entry import METRICS
from edgefleet_azure import datasets, job_request
from edgefleet_azure.errors import code_of
from edgefleet_azure.registration import SCRIPT, reach

if TYPE_CHECKING:
    from azure.ai.ml.entities import Command, PipelineJob

    from edgefleet.interfaces.automation import Automation
    from edgefleet.interfaces.training_data import Channel
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings
    from edgefleet_azure.workspace import Workspace

STEPS = ("train", "evaluate", "register")
_GATE = "edgefleet.gate"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_STATES = {
    "NotStarted": RunState.PENDING,
    "Queued": RunState.PENDING,
    "Preparing": RunState.PENDING,
    "Starting": RunState.PENDING,
    "Provisioning": RunState.PENDING,
    "Completed": RunState.SUCCEEDED,
    "Failed": RunState.FAILED,
    "Canceled": RunState.CANCELLED,
}


class _Judged(NamedTuple):
    """The gate as a step, and whether it lets the model go on; None where it can't tell."""

    step: StepStatus
    passed: bool | None


class Pipelines:
    """The pipelines of one fleet.

    Args:
        clients: to reach Azure with.
        settings: workspace, environment, compute, storage account, prefix.
        workspace: that they run in.
        fleet: the mark that the names of the fleet's jobs end with.
    """

    def __init__(
        self, clients: Clients, settings: AzureSettings, workspace: Workspace, fleet: str
    ) -> None:
        self._clients, self._settings = clients, settings
        self._workspace, self._fleet = workspace, fleet

    def start(self, automation: Automation) -> str:
        """Submit the pipeline, and give the execution's id."""
        settings, job = self._settings, automation.train
        settings.needed("environment", "training")
        params = job_parts.params_text(job.params, max_bytes=job_request.MAX_PARAMS_BYTES)
        on = job_request.where(job.resources, settings, self._workspace)
        small = job_request.where(Resources(), settings, self._workspace)
        name = f"{job_parts.new_id(automation.name)}-{self._fleet}"
        data = None
        if job.data is not None:
            data = datasets.bring(job.data, self._clients, self._workspace)
        given = {} if data is None else {"training": data.address}
        inside = None if data is None else data.inside
        orders = {
            "train": job_parts.order_of(job.script, job, inside),
            "evaluate": job_parts.order_of(automation.evaluate, job, inside),
            "register": job_parts.registering_order(SCRIPT, "edgefleet-azure", "."),
        }
        archives = {
            "train": script_archive.pack(job.script.parent),
            "evaluate": script_archive.pack(automation.evaluate.parent),
            "register": script_archive.pack_files([SCRIPT]),
        }
        asked = {}
        for step in STEPS:
            place = f"runs/{name}/{step}"
            code = job_request.send_code(
                self._clients, self._workspace, place, archives[step], orders[step]
            )
            trained = {} if step == "train" else {"trained": self._at(name, "train", "output")}
            judged = {
                "training": self._at(name, "evaluate", "metrics"),
                job_request.RUN: self._at(name, "train", "run"),
            }
            asked[step] = job_request.Asked(
                name=step,
                inputs={"code": code, **(judged if step == "register" else given), **trained},
                output=self._at(name, step, "output"),
                params=params,
                metrics=self._at(name, step, "metrics") if step == "evaluate" else None,
                run=self._at(name, step, "run") if step == "train" else None,
            )
        asked["register"] = asked["register"]._replace(
            params=job_parts.params_text(
                self._registering(automation, data), max_bytes=job_request.MAX_PARAMS_BYTES
            )
        )
        steps = {
            step: job_request.command_of(asked[step], small if step == "register" else on, settings)
            for step in STEPS
        }
        pipeline = _joined(steps, settings)
        pipeline.name, pipeline.display_name = name, automation.name
        pipeline.experiment_name = f"edgefleet-{settings.prefix}"
        pipeline.tags = {
            "edgefleet.prefix": settings.prefix,
            "edgefleet.model": automation.model,
            _GATE: automation.gate.model_dump_json(),
        }
        self._clients.ml().jobs.create_or_update(pipeline)
        return name

    def _at(self, name: str, step: str, what: str) -> str:
        return self._workspace.address(datasets.CONTAINER, f"runs/{name}/{step}/{what}")

    def _registering(self, automation: Automation, data: Channel | None) -> dict[str, str]:
        told = told_to_register(
            automation, reach=reach(self._settings), data=None if data is None else data.digest
        )
        return {**told, "gate": automation.gate.model_dump_json()}

    def _job(self, execution_id: str) -> dict[str, Any] | None:
        """The pipeline job; None for one that can't be this fleet's."""
        if not _NAME.fullmatch(execution_id) or not execution_id.endswith(f"-{self._fleet}"):
            return None
        job = self._workspace.read(f"jobs/{execution_id}")
        return job if job is not None and job["properties"].get("jobType") == "Pipeline" else None

    def status(self, execution_id: str) -> AutomationStatus | None:
        """An execution now; None for one that Azure ML doesn't know, or another fleet's."""
        job = self._job(execution_id)
        if job is None:
            return None
        told = self._workspace.run(execution_id, "children") or {}
        runs = {str(run.get("displayName")): run for run in told.get("value", ())}
        shown = [_step_of(name, runs[name]) for name in STEPS if name in runs]
        judged = self._judged(execution_id, job)
        if judged is not None:
            shown.insert(2, judged.step)
            if not judged.passed:
                shown = shown[:3]  # the last step had nothing to register
        state = _STATES.get(job["properties"]["status"], RunState.RUNNING)
        reason = None
        if state is RunState.FAILED:
            whys = [f"{s.name}: {s.reason}" for s in shown if s.state is RunState.FAILED]
            reason = "; ".join(whys) or self._why(execution_id)
        return AutomationStatus(
            id=execution_id,
            state=state,
            passed=None if judged is None else judged.passed,
            steps=tuple(shown),
            reason=reason,
        )

    def _judged(self, execution_id: str, job: dict[str, Any]) -> _Judged | None:
        """What the gate says; None before there is something to judge."""
        told = (job["properties"].get("tags") or {}).get(_GATE)
        metrics = self._left(f"{execution_id}/evaluate/metrics/{METRICS}")
        if told is None or metrics is None:
            return None
        gate = Gate.model_validate_json(told)
        value = json.loads(metrics).get(gate.metric)
        if value is None:
            reason = f"the evaluating script logged no metric {gate.metric!r}"
            return _Judged(StepStatus(name="gate", state=RunState.FAILED, reason=reason), None)
        return _Judged(StepStatus(name="gate", state=RunState.SUCCEEDED), gate.passes(value))

    def _why(self, execution_id: str) -> str | None:
        """Why an execution failed none of whose steps has."""
        details = self._workspace.run(execution_id, "details") or {}
        return _message(details)

    def registered(self, execution_id: str) -> str | None:
        """``name:version`` that an execution registered; None where it registered none."""
        left = f"{execution_id}/register/output/{VERSION_FILE}"
        told = self._left(left) if self._job(execution_id) else None
        return None if told is None else registered_in(told)

    def _left(self, path: str) -> bytes | None:
        """What a step left in a file; None before it did."""
        container = self._clients.container(datasets.CONTAINER)
        try:
            found = container.download_blob(f"runs/{path}")
            return found.readall()
        except Exception as error:
            if code_of(error) in {"BlobNotFound", "ContainerNotFound"}:
                return None
            raise

    def stop(self, execution_id: str) -> None:
        """End an execution; no error when it has ended."""
        status = self.status(execution_id)
        if status is None or status.state.ended:
            return
        try:
            self._workspace.act(f"jobs/{execution_id}/cancel")
        except Exception:
            status = self.status(execution_id)
            if status is None or not status.state.ended:
                raise  # else it ended by itself just then


def _message(run: dict[str, Any]) -> str | None:
    found = ((run.get("error") or {}).get("error") or {}).get("message")
    return None if found is None else str(found)


def _step_of(name: str, run: dict[str, Any]) -> StepStatus:
    return StepStatus(
        name=name,
        state=_STATES.get(str(run["status"]), RunState.RUNNING),
        run=str(run["runId"]),
        reason=_message(run),
    )


def _joined(steps: dict[str, Command], settings: AzureSettings) -> PipelineJob:
    """A pipeline in which each step waits for what it needs of those before it."""
    from azure.ai.ml import Input, ManagedIdentityConfiguration, dsl  # noqa: PLC0415 - slow
    from azure.ai.ml.entities import PipelineJobSettings  # noqa: PLC0415 - likewise

    def bound(step: str, **others: Any) -> Any:  # noqa: ANN401 - a node, and outputs of nodes
        made = steps[step]
        inputs = {
            name: Input(type="uri_folder", path=given.path, mode=given.mode)
            for name, given in made.inputs.items()
        }
        node = made(**{**inputs, **others})
        node.name = step
        return node

    @dsl.pipeline()  # type: ignore[call-overload, untyped-decorator, unused-ignore]
    def pipeline() -> None:
        train = bound("train")
        evaluate = bound("evaluate", trained=train.outputs.kept)
        register = bound(
            "register",
            trained=train.outputs.kept,
            run=train.outputs.run,
            training=evaluate.outputs.metrics,
        )
        if settings.pipeline_identity is not None:
            register.identity = ManagedIdentityConfiguration(client_id=settings.pipeline_identity)

    made: PipelineJob = pipeline()
    if settings.compute is not None:
        made.compute = settings.compute
    else:
        made.settings = PipelineJobSettings(default_compute=job_request.SERVERLESS)
    return made
