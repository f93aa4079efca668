"""Settings of the Kubernetes provider. Imports no client: naming a provider must cost nothing."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edgefleet.plugins.provider import RemoteSettings

# RFC 1123 label, as names of namespaces are, with room for the suffix of the reports' namespace.
_NAMESPACE = r"^[a-z0-9](?:[-a-z0-9]{0,52}[a-z0-9])?$"
_OBJECT = r"^[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?$"
_SERVICE = re.compile(r"[a-z]")
# OCI distribution specification 1.1, "Pulling manifests": a name, below a host with a port.
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = rf"^{_PART}(?:/{_PART})*$"
_REGISTRY = (
    rf"^oci://[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?(?::\d{{1,5}})?(?:/{_PART})+$"
)
# A reference without tag, as image volumes name it; with the tag it has 128 characters more.
_MODEL_IMAGES = rf"^[A-Za-z0-9](?:[A-Za-z0-9.-]{{0,251}}[A-Za-z0-9])?(?::\d{{1,5}})?(?:/{_PART})+$"
_SEGMENTS = rf"{_REGISTRY}|^gs://[a-z0-9][a-z0-9._-]{{1,220}}[a-z0-9](?:/[\w.~+=-]+)*$"
_LABEL_KEY = (
    r"^(?:[a-z0-9](?:[-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?$"
)
_LABEL_VALUE = r"^(?:[A-Za-z0-9](?:[\w.-]{0,61}[A-Za-z0-9])?)?$"
_EVENTS = r"^(?:https?|mqtts?)://[^\s/?#@]+(?:/[^\s?#]*)?$|^pubsub://[a-z0-9:.-]+/[\w.~+%-]+$"
_SUBJECT = r"^(?:(?:User|Group):\S+|ServiceAccount:[a-z0-9-]{1,63}:[a-z0-9.-]{1,253})$"
_QUANTITY = r"^\d+(?:\.\d+)?(?:[munkMGTPE]|[KMGTPE]i)?$"

LabelKey = Annotated[str, Field(pattern=_LABEL_KEY)]
LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE)]
Quantity = Annotated[str, Field(pattern=_QUANTITY)]


class Toleration(BaseModel):
    """A taint that pods go onto a node in spite of, as Kubernetes writes it.

    Attributes:
        key: of the taint; None for every taint.
        operator: ``Exists`` or ``Equal``.
        value: of the taint, for ``Equal``.
        effect: ``NoSchedule``, ``PreferNoSchedule`` or ``NoExecute``; None for all.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    key: LabelKey | None = None
    operator: Annotated[str, Field(pattern="^(?:Exists|Equal)$")] = "Exists"
    value: LabelValue | None = None
    effect: Annotated[str, Field(pattern="^(?:NoSchedule|PreferNoSchedule|NoExecute)$")] | None = (
        None
    )


class KubernetesSettings(RemoteSettings):
    """What ``[profiles.<name>.kubernetes]`` may hold. Credentials are the kubeconfig's affair.

    Attributes:
        kubeconfig: file with clusters and credentials, relative to the profile file; None for what
            ``KUBECONFIG`` names, ``~/.kube/config``, or the pod's own service account.
        contexts: contexts of the kubeconfig, one a cluster, the one that holds state and trains
            first; empty for the current one.
        namespace: where the fleet's objects lie. Devices' reports lie in ``NAMESPACE-reports``,
            runs in ``NAMESPACE-training``.
        registry: address of the repository that models are kept in, as
            ``oci://HOST[:PORT]/REPOSITORY``; needed for the registry role and as a release's
            source. One on loopback is spoken to in plain HTTP, every other over TLS.
        registry_credentials: file in docker's ``config.json`` form, relative to the profile file;
            None for the places that docker and podman look in.
        mount_from: other repositories of the same registry, whose blobs are taken over where they
            are there already.
        chunk_mib: size of the chunks that larger blobs are sent in, in MiB.
        pull_secret: name of a Secret of type ``kubernetes.io/dockerconfigjson`` in the namespace
            that devices read models with; None where nodes or workload identity do.
        runtime_image: address of the container image of the device runtime, for
            ``edgefleet install``.
        model_images: repository of images that hold a release each, as
            ``HOST[:PORT]/REPOSITORY``, for nodes that reach no registry: a group's pods then mount
            their release's image, so that publishing restarts them. None for no images.
        runtime_class: RuntimeClass of the runtime's pods, such as ``nvidia``.
        device_resources: resources of device plugins that a runtime's pod gets, such as
            ``{"nvidia.com/gpu": "1"}``.
        tolerations: taints of nodes that the runtime's pods go onto in spite of.
        store: what the runtime keeps models on: ``claim``, a PersistentVolume that is the folder
            `host_path` of whichever node a pod is on, or ``hostPath``, that folder without one.
        host_path: folder on each node that the runtime keeps models in.
        runtime_requests: what a runtime's pod is promised, by ``cpu``, ``memory``.
        runtime_limits: what it can't go beyond.
        priority_class: PriorityClass of the runtime's pods; None for the cluster's default.
        watch_pointers: whether devices also watch their group's pointer through the API server,
            which brings it within seconds; else kubelet brings it, within one to two minutes.
        min_available: pods of a group that evictions leave; 0 for no disruption budget.
        max_unavailable: nodes of a group whose runtime may be away while the runtime is upgraded,
            as a number or a share such as ``10%``.
        operators: who gets the roles of an operator: ``User:NAME``, ``Group:NAME`` or
            ``ServiceAccount:NAMESPACE:NAME``, as the cluster knows them.
        delivery: ``apply`` writes to the clusters' API servers; ``git`` writes manifests into
            `git_dir`, for Flux or Argo CD. Devices are then seen through `contexts` alone.
        git_dir: folder in the work tree of a git repository, relative to the profile file.
        events: where hot events are sent: ``https://…``, ``mqtts://…`` or
            ``pubsub://PROJECT/TOPIC``; None for nowhere.
        segments: where devices write their segments and samples, each below its own name:
            ``oci://HOST[:PORT]/REPOSITORY``, or ``gs://BUCKET/PREFIX``, which the provider gcp
            reads; None for nowhere.
        segments_secret: name of a Secret of type ``kubernetes.io/dockerconfigjson`` in the
            namespace that devices write them with; None where `pull_secret` may.
        training_image: container image that runs use which name none; needed for training only.
        training_secret: name of a Secret of type ``kubernetes.io/dockerconfigjson`` in the
            namespace of training that runs read their code and data from the registry with, and
            write what they leave; None where the registry asks nobody.
        training_checkpoints: name of a PersistentVolumeClaim in the namespace of training; a run
            that starts anew finds there what it kept. None for no checkpoints.
        training_gpu: resource that a GPU is asked for as.
        training_autoscaled: nodes come when pods wait for them, so that a run may ask for what no
            node has now.
        training_node_selector: labels of the nodes that runs may use.
        training_tolerations: taints of nodes that runs go onto in spite of.
        training_service_account: ServiceAccount of training's pods; None for the namespace's.
        training_runtime: name of the ClusterTrainingRuntime for runs on several nodes.
        training_ttl_s: how long a run's Job is kept when it has ended, in seconds.
        max_machines: most machines that one run may ask for.
        max_runtime_s: runs that name no limit are ended after so many seconds.
        timeout_s: how long one call to an API server may take, in seconds.
        cache: where outputs of runs are kept on this machine; relative to the profile file.
    """

    provider: ClassVar[str] = "kubernetes"
    kubeconfig: Path | None = None
    contexts: tuple[Annotated[str, Field(min_length=1, max_length=253)], ...] = ()
    namespace: str = Field(default="edgefleet", pattern=_NAMESPACE)
    registry: str | None = Field(default=None, pattern=_REGISTRY)
    registry_credentials: Path | None = None
    mount_from: tuple[Annotated[str, Field(pattern=_REPOSITORY)], ...] = ()
    chunk_mib: int = Field(default=16, ge=1, le=1024)
    pull_secret: str | None = Field(default=None, pattern=_OBJECT)
    runtime_image: str | None = Field(default=None, min_length=1, max_length=255)
    model_images: str | None = Field(default=None, pattern=_MODEL_IMAGES, max_length=255)
    runtime_class: str | None = Field(default=None, pattern=_OBJECT)
    device_resources: dict[LabelKey, Quantity] = Field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    store: Literal["claim", "hostPath"] = "claim"
    host_path: str = Field(default="/var/lib/edgefleet", pattern=r"^/[^\s:]*[^\s:/]$")
    runtime_requests: dict[LabelKey, Quantity] = Field(
        default_factory=lambda: {"cpu": "100m", "memory": "256Mi"}
    )
    runtime_limits: dict[LabelKey, Quantity] = Field(default_factory=dict)
    priority_class: str | None = Field(default=None, pattern=_OBJECT)
    watch_pointers: bool = True
    min_available: int = Field(default=1, ge=0)
    max_unavailable: str = Field(default="10%", pattern=r"^(?:[1-9]\d{0,4}|[1-9]\d?%|100%)$")
    operators: tuple[Annotated[str, Field(pattern=_SUBJECT)], ...] = ()
    delivery: Literal["apply", "git"] = "apply"
    git_dir: Path | None = None
    events: str | None = Field(default=None, pattern=_EVENTS)
    segments: str | None = Field(default=None, pattern=_SEGMENTS)
    segments_secret: str | None = Field(default=None, pattern=_OBJECT)
    training_image: str | None = Field(default=None, min_length=1, max_length=255)
    training_secret: str | None = Field(default=None, pattern=_OBJECT)
    training_checkpoints: str | None = Field(default=None, pattern=_OBJECT)
    training_gpu: LabelKey = "nvidia.com/gpu"
    training_autoscaled: bool = False
    training_node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    training_tolerations: tuple[Toleration, ...] = ()
    training_service_account: str | None = Field(default=None, pattern=_OBJECT)
    training_runtime: str | None = Field(default=None, pattern=_OBJECT)
    training_ttl_s: int = Field(default=604_800, ge=60)
    max_machines: int = Field(default=8, ge=1)
    max_runtime_s: int = Field(default=86_400, ge=1, le=2_592_000)
    timeout_s: float = Field(default=30.0, gt=0, le=600)
    cache: Path = Path(".edgefleet/kubernetes")

    @field_validator("prefix")
    @classmethod
    def _names_services(cls, prefix: str) -> str:
        if not _SERVICE.match(prefix):
            raise ValueError("names of Services begin with a letter")
        return prefix

    @field_validator("contexts")
    @classmethod
    def _are_apart(cls, contexts: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(contexts)) < len(contexts):
            raise ValueError("a context is named twice")
        return contexts

    @field_validator("registry", mode="before")
    @classmethod
    def _ends_without_slash(cls, url: object) -> object:
        return url.removesuffix("/") if isinstance(url, str) else url

    @property
    def training_namespace(self) -> str:
        """Where runs lie: who starts pods there reaches no token, pointer or disk of a device."""
        return f"{self.namespace}-training"

    @property
    def reports_namespace(self) -> str:
        """Where devices' reports lie, away from what only operators may write."""
        return f"{self.namespace}-reports"
