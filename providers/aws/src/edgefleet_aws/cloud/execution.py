"""One execution of a pipeline: its steps in order, in a thread, through the real states.

Steps run one after another, where SageMaker runs those that wait for nothing at once.
"""

from __future__ import annotations

import secrets
import string
import threading
import time
from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.definition import COMPARISONS, UnknownError, filled, in_order, looked_up

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_aws.cloud.job import Job

MAX_STEP_NAME = 20  # characters of a step's name that the name of its job keeps
_OWN = string.ascii_letters + string.digits
_ENDS = {"Completed": "Succeeded", "Stopped": "Stopped"}


class _FailedError(Exception):
    """A step failed, or was stopped."""


class Execution:
    """An execution and its thread.

    Args:
        arn: of the execution.
        pipeline: ARN of its pipeline.
        steps: of the definition.
        begin: starts a training job, from the members of its request.
    """

    def __init__(
        self,
        arn: str,
        pipeline: str,
        steps: list[dict[str, Any]],
        begin: Callable[[dict[str, Any]], Job],
    ) -> None:
        self.arn, self._steps, self._begin = arn, steps, begin
        self._lock = threading.Lock()
        self._job: Job | None = None
        self._answers: dict[str, Any] = {}
        self._told: list[dict[str, Any]] = []
        now = time.time()
        self._facts: dict[str, Any] = {
            "PipelineArn": pipeline,
            "PipelineExecutionArn": arn,
            "PipelineExecutionDisplayName": f"execution-{int(now * 1000)}",
            "PipelineExecutionStatus": "Executing",
            "CreationTime": now,
            "LastModifiedTime": now,
        }
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def start(self) -> None:
        """Begin; `told` and `steps` tell how far it is."""
        self._thread.start()

    def join(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """The answer of DescribePipelineExecution."""
        with self._lock:
            return dict(self._facts)

    def steps(self) -> list[dict[str, Any]]:
        """Of the answer of ListPipelineExecutionSteps, the first to begin first."""
        with self._lock:
            return [dict(step) for step in self._told]

    def stop(self) -> None:
        """Ask it to end, and the job that runs; no error when it has."""
        with self._lock:
            if self._facts["PipelineExecutionStatus"] != "Executing":
                return
            self._facts |= {"PipelineExecutionStatus": "Stopping", "LastModifiedTime": time.time()}
            job = self._job
        if job is not None:
            job.stop()

    def _stopping(self) -> bool:
        with self._lock:
            return bool(self._facts["PipelineExecutionStatus"] == "Stopping")

    def _run(self) -> None:
        reason = None
        try:
            self._all(self._steps)
        except _FailedError as error:
            reason = str(error)
        status = "Stopped" if self._stopping() else "Succeeded" if reason is None else "Failed"
        with self._lock:
            self._facts |= {"PipelineExecutionStatus": status, "LastModifiedTime": time.time()}
            if status == "Failed":
                self._facts["FailureReason"] = "Step failure: One or multiple steps failed."

    def _all(self, steps: list[dict[str, Any]]) -> None:
        for step in in_order(steps):
            if self._stopping():
                raise _FailedError("stopped")
            told: dict[str, Any] = {"StepName": step["Name"], "StartTime": time.time()}
            told["StepStatus"] = "Starting"
            with self._lock:
                self._told.append(told)
            self._tell(told, StepStatus="Executing")
            try:
                following = self._one(step, told)
            except (_FailedError, UnknownError, Fault) as error:
                ended = {"StepStatus": "Stopped" if self._stopping() else "Failed"}
                self._tell(told, **ended, EndTime=time.time(), FailureReason=str(error))
                raise _FailedError(str(error)) from error
            self._tell(told, StepStatus="Succeeded", EndTime=time.time())
            self._all(following)

    def _tell(self, told: dict[str, Any], **members: object) -> None:
        with self._lock:
            told |= members

    def _one(self, step: dict[str, Any], told: dict[str, Any]) -> list[dict[str, Any]]:
        """Do a step; gives those that it leads to."""
        arguments = step["Arguments"]
        if step["Type"] == "Training":
            self._train(step["Name"], arguments, told)
            return []
        if step["Type"] == "Fail":
            message = self._filled(arguments["ErrorMessage"])
            self._tell(told, Metadata={"Fail": {"ErrorMessage": message}})
            raise _FailedError(str(message))
        passed = all(self._holds(condition) for condition in arguments["Conditions"])
        self._tell(told, Metadata={"Condition": {"Outcome": str(passed)}})
        chosen: list[dict[str, Any]] = arguments.get("IfSteps" if passed else "ElseSteps", [])
        return chosen

    def _train(self, name: str, arguments: dict[str, Any], told: dict[str, Any]) -> None:
        execution = self.arn.rpartition("/")[2]
        own = "".join(secrets.choice(_OWN) for _ in range(10))
        job_name = f"pipelines-{execution}-{name[:MAX_STEP_NAME]}-{own}"
        job = self._begin({"TrainingJobName": job_name, **self._filled(arguments)})
        with self._lock:
            self._job = job
        self._tell(told, Metadata={"TrainingJob": {"Arn": job.told()["TrainingJobArn"]}})
        if self._stopping():  # asked before the job was known
            job.stop()
        job.join()
        answer = job.told()
        self._answers[name] = answer
        if _ENDS.get(answer["TrainingJobStatus"]) != "Succeeded":
            why = answer.get("FailureReason") or answer["SecondaryStatus"]
            raise _FailedError(f"ClientError: {why}")

    def _holds(self, condition: dict[str, Any]) -> bool:
        left, right = self._filled(condition["LeftValue"]), self._filled(condition["RightValue"])
        return COMPARISONS[condition["Type"]](left, right)

    def _filled(self, value: Any) -> Any:  # noqa: ANN401 - JSON
        return filled(value, lambda expression: looked_up(expression, self._answers))
