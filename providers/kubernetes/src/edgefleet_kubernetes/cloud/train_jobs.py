"""TrainJobs of Kubeflow Trainer, where a cluster has it: a JobSet each, and its Jobs.

Follows kubeflow/trainer's ``pkg/runtime`` (plugins ``torch``, ``plainml`` and ``jobset``) and
kubernetes-sigs/jobset: names, labels, environment, conditions. A JobSet has neither restarts nor an
order of its Jobs here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import clone
from edgefleet_kubernetes.cloud.api_patch import patched
from edgefleet_kubernetes.cloud.api_quantities import amount
from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.cloud.jobs import INDEX, finished
from edgefleet_kubernetes.cloud.node_client import age_s
from edgefleet_kubernetes.cloud.node_matching import is_true, owned, owner_of
from edgefleet_kubernetes.cloud.train_definitions import JOBSET

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

NODE = "node"
PORT = 29500
STEP = "trainer.kubeflow.org/trainjob-ancestor-step"
_JOBSET_NAME = "jobset.sigs.k8s.io/jobset-name"
_REPLICATED = "jobset.sigs.k8s.io/replicatedjob-name"
_INDEX = "jobset.sigs.k8s.io/job-index"
_RESTARTS = "jobset.sigs.k8s.io/restart-attempt"


def upsert(variables: list[Object], more: Iterable[Object]) -> list[Object]:
    """Variables with others added, or in the place of those of the same name."""
    found = {one["name"]: one for one in variables}
    found.update({one["name"]: one for one in more})
    return list(found.values())


def processes(trainer: Mapping[str, object], resources: Object) -> str:
    """How many processes run on a node: as the job says, one a GPU, or one a CPU."""
    given = trainer.get("numProcPerNode")
    if given is not None:
        return str(given)
    every = {**(resources.get("requests") or {}), **(resources.get("limits") or {})}
    if any("gpu" in name.lower() for name in every):
        return "auto"
    asked = (resources.get("requests") or {}).get("cpu") or (resources.get("limits") or {}).get(
        "cpu"
    )
    return str(max(1, int(-(-amount(asked) // 1)))) if asked is not None else "1"


def torch_variables(name: str, nodes: int, per_node: str) -> list[Object]:
    """What ``torchrun`` reads, as the plugin ``torch`` sets it."""
    rank = {"fieldRef": {"fieldPath": f"metadata.annotations['{INDEX}']"}}
    return [
        {"name": "PET_NNODES", "value": str(nodes)},
        {"name": "PET_NPROC_PER_NODE", "value": per_node},
        {"name": "PET_NODE_RANK", "valueFrom": rank},
        {"name": "PET_MASTER_ADDR", "value": f"{name}-{NODE}-0-0.{name}"},
        {"name": "PET_MASTER_PORT", "value": str(PORT)},
    ]


def job_set_of(train_job: Object, runtime: Object, patch_pod: Patch) -> Object:
    """The JobSet that a TrainJob becomes with its runtime.

    Args:
        train_job: it.
        runtime: a ClusterTrainingRuntime or TrainingRuntime.
        patch_pod: applies a strategic patch to a pod's spec.
    """
    meta, spec = train_job["metadata"], train_job["spec"]
    body = clone(runtime["spec"]["template"].get("spec") or {})
    policy = runtime["spec"].get("mlPolicy") or {}
    trainer = spec.get("trainer") or {}
    nodes = int(trainer.get("numNodes") or policy.get("numNodes") or 1)
    for patch in spec.get("runtimePatches") or ():
        _patch(body, patch.get("trainingRuntimeSpec") or {}, patch_pod)
    for job in body.get("replicatedJobs") or ():
        job["replicas"] = 1
        template = job["template"]
        if ((template.get("metadata") or {}).get("labels") or {}).get(STEP) != "trainer":
            continue
        template["spec"]["parallelism"] = template["spec"]["completions"] = nodes
        for container in template["spec"]["template"]["spec"]["containers"]:
            if container["name"] == NODE:
                _train_in(container, meta["name"], trainer, policy, nodes)
    if "suspend" in spec:
        body["suspend"] = spec["suspend"]
    return {
        "apiVersion": f"{JOBSET}/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": meta["name"],
            "namespace": meta["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_of(train_job)],
        },
        "spec": body,
    }


def _train_in(container: Object, name: str, trainer: Object, policy: Object, nodes: int) -> None:
    for key in ("image", "command", "args"):
        if trainer.get(key) is not None:
            container[key] = clone(trainer[key])
    if trainer.get("resourcesPerNode") is not None:
        container["resources"] = clone(trainer["resourcesPerNode"])
    variables = upsert(container.get("env") or [], clone(trainer.get("env") or []))
    if "torch" in policy:
        per_node = processes(trainer, container.get("resources") or {})
        variables = upsert(variables, torch_variables(name, nodes, per_node))
        container.setdefault("ports", []).append({"containerPort": PORT})
    if variables:
        container["env"] = variables


class Patch:
    """Applies strategic patches to pods' specs.

    Args:
        client: of the API server, whose schemas say how lists are merged.
    """

    def __init__(self, client: Client) -> None:
        self._store = client.store

    def __call__(self, spec: Object, patch: Object) -> Object:
        """A pod's spec with a patch in it."""
        pod, _ = patched(
            self._store.schemas,
            self._store.kinds.named("Pod"),
            {"spec": clone(spec)},
            {"spec": clone(patch)},
            type="strategic",
            how=Write(),
        )
        found: Object = pod["spec"]
        return found


def _patch(body: Object, patch: Object, patch_pod: Patch) -> None:
    jobs = {job["name"]: job for job in body.get("replicatedJobs") or ()}
    told = ((patch.get("template") or {}).get("spec") or {}).get("replicatedJobs") or ()
    for one in told:
        job = jobs.get(one["name"])
        if job is None:
            continue
        template = one.get("template") or {}
        _merge_meta(job["template"], template.get("metadata"))
        pod = (template.get("spec") or {}).get("template") or {}
        mine = job["template"]["spec"]["template"]
        _merge_meta(mine, pod.get("metadata"))
        if pod.get("spec"):
            mine["spec"] = patch_pod(mine["spec"], pod["spec"])


def _merge_meta(holder: Object, more: Object | None) -> None:
    for key in ("labels", "annotations"):
        if (more or {}).get(key):
            holder.setdefault("metadata", {}).setdefault(key, {}).update((more or {})[key])


def jobs_of(job_set: Object) -> list[Object]:
    """The Jobs that a JobSet is made of."""
    meta, spec = job_set["metadata"], job_set["spec"]
    network = spec.get("network") or {}
    found = []
    for replicated in spec.get("replicatedJobs") or ():
        for index in range(replicated.get("replicas", 1)):
            labels = {
                _JOBSET_NAME: meta["name"],
                _REPLICATED: replicated["name"],
                _INDEX: str(index),
                _RESTARTS: "0",
            }
            template = clone(replicated["template"])
            own = template.get("metadata") or {}
            body = template["spec"]
            body["completionMode"] = "Indexed"
            body.setdefault("parallelism", 1)
            body.setdefault("completions", body["parallelism"])
            body["suspend"] = bool(spec.get("suspend"))
            pod = body["template"]
            pod.setdefault("metadata", {}).setdefault("labels", {}).update(labels)
            pod["spec"].setdefault("restartPolicy", "OnFailure")
            if network.get("enableDNSHostnames", True):
                pod["spec"]["subdomain"] = network.get("subdomain") or meta["name"]
            found.append(
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "metadata": {
                        "name": f"{meta['name']}-{replicated['name']}-{index}",
                        "namespace": meta["namespace"],
                        "labels": {**(own.get("labels") or {}), **labels},
                        "annotations": dict(own.get("annotations") or {}),
                        "ownerReferences": [owner_of(job_set)],
                    },
                    "spec": body,
                }
            )
    return found


class TrainJobController:
    """Carries TrainJobs and JobSets out; nothing where the cluster has none of them.

    Args:
        client: of the API server.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._patch = Patch(client)

    def reconcile(self) -> None:
        """Look at every TrainJob and JobSet."""
        kinds = {kind.kind for kind in self._client.store.kinds}
        if "TrainJob" in kinds:
            for train_job in self._client.list("TrainJob"):
                if not _over(train_job) and not train_job["metadata"].get("deletionTimestamp"):
                    self._train(train_job)
        if "JobSet" in kinds:
            for job_set in self._client.list("JobSet"):
                if not job_set["metadata"].get("deletionTimestamp"):
                    self._run(job_set)

    # -- TrainJobs

    def _train(self, train_job: Object) -> None:
        meta, spec = train_job["metadata"], train_job["spec"]
        reference = spec["runtimeRef"]
        kind = reference.get("kind", "ClusterTrainingRuntime")
        where = "" if kind == "ClusterTrainingRuntime" else meta["namespace"]
        runtime = self._client.get(kind, where, reference["name"])
        if runtime is None:
            message = f"unsupported runtime: {kind}.trainer.kubeflow.org {reference['name']}"
            self._tell(train_job, "Failed", "TrainingRuntimeNotSupported", message)
            return
        limit = spec.get("activeDeadlineSeconds")
        if limit and age_s(meta["creationTimestamp"]) >= limit and not spec.get("suspend"):
            message = "TrainJob exceeded its active deadline"
            self._tell(train_job, "Failed", "DeadlineExceeded", message)
            found = self._client.get("JobSet", meta["namespace"], meta["name"])
            if found is not None:
                self._client.delete(found)
            return
        job_set = self._client.get("JobSet", meta["namespace"], meta["name"])
        if job_set is None:
            try:
                job_set = self._client.create(job_set_of(train_job, runtime, self._patch))
            except Refused as refused:
                self._client.event(train_job, "Failed", refused.message, warning=True)
                return
        elif bool(job_set["spec"].get("suspend")) != bool(spec.get("suspend")):

            def suspend(found: Object) -> None:
                found["spec"]["suspend"] = bool(spec.get("suspend"))

            self._client.change(job_set, suspend)
        self._suspended(train_job)
        self._follow(train_job, job_set)

    def _suspended(self, train_job: Object) -> None:
        if train_job["spec"].get("suspend"):
            self._tell(train_job, "Suspended", "Suspended", "TrainJob is suspended")
        elif is_true(train_job, "Suspended"):
            self._tell(train_job, "Suspended", "Resumed", "TrainJob is resumed", "False")

    def _follow(self, train_job: Object, job_set: Object) -> None:
        status = job_set.get("status") or {}
        self._client.set_status(
            train_job, jobsStatus=clone(status.get("replicatedJobsStatus") or [])
        )
        for mine, theirs in (("Complete", "Completed"), ("Failed", "Failed")):
            for one in status.get("conditions") or ():
                if one["type"] == theirs and one["status"] == "True":
                    self._tell(train_job, mine, one["reason"], one["message"])

    def _tell(
        self, thing: Object, kind: str, reason: str, message: str, status: str = "True"
    ) -> None:
        one = {"type": kind, "status": status, "reason": reason, "message": message}
        for found in (thing.get("status") or {}).get("conditions") or ():
            if all(found.get(key) == value for key, value in one.items()):
                return
        self._client.set_condition(thing, one)

    # -- JobSets

    def _run(self, job_set: Object) -> None:
        meta = job_set["metadata"]
        mine = [job for job in self._client.list("Job") if owned(job, job_set)]
        if is_true(job_set, "Completed") or is_true(job_set, "Failed"):
            for job in mine:
                if not finished(job):
                    self._client.delete(job)
            return
        self._name(job_set)
        names = {job["metadata"]["name"] for job in mine}
        for wanted in jobs_of(job_set):
            if wanted["metadata"]["name"] not in names:
                try:
                    self._client.create(wanted)
                except Refused as refused:
                    self._client.event(job_set, "JobCreationFailed", refused.message, warning=True)
        for job in mine:
            self._suspend(job, suspend=bool(job_set["spec"].get("suspend")))
        counts = [
            _counted(one["name"], mine) for one in job_set["spec"].get("replicatedJobs") or ()
        ]
        self._client.set_status(job_set, replicatedJobsStatus=counts)
        failed = next((job for job in mine if is_true(job, "Failed")), None)
        if failed is not None:
            first = failed["metadata"]["name"]
            message = f"jobset failed due to one or more job failures (first failed job: {first})"
            self._tell(job_set, "Failed", "FailedJobs", message)
            self._client.event(job_set, "FailedJobs", message, warning=True)
        elif mine and len(mine) == len(jobs_of(job_set)) and all(map(_done, mine)):
            message = "jobset completed successfully"
            self._tell(job_set, "Completed", "AllJobsCompleted", message)
            self._client.event(job_set, "AllJobsCompleted", f"{message}: {meta['name']}")

    def _name(self, job_set: Object) -> None:
        """Have the headless Service that gives pods their names."""
        meta = job_set["metadata"]
        network = job_set["spec"].get("network") or {}
        if not network.get("enableDNSHostnames", True):
            return
        name = network.get("subdomain") or meta["name"]
        if self._client.get("Service", meta["namespace"], name) is None:
            self._client.create(
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "metadata": {
                        "name": name,
                        "namespace": meta["namespace"],
                        "ownerReferences": [owner_of(job_set)],
                    },
                    "spec": {"clusterIP": "None", "selector": {_JOBSET_NAME: meta["name"]}},
                }
            )

    def _suspend(self, job: Object, *, suspend: bool) -> None:
        if bool(job["spec"].get("suspend")) == suspend or finished(job):
            return

        def edit(found: Object) -> None:
            found["spec"]["suspend"] = suspend

        self._client.change(job, edit)


def _over(train_job: Object) -> bool:
    return is_true(train_job, "Complete") or is_true(train_job, "Failed")


def _done(job: Object) -> bool:
    return is_true(job, "Complete")


def _counted(name: str, jobs: Sequence[Object]) -> Object:
    """How the Jobs of one of a JobSet's parts are doing."""
    mine = [job for job in jobs if job["metadata"]["labels"].get(_REPLICATED) == name]
    ended = [job for job in mine if finished(job)]
    running = [job for job in mine if not finished(job) and not job["spec"].get("suspend")]
    ready = [
        job
        for job in running
        if (job.get("status") or {}).get("succeeded", 0) + (job.get("status") or {}).get("ready", 0)
        >= job["spec"].get("parallelism", 1)
    ]
    return {
        "name": name,
        "ready": len(ready),
        "succeeded": sum(map(_done, mine)),
        "failed": len(ended) - sum(map(_done, mine)),
        "active": sum((job.get("status") or {}).get("active", 0) > 0 for job in running),
        "suspended": sum(bool(job["spec"].get("suspend")) for job in mine),
    }
