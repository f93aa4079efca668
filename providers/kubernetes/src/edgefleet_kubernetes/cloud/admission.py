"""What a write must pass once it is allowed: accounts, pod security, policies, quotas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgefleet_kubernetes.cloud.api_objects import meta
from edgefleet_kubernetes.cloud.api_status import forbidden
from edgefleet_kubernetes.cloud.pod_security import LEVELS, PodStandard
from edgefleet_kubernetes.cloud.policies import Policies
from edgefleet_kubernetes.cloud.quotas import check_quotas

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from edgefleet_kubernetes.cloud.api_store import Store
    from edgefleet_kubernetes.cloud.api_writes import Asked

_DOMAIN = "pod-security.kubernetes.io"
_TEMPLATES = ("DaemonSet", "Job", "CronJob")


class Admission:
    """Admits or refuses writes, in the order that the API server's plugins have.

    Args:
        store: of namespaces, accounts, policies and quotas.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._policies = Policies(store)

    def __call__(self, asked: Asked) -> None:
        """Nothing where a write is admitted; a pod gets its account's pull secrets.

        Raises:
            Refused: it isn't.
        """
        kind, plain = asked.kind.kind, not asked.how.subresource
        if kind == "Pod" and asked.operation == "CREATE":
            self._account(asked)
        if plain and asked.object is not None and kind in {"Pod", *_TEMPLATES}:
            self._pod_security(asked)
        self._policies.check(asked)
        if asked.operation == "CREATE":
            check_quotas(self._store, asked)

    def _account(self, asked: Asked) -> None:
        spec = (asked.object or {})["spec"]
        name = spec.get("serviceAccountName", "default")
        found = self._store.find("ServiceAccount", name, asked.namespace)
        if found is None:
            told = f"error looking up service account {asked.namespace}/{name}: serviceaccount"
            raise forbidden(asked.kind, asked.name, f'{told} "{name}" not found')
        if found.get("imagePullSecrets") and not spec.get("imagePullSecrets"):
            spec["imagePullSecrets"] = found["imagePullSecrets"]

    def _pod_security(self, asked: Asked) -> None:
        document = asked.object or {}
        home = self._store.find("Namespace", asked.namespace) or {}
        labels: Mapping[str, str] = meta(home).get("labels") or {}
        for mode in ("enforce", "warn"):
            level = labels.get(f"{_DOMAIN}/{mode}", "privileged")
            if level not in LEVELS:
                continue
            if asked.kind.kind == "Pod":
                broken = PodStandard(document, document["spec"]).broken(level)
            elif mode == "warn":
                template = _template(asked.kind.kind, document)
                broken = PodStandard(template, template.get("spec") or {}).broken(level)
            else:
                continue  # only the pods that come of it are held to it
            if not broken:
                continue
            version = labels.get(f"{_DOMAIN}/{mode}-version", "latest")
            told = f'violate{"s" if mode == "enforce" else ""} PodSecurity "{level}:{version}": '
            told += ", ".join(broken)
            if mode == "enforce":
                if asked.old is not None and asked.old["spec"] == document["spec"]:
                    continue
                raise forbidden(asked.kind, asked.name, told)
            asked.how.warn(f"would {told}")


def _template(kind: str, document: Mapping[str, Any]) -> dict[str, Any]:
    spec = document.get("spec") or {}
    if kind == "CronJob":
        spec = (spec.get("jobTemplate") or {}).get("spec") or {}
    found: dict[str, Any] = spec.get("template") or {}
    return found
