"""The objects that run a training script: a Job, or Kubeflow's TrainJob for several machines.

Rules kept here:

- A pod passes the "restricted" pod security standard: no root, no privileges, no token of the API
  server's.
- The image needs Python only. `pod_entry` comes as text in the command, everything else from the
  registry; secrets come from a Secret and are in no argument.
- A pod that Kubernetes takes away (a drain, a preemption, a node that is lost) doesn't count as a
  failure and starts anew; a script that fails isn't tried again.
"""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces import training_entry
from edgefleet.interfaces.job_parts import params_text
from edgefleet.training import PARAMS_VARIABLE
from edgefleet_kubernetes import pod_entry
from edgefleet_kubernetes.names import DOMAIN, fleet_labels

if TYPE_CHECKING:
    from edgefleet.interfaces.training import TrainingJob
    from edgefleet_kubernetes.settings import KubernetesSettings

CONTAINER = "train"
WORK = "/edgefleet"
MOUNTED = "/edgefleet-data"
CHECKPOINTS = "/edgefleet-checkpoints"
RANK = "JOB_COMPLETION_INDEX"  # of a pod of an indexed Job, which a JobSet's are too
TRAINER_API = "trainer.kubeflow.org/v1alpha1"
USER = 10001
GRACE_S = 30
MAX_PARAMS_BYTES = 64 << 10  # Linux takes no variable above 128 KiB
INSTANCE = "node.kubernetes.io/instance-type"
PARAMS = f"{DOMAIN}/params"
SCRIPT = f"{DOMAIN}/script"
SUBMITTED = f"{DOMAIN}/submitted"  # more exactly than the whole seconds of the API server
SECRET_KEY = ".dockerconfigjson"  # noqa: S105 - where such a Secret keeps it
PVC = "pvc://"
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}


class Claim(NamedTuple):
    """Data in a volume of the cluster: ``pvc://CLAIM[/PATH]``.

    Attributes:
        name: of the PersistentVolumeClaim, in the fleet's namespace.
        path: below the volume; ``.`` for all of it.
    """

    name: str
    path: str


class Asked(NamedTuple):
    """What a run is for.

    Attributes:
        run_id: name of the object.
        store: address of the repository that files travel through, ``https://HOST/v2/REPOSITORY``.
        code: digest of the manifest with script, entry and order.
        data: digest of the manifest with the data; None where there are none, or in a volume.
        claim: a volume with the data; None otherwise.
        outputs: tag that outputs are kept under.
    """

    run_id: str
    store: str
    code: str
    data: str | None
    claim: Claim | None
    outputs: str


def job_object(job: TrainingJob, asked: Asked, settings: KubernetesSettings) -> dict[str, Any]:
    """A Job that runs a script on one machine."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": _metadata(job, asked, settings),
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": limit_s(job, settings),
            "ttlSecondsAfterFinished": settings.training_ttl_s,
            "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [DISRUPTED]}]},
            "template": {
                "metadata": {"labels": _labels(asked, settings)},
                "spec": _pod(job, asked, settings),
            },
        },
    }


def train_job_object(
    job: TrainingJob, asked: Asked, settings: KubernetesSettings
) -> dict[str, Any]:
    """A TrainJob that runs a script on several machines, in the environment of its runtime.

    Raises:
        UnsupportedError: something was asked for that a runtime decides.
    """
    refused = {
        "data in a volume": asked.claim is not None,
        "a machine type": job.resources.instance is not None,
        "training_checkpoints": settings.training_checkpoints is not None,
    }
    for what, given in refused.items():
        if given:
            raise UnsupportedError(
                f"a run on several machines takes no {what}: its training runtime decides that",
                cure=f"put it in the ClusterTrainingRuntime {settings.training_runtime!r}",
            )
    return {
        "apiVersion": TRAINER_API,
        "kind": "TrainJob",
        "metadata": _metadata(job, asked, settings),
        "spec": {
            "activeDeadlineSeconds": limit_s(job, settings),
            "runtimeRef": {
                "name": settings.needed("training_runtime", "a run on several machines")
            },
            "trainer": {
                "image": settings.needed("training_image", "training"),
                "command": _command(),
                "env": _variables(job, asked, settings),
                "numNodes": job.resources.count,
                "resourcesPerNode": _resources(job, settings),
            },
        },
    }


def limit_s(job: TrainingJob, settings: KubernetesSettings) -> int:
    """After how many seconds a run is ended."""
    return math.ceil(job.resources.max_runtime_s or settings.max_runtime_s)


def _metadata(job: TrainingJob, asked: Asked, settings: KubernetesSettings) -> dict[str, Any]:
    return {
        "name": asked.run_id,
        "namespace": settings.training_namespace,
        "labels": _labels(asked, settings),
        "annotations": {
            PARAMS: params_text(job.params, max_bytes=MAX_PARAMS_BYTES),
            SCRIPT: job.script.name,
            SUBMITTED: datetime.now(UTC).isoformat(),
        },
    }


def _labels(asked: Asked, settings: KubernetesSettings) -> dict[str, str]:
    return fleet_labels(settings.prefix, part="run", run=asked.run_id)


def _command() -> list[str]:
    return ["python3", "-c", Path(pod_entry.__file__).read_text(encoding="utf-8")]


def _variables(
    job: TrainingJob, asked: Asked, settings: KubernetesSettings, **places: str
) -> list[dict[str, Any]]:
    arguments = []
    if asked.claim is not None:
        arguments += ["--data", MOUNTED]
    if job.resources.count > 1:
        arguments += ["--rank", RANK]
    order = {
        "store": asked.store,
        "code": asked.code,
        "data": asked.data,
        "outputs": asked.outputs,
        "entry": training_entry.ENTRY,
        "arguments": arguments,
        "checkpoints": f"{CHECKPOINTS}/{asked.run_id}" if settings.training_checkpoints else None,
        "rank": RANK,
    }
    params = params_text(job.params, max_bytes=MAX_PARAMS_BYTES)
    values = {pod_entry.ORDER: json.dumps(order), PARAMS_VARIABLE: params}
    found: list[dict[str, Any]] = [
        {"name": name, "value": value} for name, value in {**values, **places}.items()
    ]
    if settings.training_secret is not None:
        secret = {"name": settings.training_secret, "key": SECRET_KEY}
        found.append({"name": pod_entry.AUTH, "valueFrom": {"secretKeyRef": secret}})
    return found


def _resources(job: TrainingJob, settings: KubernetesSettings) -> dict[str, Any]:
    limits: dict[str, str] = {}
    requests: dict[str, str] = {}
    if job.resources.memory_gib is not None:
        limits["memory"] = requests["memory"] = f"{math.ceil(job.resources.memory_gib * 1024)}Mi"
    if job.resources.gpus:
        limits[settings.training_gpu] = requests[settings.training_gpu] = str(job.resources.gpus)
    return {"limits": limits, "requests": requests} if limits else {}


def _pod(job: TrainingJob, asked: Asked, settings: KubernetesSettings) -> dict[str, Any]:
    volumes: list[dict[str, Any]] = [{"name": "work", "emptyDir": {}}]
    mounts: list[dict[str, Any]] = [{"name": "work", "mountPath": WORK}]
    if asked.claim is not None:
        claim = {"claimName": asked.claim.name, "readOnly": True}
        volumes.append({"name": "data", "persistentVolumeClaim": claim})
        mounts.append({"name": "data", "mountPath": MOUNTED, "readOnly": True})
    if settings.training_checkpoints is not None:
        claim = {"claimName": settings.training_checkpoints}
        volumes.append({"name": "checkpoints", "persistentVolumeClaim": claim})
        mounts.append({"name": "checkpoints", "mountPath": CHECKPOINTS})
    selector = dict(settings.training_node_selector)
    if job.resources.instance is not None:
        selector[INSTANCE] = job.resources.instance
    container = {
        "name": CONTAINER,
        "image": settings.needed("training_image", "training"),
        "command": _command(),
        "env": _variables(
            job, asked, settings, **{pod_entry.WORK: f"{WORK}/run", "HOME": f"{WORK}/home"}
        ),
        "volumeMounts": mounts,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    if resources := _resources(job, settings):
        container["resources"] = resources
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": GRACE_S,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": volumes,
    }
    if selector:
        pod["nodeSelector"] = selector
    if settings.training_tolerations:
        pod["tolerations"] = [
            one.model_dump(exclude_none=True) for one in settings.training_tolerations
        ]
    if settings.training_service_account is not None:
        pod["serviceAccountName"] = settings.training_service_account
    return pod
