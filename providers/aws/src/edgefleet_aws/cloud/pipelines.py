"""SageMaker's pipelines: executions really run their jobs, and can be stopped.

moto's are complete at once, run nothing, list no steps and can't be stopped; these replace them.
"""

from __future__ import annotations

import secrets
import string
import threading
import time
from typing import TYPE_CHECKING, Any

from edgefleet_aws.cloud.calls import Call, Fault
from edgefleet_aws.cloud.definition import read
from edgefleet_aws.cloud.execution import Execution

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_aws.cloud.training import TrainingJobs

ACCOUNT = "123456789012"  # moto's
PAGE = 10
_ID = string.ascii_lowercase + string.digits


class Pipelines:
    """All pipelines of the mock cloud, and their executions.

    Args:
        jobs: where training steps run.
    """

    def __init__(self, jobs: TrainingJobs) -> None:
        self._jobs = jobs
        self._lock = threading.Lock()
        self._pipelines: dict[str, dict[str, Any]] = {}
        self._executions: dict[str, Execution] = {}
        self._given: dict[str, str] = {}

    @property
    def operations(self) -> Mapping[str, Callable[[Call, Any], Any]]:
        """What is answered here."""
        return {
            "CreatePipeline": self._create,
            "UpdatePipeline": self._update,
            "DescribePipeline": self._describe,
            "StartPipelineExecution": self._start,
            "DescribePipelineExecution": self._describe_execution,
            "ListPipelineExecutionSteps": self._list_steps,
            "StopPipelineExecution": self._stop,
        }

    def close(self) -> None:
        """End every execution and return when none runs; may be called twice."""
        with self._lock:
            executions = list(self._executions.values())
        for execution in executions:
            execution.stop()
        for execution in executions:
            execution.join()

    def _create(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        name = request["PipelineName"]
        read(_text_of(request))
        now = time.time()
        with self._lock:
            if name in self._pipelines:
                raise Fault(
                    "ValidationException",
                    "Pipeline names must be unique within an AWS account and region. "
                    f"Pipeline with name ({name}) already exists.",
                )
            arn = f"arn:aws:sagemaker:{call.region}:{ACCOUNT}:pipeline/{name}"
            self._pipelines[name] = {
                "PipelineArn": arn,
                "PipelineName": name,
                "PipelineDefinition": request["PipelineDefinition"],
                "RoleArn": request["RoleArn"],
                "PipelineStatus": "Active",
                "CreationTime": now,
                "LastModifiedTime": now,
            }
        return {"PipelineArn": arn}

    def _update(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        if "PipelineDefinition" in request:
            read(request["PipelineDefinition"])
        with self._lock:
            pipeline = self._pipeline(request["PipelineName"])
            for key in ("PipelineDefinition", "RoleArn"):
                if key in request:
                    pipeline[key] = request[key]
            pipeline["LastModifiedTime"] = time.time()
            return {"PipelineArn": pipeline["PipelineArn"]}

    def _pipeline(self, name: str) -> dict[str, Any]:
        found = self._pipelines.get(name.rpartition("/")[2])
        if found is None:
            raise Fault("ResourceNotFound", f"Pipeline '{name}' does not exist.")
        return found

    def _describe(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            return dict(self._pipeline(request["PipelineName"]))

    def _start(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        token = request["ClientRequestToken"]
        with self._lock:
            if token in self._given:
                return {"PipelineExecutionArn": self._given[token]}
            pipeline = self._pipeline(request["PipelineName"])
            own = "".join(secrets.choice(_ID) for _ in range(12))
            arn = f"{pipeline['PipelineArn']}/execution/{own}"
            execution = Execution(
                arn,
                pipeline["PipelineArn"],
                read(pipeline["PipelineDefinition"]),
                lambda asked: self._jobs.begin(call.region, asked),
            )
            self._executions[arn] = execution
            self._given[token] = arn
        execution.start()
        return {"PipelineExecutionArn": arn}

    def _execution(self, request: Any) -> Execution:  # noqa: ANN401
        arn = request["PipelineExecutionArn"]
        with self._lock:
            execution = self._executions.get(arn)
        if execution is None:
            raise Fault("ResourceNotFound", f"Pipeline execution with ARN {arn} does not exist.")
        return execution

    def _describe_execution(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        return self._execution(request).told()

    def _list_steps(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        steps = self._execution(request).steps()
        if request.get("SortOrder", "Descending") == "Descending":
            steps.reverse()
        start, size = int(request.get("NextToken") or 0), request.get("MaxResults", PAGE)
        answer: dict[str, Any] = {"PipelineExecutionSteps": steps[start : start + size]}
        if start + size < len(steps):
            answer["NextToken"] = str(start + size)
        return answer

    def _stop(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        execution = self._execution(request)
        status = execution.told()["PipelineExecutionStatus"]
        if status != "Executing":
            raise Fault(
                "ConflictException", f"Only executing executions can be stopped, this is {status}."
            )
        execution.stop()
        return {"PipelineExecutionArn": execution.arn}


def _text_of(request: Any) -> str:  # noqa: ANN401
    """The definition that a request carries."""
    text = request.get("PipelineDefinition")
    if text is None:
        raise Fault("NotServedException", "this mock reads no definitions from S3", 501)
    return str(text)
