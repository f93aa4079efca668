"""Train, evaluate and register as a SageMaker pipeline, which goes on when no operator is there.

Rules kept here (docs/adr/0013):

- A fleet's automation is one pipeline, ``PREFIX-NAME-`` and the fleet's mark; each call is an
  execution of it. The definition is plain JSON, so no library of SageMaker's is needed.
- Every step that runs something is a training job, so its log, metrics and outputs are read like
  any run's. The condition step compares the metric that SageMaker reads from the log.
- The last step runs our own registry, under a role of its own: what it registers is a version like
  any other, and the scripts of users never hold the right to register.
- An execution's id is ``PIPELINE/ID``; a step's name ends with the fleet's mark, and so SageMaker's
  names of its jobs tell whose they are.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

from edgefleet.interfaces import job_parts, script_archive
from edgefleet.interfaces.automation import AutomationStatus, StepStatus, told_to_register
from edgefleet.interfaces.training import Resources, RunState
from edgefleet_aws import datasets, job_request
from edgefleet_aws.errors import code_of
from edgefleet_aws.instances import choose
from edgefleet_aws.pipeline_definition import Step, definition
from edgefleet_aws.registration import SCRIPT, reach
from edgefleet_aws.registry import group_name

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from edgefleet.interfaces.automation import Automation
    from edgefleet.interfaces.training_data import Channel
    from edgefleet_aws.clients import Clients
    from edgefleet_aws.settings import AwsSettings

_EXECUTIONS = {
    "Executing": RunState.RUNNING,
    "Stopping": RunState.RUNNING,
    "Stopped": RunState.CANCELLED,
    "Failed": RunState.FAILED,
    "CompletedWithFailures": RunState.FAILED,
    "Succeeded": RunState.SUCCEEDED,
}
_STEPS = _EXECUTIONS | {"Starting": RunState.PENDING}
_MISSING = {"ResourceNotFound", "ValidationException"}
_ROOM = 30  # characters of a step's code that name it in S3


class Pipelines:
    """The pipelines of one fleet.

    Args:
        clients: to reach AWS with.
        settings: roles, image, machines, bucket, prefix.
        fleet: the mark that the names of the fleet's jobs end with.
    """

    def __init__(self, clients: Clients, settings: AwsSettings, fleet: str) -> None:
        self._clients, self._settings, self._fleet = clients, settings, fleet
        self._arns: dict[str, str] = {}

    def start(self, automation: Automation, offered: Collection[str]) -> str:
        """Put the pipeline in place as asked, start it, and give the execution's id."""
        role = self._settings.needed("pipeline_role", "automating")
        name = f"{group_name(self._settings.prefix, automation.name)}-{self._fleet}"
        text = json.dumps(self._definition(automation, name, offered, role), sort_keys=True)
        self._put(name, text, role)
        reply = self._clients.sagemaker.start_pipeline_execution(PipelineName=name)
        arn = str(reply["PipelineExecutionArn"])
        self._arns[name] = arn.rpartition("/execution/")[0]
        return f"{name}/{arn.rpartition('/')[2]}"

    def _definition(
        self, automation: Automation, name: str, offered: Collection[str], role: str
    ) -> dict[str, Any]:
        settings, job = self._settings, automation.train
        _, training_role = job_request.image_and_role(settings)
        instance = choose(job.resources, settings, offered)
        params = job_request.hyperparameters(job.params)
        data = None if job.data is None else datasets.bring(job.data, self._clients, settings)
        channels = {} if data is None else {"training": data.address}
        inside = None if data is None else data.inside
        order = job_parts.order_of(job.script, job, inside)
        judging = job_parts.order_of(automation.evaluate, job, inside)
        tags = job_request.tags_of(settings, data)

        def step(kind: str, archive: bytes, order: dict[str, Any], **asked: Any) -> Step:  # noqa: ANN401 - members of the request
            code = self._send(name, kind, archive, order)
            more = asked.pop("channels", {})
            request = job_request.training_request(
                settings,
                asked.pop("resources", job.resources),
                channels={"code": code, **more},
                output=f"automations/{name}/output",
                tags=tags,
                **asked,
            )
            return Step(f"{kind}-{self._fleet}", request)

        def scripted(kind: str, script: Path, order: dict[str, Any]) -> Step:
            return step(
                kind,
                script_archive.pack(script.parent),
                order,
                role=training_role,
                instance=instance,
                params=params,
                channels=channels,
            )

        return definition(
            train=scripted("train", job.script, order),
            evaluate=scripted("evaluate", automation.evaluate, judging),
            register=step(
                "register",
                script_archive.pack_files([SCRIPT]),
                job_parts.registering_order(SCRIPT, "edgefleet-aws", None),
                role=role,
                instance=settings.training_instance,
                params=self._registering(automation, data),
                resources=Resources(),
            ),
            gate=automation.gate,
            condition=f"gate-{self._fleet}",
        )

    def _registering(self, automation: Automation, data: Channel | None) -> dict[str, str]:
        told = told_to_register(
            automation, reach=reach(self._settings), data=None if data is None else data.digest
        )
        return job_request.hyperparameters({**told, "metric": automation.gate.metric})

    def _send(self, name: str, kind: str, archive: bytes, order: dict[str, Any]) -> str:
        """Put a step's code in a place named by its content: the same gives the same definition."""
        told = json.dumps(order, sort_keys=True).encode()
        mark = hashlib.sha256(hashlib.sha256(archive).digest() + told).hexdigest()[:_ROOM]
        place = f"automations/{name}/{kind}-{mark}"
        return job_request.send_code(self._clients, self._settings, place, archive, order)

    def _put(self, name: str, text: str, role: str) -> None:
        wanted = {"PipelineDefinition": text, "RoleArn": role}
        there = self._describe(name)
        if there is None:
            try:
                self._clients.sagemaker.create_pipeline(
                    PipelineName=name,
                    Tags=[{"Key": "edgefleet:prefix", "Value": self._settings.prefix}],
                    **wanted,
                )
            except Exception as error:
                if code_of(error) != "ValidationException" or "already exists" not in str(error):
                    raise
            else:
                return
        elif {key: there.get(key) for key in wanted} == wanted:
            return
        self._clients.sagemaker.update_pipeline(PipelineName=name, **wanted)

    def _describe(self, name: str) -> dict[str, Any] | None:
        try:
            return self._clients.sagemaker.describe_pipeline(PipelineName=name)
        except Exception as error:
            if code_of(error) in _MISSING:
                return None
            raise

    def _arn(self, execution_id: str) -> str | None:
        """The ARN of an execution; None for one that can't be this fleet's."""
        name, _, execution = execution_id.partition("/")
        if not name.endswith(f"-{self._fleet}") or not execution.isalnum():
            return None
        if name not in self._arns:
            there = self._describe(name)
            if there is None:
                return None
            self._arns[name] = str(there["PipelineArn"])
        return f"{self._arns[name]}/execution/{execution}"

    def status(self, execution_id: str) -> AutomationStatus | None:
        """An execution now; None for one that SageMaker doesn't know, or another fleet's."""
        arn = self._arn(execution_id)
        if arn is None:
            return None
        try:
            told = self._clients.sagemaker.describe_pipeline_execution(PipelineExecutionArn=arn)
        except Exception as error:
            if code_of(error) in _MISSING:
                return None
            raise
        steps = self._steps(arn)
        state = _EXECUTIONS[told["PipelineExecutionStatus"]]
        outcomes = [step.get("Metadata", {}).get("Condition", {}).get("Outcome") for step in steps]
        outcome = next((outcome for outcome in outcomes if outcome is not None), None)
        shown = tuple(self._step(step) for step in steps)
        reason = None
        if state is RunState.FAILED:
            whys = [f"{s.name}: {s.reason}" for s in shown if s.state is RunState.FAILED]
            reason = "; ".join(whys) or told.get("FailureReason")
        return AutomationStatus(
            id=execution_id,
            state=state,
            passed=None if outcome is None else outcome.lower() == "true",
            steps=shown,
            reason=reason,
        )

    def _steps(self, arn: str) -> list[dict[str, Any]]:
        pages = self._clients.sagemaker.get_paginator("list_pipeline_execution_steps").paginate(
            PipelineExecutionArn=arn, SortOrder="Ascending"
        )
        return [step for page in pages for step in page["PipelineExecutionSteps"]]

    def _step(self, told: dict[str, Any]) -> StepStatus:
        name = str(told["StepName"]).removesuffix(f"-{self._fleet}")
        job = told.get("Metadata", {}).get("TrainingJob", {}).get("Arn")
        reason = told.get("FailureReason")
        if name == "gate" and reason:
            reason += " (does the evaluating script log that metric?)"
        return StepStatus(
            name=name,
            state=_STEPS[told["StepStatus"]],
            run=None if job is None else str(job).rpartition("/")[2],
            reason=reason,
        )

    def stop(self, execution_id: str) -> None:
        """End an execution; no error when it has ended."""
        status = self.status(execution_id)
        if status is None or status.state.ended:
            return
        try:
            self._clients.sagemaker.stop_pipeline_execution(
                PipelineExecutionArn=self._arn(execution_id)
            )
        except Exception:
            status = self.status(execution_id)
            if status is None or not status.state.ended:
                raise  # else it ended by itself just then
