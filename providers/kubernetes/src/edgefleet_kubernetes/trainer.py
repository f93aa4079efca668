"""The trainer: Jobs that run a plain script in any image with Python, TrainJobs for several nodes.

Rules kept here:

- What can't be given or doesn't fit is refused before anything is sent.
- A run's id is the name of its Job or TrainJob; its random part makes a repeated request harmless.
- Code, data and what a run leaves travel through the registry, as artifacts.
- A run that was cancelled is suspended, which ends its pods, and stays to be seen.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces import job_parts, script_archive
from edgefleet.interfaces.abilities import CanProve, CanTrainDistributed
from edgefleet.interfaces.run_outputs import drop
from edgefleet.interfaces.trainer import Trainer
from edgefleet.interfaces.training import RunState
from edgefleet_kubernetes import datasets, job_request
from edgefleet_kubernetes.artifacts import CODE, Artifacts, open_artifacts
from edgefleet_kubernetes.clusters import Clusters
from edgefleet_kubernetes.names import RUN, fleet_labels
from edgefleet_kubernetes.proofs import prove
from edgefleet_kubernetes.run_log import RunLog, RunLogs
from edgefleet_kubernetes.run_states import CANCELLED, is_over, status_of, submitted
from edgefleet_kubernetes.service import KubernetesService
from edgefleet_kubernetes.training_nodes import check_nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.interfaces.abilities import Proof
    from edgefleet.interfaces.training import RunStatus, TrainingJob
    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.cluster import Cluster, Object
    from edgefleet_kubernetes.settings import KubernetesSettings

# What pods of a run are labelled with: ours, and JobSet's, which bears the TrainJob's name.
_POD_LABELS = {"Job": RUN, "TrainJob": "jobset.sigs.k8s.io/jobset-name"}
_INDEX = "batch.kubernetes.io/job-completion-index"
_SUSPENDED = {"spec": {"suspend": True}}


class KubernetesTrainer(KubernetesService, CanTrainDistributed, CanProve, Trainer):
    """Runs scripts on the first of the profile's clusters.

    Args:
        clients: to reach clusters with; closed with the trainer.
        settings: image, registry, resources, prefix.
        base: folder that a relative ``cache`` starts from.
    """

    def __init__(self, clients: Clients, settings: KubernetesSettings, *, base: Path) -> None:
        self._clients, self._settings, self._base = clients, settings, base
        self._cache = (base / settings.cache.expanduser()).absolute() / settings.prefix / "runs"
        self._logs = RunLogs()
        self._opened: Artifacts | None = None

    def close(self) -> None:
        self._logs.close()
        if self._opened is not None:
            self._opened.close()
        super().close()

    def _proofs(self) -> Iterator[Proof]:
        return prove(self._cluster, self._settings, ("trainer",))

    @property
    def _cluster(self) -> Cluster:
        return next(iter(Clusters(self._clients)))

    @property
    def _artifacts(self) -> Artifacts:
        if self._opened is None:
            self._opened = open_artifacts(self._settings, self._base)
        return self._opened

    @property
    def max_machines(self) -> int:
        has = self._cluster.serves("TrainJob", self._settings.training_namespace)
        return self._settings.max_machines if has else 1

    def _check_machines(self, count: int) -> None:
        self._settings.needed("training_runtime", "a run on several machines")
        most = self.max_machines
        if count <= most:
            return
        lacking = most == 1 and self._settings.max_machines > 1
        raise UnsupportedError(
            f"{count} machines were asked for, {most} can be given"
            + (": the cluster has no Kubeflow Trainer (TrainJob)" if lacking else ""),
            cure="install Kubeflow Trainer in the cluster, or ask for one machine"
            if lacking
            else "ask for fewer, or raise `max_machines` in the profile",
        )

    def _submit(self, job: TrainingJob) -> str:
        settings = self._settings
        settings.needed("training_image", "training")
        job_parts.params_text(job.params, max_bytes=job_request.MAX_PARAMS_BYTES)
        several = job.resources.count > 1
        if several:
            self._check_machines(job.resources.count)
        if not settings.training_autoscaled:
            nodes = list(self._cluster.list("Node", labels=settings.training_node_selector))
            check_nodes(nodes, job.resources, settings.training_gpu)
        archive = script_archive.pack(job.script.parent)
        run_id = _new_id(job.name)
        brought = None if job.data is None else datasets.bring(job.data, self._artifacts)
        inside = None if brought is None else brought.inside
        files = job_parts.files_of(archive, job_parts.order_of(job.script, job, inside))
        code = self._artifacts.send(files, f"code-{run_id}", CODE)
        asked = job_request.Asked(
            run_id=run_id,
            store=self._artifacts.address,
            code=code,
            data=None if brought is None else brought.manifest,
            claim=None if brought is None else brought.claim,
            outputs=f"outputs-{run_id}",
        )
        make = job_request.train_job_object if several else job_request.job_object
        # Nobody else has this name: a request that is repeated changes nothing.
        self._cluster.apply(make(job, asked, settings))
        return run_id

    def _find(self, run_id: str) -> Object | None:
        for kind in _POD_LABELS:
            found = self._cluster.get(kind, run_id, self._settings.training_namespace)
            if found is not None and _mine(found, self._settings):
                return found
        return None

    def _status(self, run_id: str) -> RunStatus | None:
        found = self._find(run_id)
        if found is None:
            return None
        pods = self._pods(found)
        status = status_of(found, pods)
        waits = status.state is RunState.PENDING and status.reason is None
        if not waits and not is_over(found):
            return status
        return status_of(found, pods, self._events(found, pods))

    def _pods(self, run: Object) -> list[Object]:
        wanted = {_POD_LABELS[run["kind"]]: run["metadata"]["name"]}
        pods = self._cluster.list("Pod", self._settings.training_namespace, labels=wanted)
        return sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")))

    def _events(self, run: Object, pods: list[Object]) -> list[Object]:
        """What was told of a run and its pods; of those that are gone, once the run is over."""
        namespace, name = self._settings.training_namespace, f"{run['metadata']['name']}-"
        about = [{"involvedObject.uid": str(one["metadata"]["uid"])} for one in (run, *pods)]
        found = [
            event
            for fields in about
            for event in self._cluster.list("Event", namespace, fields=fields)
        ]
        if is_over(run) and not pods:
            of_pods = self._cluster.list("Event", namespace, fields={"involvedObject.kind": "Pod"})
            found += (one for one in of_pods if one["involvedObject"]["name"].startswith(name))
        return found

    def _list(self) -> Iterator[RunStatus]:
        labels = fleet_labels(self._settings.prefix, part="run")
        found = [
            run
            for kind in _POD_LABELS
            if self._cluster.serves(kind, self._settings.training_namespace)
            for run in self._cluster.list(kind, self._settings.training_namespace, labels=labels)
        ]
        found.sort(key=submitted, reverse=True)
        for run in found:
            yield status_of(run, self._pods(run) if _may_run(run) else ())

    def _log(self, run_id: str, offset: int) -> bytes:
        def make() -> RunLog | None:
            run = self._find(run_id)
            if run is None:
                return None
            namespace = self._settings.training_namespace
            return RunLog(self._cluster, namespace, lambda: self._first_pods(run))

        return self._logs.read(run_id, offset, make)

    def _first_pods(self, run: Object) -> list[Object]:
        """Pods of the run's first machine."""
        return [
            pod
            for pod in self._pods(run)
            if (pod["metadata"].get("annotations") or {}).get(_INDEX, "0") == "0"
        ]

    def _cancel(self, run_id: str) -> None:
        found = self._find(run_id)
        if found is None or status_of(found).state.ended:
            return
        now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        change = {**_SUSPENDED, "metadata": {"annotations": {CANCELLED: now}}}
        self._cluster.merge(found["kind"], run_id, change, self._settings.training_namespace)

    def _outputs(self, run_id: str) -> Path:
        folder = self._cache / run_id
        if not folder.is_dir():
            self._artifacts.fetch(f"outputs-{run_id}", folder)
        return folder

    def _forget(self, run_id: str) -> None:
        drop(self._cache / run_id)


def _new_id(name: str) -> str:
    """A name that no other run has: of a Job, or of a JobSet, which begins with a letter."""
    found = job_parts.new_id(name)
    return found if found[0].isalpha() else f"run-{found}"


def _may_run(run: Object) -> bool:
    """Whether a run may have pods that run."""
    return bool((run.get("status") or {}).get("active")) or run["kind"] != "Job"


def _mine(run: Object, settings: KubernetesSettings) -> bool:
    labels = run["metadata"].get("labels") or {}
    return bool(fleet_labels(settings.prefix, part="run").items() <= labels.items())
