"""The jobs of a workspace, and their run history: what the studio and the SDK ask for."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.ml_calls import members_of, missing, now, page
from edgefleet_azure.cloud.ml_job import (
    ARTIFACTS,
    ENDED,
    BadJobError,
    CommandJob,
    EndedJob,
    place_of,
)
from edgefleet_azure.cloud.ml_pipeline import PipelineJob

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_azure.cloud.calls import Call
    from edgefleet_azure.cloud.ml_assets import Assets
    from edgefleet_azure.cloud.ml_calls import Storage
    from edgefleet_azure.cloud.ml_workspace import Workspace

PAGE = 20
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]{0,254}")
_VERSIONED = re.compile(r".*/environments/(?P<name>[^/]+)/versions/(?P<version>[^/]+)")
_COMPONENT = re.compile(r".*/components/([^/]+)/versions/([^/]+)")
_SHORT = re.compile(r"azureml:(?P<name>[^:/@]+):(?P<version>[^:/@]+)")
_CURATED = re.compile(r"azureml://registries/.+|azureml:AzureML-.+")
_CHANGEABLE = {"description", "displayName", "tags", "isArchived", "properties"}
_EXISTS = (
    "A job with this name already exists. If you are trying to create a new job, use a different "
    "name. If you are trying to update an existing job, the existing job's {} cannot be changed. "
    "Only description, displayName, tags, and isArchived can be updated."
)

AnyJob = CommandJob | PipelineJob | EndedJob


class Jobs:
    """All jobs of the mock's workspace.

    Args:
        folder: below which each job gets a folder while it runs.
        storage: the account.
        workspace: that they run in.
        assets: environments and components that they name.
        given: gives the variables that reach the cloud as the compute's identity.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        workspace: Workspace,
        assets: Assets,
        given: Callable[[], Mapping[str, str]],
    ) -> None:
        self._folder, self._storage, self._workspace = folder, storage, workspace
        self._assets, self._given = assets, given
        self._lock = threading.RLock()
        self._jobs: dict[str, AnyJob] = {}
        self._parents: dict[str, str] = {}

    def kept(self) -> list[dict[str, Any]]:
        """What is told of each job, as JSON."""
        with self._lock:
            jobs = list(self._jobs.values())
        return [
            {
                "name": job.name,
                "asked": job.asked,
                "told": job.told(),
                "parent": self._parents.get(job.name),
            }
            for job in jobs
        ]

    def restore(self, kept: list[dict[str, Any]]) -> None:
        """Know these jobs, which have ended."""
        with self._lock:
            for one in kept:
                self._jobs[one["name"]] = EndedJob(one["name"], one["asked"], one["told"])
                if one["parent"] is not None:
                    self._parents[one["name"]] = one["parent"]

    def close(self) -> None:
        """End every job and return when none runs; may be called twice."""
        with self._lock:
            jobs = list(self._jobs.values())
        for job in jobs:
            job.cancel()
        for job in jobs:
            job.join()

    def interrupt(self, name: str) -> None:
        """Take the spare machine of a job away.

        Raises:
            ValueError: it is on none, or doesn't run just now.
        """
        job = self._job(name)
        if isinstance(job, PipelineJob):
            raise ValueError(f"{name} is a pipeline")  # noqa: TRY004 - of its state
        job.interrupt()

    def begin(self, name: str, asked: dict[str, Any], parent: str) -> CommandJob:
        """Start a step of a pipeline.

        Raises:
            Refused: it isn't asked for as Azure ML takes it.
        """
        job = self._command(name, asked)
        with self._lock:
            self._jobs[name] = job
            self._parents[name] = parent
        job.start()
        return job

    def component(self, named: str) -> dict[str, Any]:
        """What a component says that a step runs.

        Raises:
            Refused: there is no such component.
        """
        found = _COMPONENT.fullmatch(named)
        try:
            read = self._assets.read("components", *found.groups()) if found else None
        except KeyError:
            read = None
        if read is None:
            raise missing(f"Component {named}")
        spec: dict[str, Any] = read["componentSpec"]
        return spec

    # Azure Resource Manager

    def answer(self, call: Call, name: str | None, action: str | None) -> Reply:
        """Reply a call about the jobs (no name) or one of them.

        Raises:
            Refused: the answer is no.
        """
        if name is None:
            return self._list(call)
        if call.method == "PUT":
            return self._put(name, members_of(call), call.base)
        job = self._job(name)
        if action == "cancel" and call.method == "POST":
            if job.told()["status"] in ENDED:
                raise Refused(400, "UserError", f"Run {name} has ended and can't be canceled.")
            job.cancel()
            where = f"{call.base}{call.path}ing?api-version={call.query['api-version']}"
            return Reply(202, None, {"Location": where, "Retry-After": "0"})
        if action == "canceling":
            return Reply(200)
        if call.method == "GET" and action is None:
            return Reply(200, self._told(job, call.base))
        raise Refused(405, "MethodNotAllowed", f"{call.method} isn't answered here.")

    def _job(self, name: str) -> AnyJob:
        with self._lock:
            job = self._jobs.get(name)
        if job is None:
            raise missing(f"Run {name}")
        return job

    def _list(self, call: Call) -> Reply:
        with self._lock:
            jobs = [job for name, job in self._jobs.items() if name not in self._parents]
        told = [self._told(job, call.base) for job in jobs]
        told.sort(key=lambda one: str(one["systemData"]["createdAt"]), reverse=True)
        return page(told, call, PAGE)

    def _put(self, name: str, asked: dict[str, Any], origin: str) -> Reply:
        if not _NAME.fullmatch(name):
            raise Refused(400, "UserError", f"{name!r} is no name of a job.")
        with self._lock:
            there = self._jobs.get(name)
            if there is not None:
                self._change(there, asked)
                return Reply(200, self._told(there, origin))
            kind = asked.get("jobType")
            if kind == "Pipeline":
                job: CommandJob | PipelineJob = PipelineJob(name, asked, self)
            elif kind == "Command":
                job = self._command(name, asked)
            else:
                raise Refused(400, "UserError", f"jobs of type {kind} aren't run by the mock")
            self._jobs[name] = job
        job.start()
        return Reply(201, self._told(job, origin))

    def _change(self, job: AnyJob, asked: Mapping[str, Any]) -> None:
        for key in set(asked) - _CHANGEABLE:
            if key in job.asked and asked[key] != job.asked[key] and key != "outputs":
                raise Refused(400, "UserError", _EXISTS.format(key))
        job.asked.update({key: asked[key] for key in _CHANGEABLE if key in asked})

    def _command(self, name: str, asked: dict[str, Any]) -> CommandJob:
        self.check_environment(asked)
        self._check_compute(asked)
        outputs = asked.get("outputs", {})
        for output, how in outputs.items():
            if not how.get("uri"):
                how["uri"] = (
                    f"azureml://datastores/workspaceblobstore/paths/azureml/{name}/{output}/"
                )
        try:
            for one in (*outputs.values(), *asked.get("inputs", {}).values()):
                if one.get("jobInputType") != "literal":
                    place_of(one["uri"], self._workspace)
        except BadJobError as error:
            raise Refused(400, "UserError", str(error)) from error
        return CommandJob(
            name, asked, self._folder / name, self._storage, self._workspace, self._given
        )

    def check_environment(self, asked: Mapping[str, Any]) -> None:
        """Refuse a job whose environment isn't there.

        Raises:
            Refused: it isn't.
        """
        named = str(asked.get("environmentId", ""))
        if not named:
            raise Refused(400, "UserError", "A command job needs an environment.")
        found = _VERSIONED.fullmatch(named) or _SHORT.fullmatch(named)
        if found is not None and self._assets.has("environments", found["name"], found["version"]):
            return
        if found is None or not _CURATED.fullmatch(named):
            raise Refused(400, "UserError", f"Environment {named} was not found.")

    def _check_compute(self, asked: Mapping[str, Any]) -> None:
        compute = str(asked.get("computeId") or "").rpartition("/")[2]
        if compute in {"", "serverless"}:
            return
        try:
            told = self._workspace.compute(compute)
        except Refused as error:
            raise Refused(400, "UserError", f"Unknown compute target: {error.message}") from error
        most = told["properties"]["properties"]["scaleSettings"]["maxNodeCount"]
        nodes = int(asked.get("resources", {}).get("instanceCount", 1))
        if nodes > most:
            raise Refused(400, "UserError", f"{nodes} nodes asked for, the cluster has {most}.")

    def _told(self, job: AnyJob, origin: str) -> dict[str, Any]:
        how = job.told()
        studio = f"https://ml.azure.com/runs/{job.name}?wsid={self._workspace.scope}"
        services = {
            "Tracking": {
                "jobServiceType": "Tracking",
                "endpoint": f"azureml://{origin[8:]}/mlflow",
            },
            "Studio": {"jobServiceType": "Studio", "endpoint": studio},
        }
        usual = {"tags": {}, "properties": {}, "isArchived": False, "experimentName": "Default"}
        usual |= {"displayName": job.name}
        return {
            "id": f"{self._workspace.scope}/jobs/{job.name}",
            "name": job.name,
            "type": "Microsoft.MachineLearningServices/workspaces/jobs",
            "properties": {**usual, **job.asked, "status": how["status"], "services": services},
            "systemData": {"createdAt": how["created"], "createdBy": "mock"},
        }

    # Run history

    def history(self, call: Call, name: str, action: str | None) -> Reply:
        """Reply a call of the run history: a run, its details, its children.

        Raises:
            Refused: the answer is no.
        """
        job = self._job(name)
        if action == "children":
            with self._lock:
                names = [child for child, parent in self._parents.items() if parent == name]
            return Reply(200, {"value": [self._run(self._job(child)) for child in names]})
        if action is None and call.method == "PATCH":
            changes = call.json()
            shown = {"hidden": "isArchived", "displayName": "displayName", "tags": "tags"}
            for key, ours in shown.items():
                if changes.get(key) is not None:
                    job.asked[ours] = changes[key]
            return Reply(200, self._run(job))
        return Reply(200, self._run(job) if action is None else self._details(job))

    def _run(self, job: AnyJob) -> dict[str, Any]:
        how = job.told()
        kind = "azureml.PipelineRun" if job.asked["jobType"] == "Pipeline" else "azureml.StepRun"
        error = {"error": {"error": how["error"]}} if "error" in how else {}
        return {
            "runId": job.name,
            "parentRunId": self._parents.get(job.name),
            "runType": kind if job.name in self._parents or kind.endswith("Run") else "",
            "status": how["status"],
            "displayName": job.asked.get("displayName", job.name),
            "name": job.asked.get("displayName", job.name),
            "createdUtc": how["created"],
            "startTimeUtc": how.get("started"),
            "endTimeUtc": how.get("ended"),
            "tags": job.asked.get("tags", {}),
            "properties": job.asked.get("properties", {}),
            **error,
        }

    def _details(self, job: AnyJob) -> dict[str, Any]:
        how = job.told()
        below = f"ExperimentRun/dcid.{job.name}"
        logs = {log: self._storage.link(ARTIFACTS, f"{below}/{log}") for log in how["logs"]}
        return {
            **self._run(job),
            "target": str(job.asked.get("computeId", "serverless")).rpartition("/")[2],
            "warnings": [],
            "inputDatasets": [],
            "outputDatasets": [],
            "logFiles": logs,
            "submittedBy": "mock",
            "reportedAt": now(),
        }
