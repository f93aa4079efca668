"""SageMaker's training jobs: they really run, in child processes, through the real states.

moto's are complete at once, run nothing and can't be stopped; these replace them. Statuses as in
https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NoReturn

from edgefleet_aws.cloud.calls import Call, Fault
from edgefleet_aws.cloud.job import Job

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

ACCOUNT = "123456789012"  # moto's
PAGE = 10
_KEPT = (
    "TrainingJobName",
    "HyperParameters",
    "AlgorithmSpecification",
    "RoleArn",
    "InputDataConfig",
    "OutputDataConfig",
    "ResourceConfig",
    "StoppingCondition",
    "EnableManagedSpotTraining",
    "CheckpointConfig",
    "Environment",
)
_SUMMARIZED = (
    "TrainingJobName",
    "TrainingJobArn",
    "CreationTime",
    "TrainingEndTime",
    "LastModifiedTime",
    "TrainingJobStatus",
    "SecondaryStatus",
)


class EndedJob:
    """A job of an earlier run of the mock.

    Args:
        told: the answer of DescribeTrainingJob.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told

    def told(self) -> dict[str, Any]:
        """The answer of DescribeTrainingJob."""
        return self._told

    def stop(self) -> None:
        """Nothing: it has ended."""

    def join(self) -> None:
        """Return at once."""

    def interrupt(self) -> NoReturn:
        """Refuse: it has ended."""
        raise ValueError(f"{self._told['TrainingJobName']} has ended")


class TrainingJobs:
    """All jobs of the mock cloud.

    Args:
        folder: below which each job gets what stands for its container's ``/opt/ml``.
        client: makes boto3 clients of the mock cloud by service.
    """

    def __init__(self, folder: Path, client: Callable[[str], Any]) -> None:
        self._folder, self._client = folder, client
        self._lock = threading.Lock()
        self._jobs: dict[str, Job | EndedJob] = {}

    def kept(self) -> list[dict[str, Any]]:
        """What is told of each job."""
        with self._lock:
            return [job.told() for job in self._jobs.values()]

    def restore(self, kept: list[dict[str, Any]]) -> None:
        """Know these jobs, which have ended."""
        with self._lock:
            for told in kept:
                self._jobs[told["TrainingJobName"]] = EndedJob(told)

    @property
    def operations(self) -> Mapping[str, Callable[[Call, Any], Any]]:
        """What is answered here."""
        return {
            "CreateTrainingJob": self._create,
            "DescribeTrainingJob": self._describe,
            "StopTrainingJob": self._stop,
            "ListTrainingJobs": self._list,
        }

    def close(self) -> None:
        """End every job and return when none runs; may be called twice."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.stop()
        for job in jobs:
            job.join()

    def _create(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        return {"TrainingJobArn": self.begin(call.region, request).told()["TrainingJobArn"]}

    def begin(self, region: str, request: Any) -> Job:  # noqa: ANN401
        """Start a job.

        Raises:
            Fault: it isn't asked for as SageMaker takes it, or its name is taken.
        """
        name = request["TrainingJobName"]
        resources = request.get("ResourceConfig", {})
        if not resources.get("InstanceType") or not resources.get("InstanceCount"):
            raise Fault(
                "ValidationException", "ResourceConfig needs InstanceType and InstanceCount"
            )
        stopping = request.get("StoppingCondition", {})
        if request.get("EnableManagedSpotTraining"):
            longest = stopping.get("MaxWaitTimeInSeconds")
            if longest is None or longest < stopping.get("MaxRuntimeInSeconds", 0):
                raise Fault(
                    "ValidationException",
                    "MaxWaitTimeInSeconds above 0 and not below MaxRuntimeInSeconds is needed",
                )
        elif "MaxWaitTimeInSeconds" in stopping:
            raise Fault("ValidationException", "MaxWaitTimeInSeconds is for spot training only")
        arn = f"arn:aws:sagemaker:{region}:{ACCOUNT}:training-job/{name}"
        kept = {key: request[key] for key in _KEPT if key in request}
        with self._lock:
            if name in self._jobs:
                raise Fault("ResourceInUse", f"Training job names must be unique: {arn}")
            job = Job(kept | {"TrainingJobArn": arn}, self._folder / name, self._client)
            self._jobs[name] = job
        job.start()
        return job

    def _job(self, name: str) -> Job | EndedJob:
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise Fault("ValidationException", "Requested resource not found.")
        return job

    def interrupt(self, name: str) -> None:
        """Take the spare capacity away from a job.

        Raises:
            Fault: there is no such job.
            ValueError: it isn't spot training, or doesn't train just now.
        """
        self._job(name).interrupt()

    def _describe(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        return self._job(request["TrainingJobName"]).told()

    def _stop(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        job = self._job(request["TrainingJobName"])
        status = job.told()["TrainingJobStatus"]
        if status != "InProgress":
            raise Fault(
                "ValidationException",
                f"The request was rejected because the training job is in status {status}.",
            )
        job.stop()
        return {}

    def _list(self, call: Call, request: Any) -> Any:  # noqa: ANN401
        with self._lock:
            jobs = list(self._jobs.values())
        found = [
            told
            for told in (job.told() for job in jobs)
            if request.get("NameContains", "") in told["TrainingJobName"]
            and request.get("StatusEquals", told["TrainingJobStatus"]) == told["TrainingJobStatus"]
        ]
        found.sort(
            key=lambda told: (told["CreationTime"], told["TrainingJobName"]),
            reverse=request.get("SortOrder") == "Descending",
        )
        start, size = int(request.get("NextToken") or 0), request.get("MaxResults", PAGE)
        answer: dict[str, Any] = {
            "TrainingJobSummaries": [
                {key: told[key] for key in _SUMMARIZED if key in told}
                for told in found[start : start + size]
            ]
        }
        if start + size < len(found):
            answer["NextToken"] = str(start + size)
        return answer
