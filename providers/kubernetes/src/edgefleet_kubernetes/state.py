"""The profile's shared documents as ConfigMaps, written by resource version.

Rules kept here:

- One object a document, in the namespace of the first context's cluster. Its name is a digest of
  the key, which an annotation tells: keys are paths, names of objects aren't.
- A write names the resource version that was read, or makes the object, which fails where it is.
- Each write marks the object anew, so that a write whose answer was lost is known as done. So is
  a deletion that was repeated and finds nothing.
- A document that an object of etcd's can't hold is refused before it is sent.
"""

from __future__ import annotations

import base64
import binascii
import uuid
from typing import TYPE_CHECKING, Any

from edgefleet.errors import DocumentError, LimitExceededError
from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_kubernetes.errors import reason_of
from edgefleet_kubernetes.names import DOMAIN, FLEET, KEY, MANAGER, PART, fleet_labels, state_name
from edgefleet_kubernetes.retries import maybe_done_before
from edgefleet_kubernetes.service import KubernetesService

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_kubernetes.clients import Clients
    from edgefleet_kubernetes.settings import KubernetesSettings

MAX_OBJECT = 1 << 20  # bytes that a ConfigMap's values may have in all
PAGE = 500
_FIELD = "document"
_MARK = f"{DOMAIN}/write"
_NAMES = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class KubernetesStateStore(KubernetesService, StateStore):
    """Documents in ConfigMaps of the fleet's namespace, for any number of operators.

    Args:
        clients: to reach the cluster with; closed with the store.
        settings: namespace and prefix.
    """

    longest_pause_s = 0.2

    def __init__(self, clients: Clients, settings: KubernetesSettings) -> None:
        self._clients, self._settings = clients, settings
        self._path = f"api/v1/namespaces/{settings.namespace}/configmaps"

    def _read(self, key: str) -> Stored | None:
        found = self._find(key)
        if found is None:
            return None
        return Stored(data=_data_of(found, key), tag=found["metadata"]["resourceVersion"])

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        document = self._document(key, data)
        if len(data) > MAX_OBJECT:
            raise LimitExceededError(
                f"state document {key!r} takes {len(data)} bytes, and an object of Kubernetes "
                f"holds {MAX_OBJECT}"
            )
        query = {"fieldManager": MANAGER}
        try:
            if expect is None:
                made = self._clients.call("POST", self._path, document=document, query=query)
            else:
                document["metadata"]["resourceVersion"] = expect
                made = self._clients.call("PUT", self._at(key), document=document, query=query)
        except Exception as error:
            gone = reason_of(error) == "NotFound" and expect is not None
            if not gone and reason_of(error) not in {"Conflict", "AlreadyExists"}:
                raise
            found = self._find(key)
            if found is None or _mark_of(found) != _mark_of(document):
                raise self._conflict(key, _became(gone=found is None)) from error
            made = found
        tag: str = made["metadata"]["resourceVersion"]
        return tag

    def _delete(self, key: str, expect: str) -> None:
        conditions = {"preconditions": {"resourceVersion": expect}}
        options = {"apiVersion": "v1", "kind": "DeleteOptions", **conditions}
        try:
            self._clients.call("DELETE", self._at(key), document=options)
        except Exception as error:
            if reason_of(error) not in {"Conflict", "NotFound"}:
                raise
            gone = reason_of(error) == "NotFound"
            if not (gone and maybe_done_before(error)):
                raise self._conflict(key, _became(gone=gone)) from error

    def _keys(self, prefix: str) -> Iterator[str]:
        query = {
            "labelSelector": f"{FLEET}={self._settings.prefix},{PART}=state",
            "limit": str(PAGE),
        }
        found: list[str] = []
        while True:
            page = self._clients.call("GET", self._path, query=query, accept=_NAMES)
            found += [_key_of(one) for one in page["items"]]
            query["continue"] = page["metadata"].get("continue") or ""
            if not query["continue"]:
                break
        yield from sorted(key for key in found if key.startswith(prefix))

    # ------------------------------------------------------------------------------------ own

    def _at(self, key: str) -> str:
        return f"{self._path}/{state_name(self._settings.prefix, key)}"

    def _find(self, key: str) -> Any:  # noqa: ANN401 - JSON
        try:
            found = self._clients.call("GET", self._at(key))
        except Exception as error:
            if reason_of(error) == "NotFound":
                return None
            raise
        if _key_of(found) != key:
            name = found["metadata"]["name"]
            raise DocumentError(
                f"ConfigMap {name} holds state document {_key_of(found)!r} instead of {key!r}",
                cure=f"find out who changed it: kubectl get configmap {name} -o yaml",
            )
        return found

    def _document(self, key: str, data: bytes) -> dict[str, Any]:
        prefix = self._settings.prefix
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": state_name(prefix, key),
                "namespace": self._settings.namespace,
                "labels": fleet_labels(prefix, part="state"),
                "annotations": {KEY: key, _MARK: uuid.uuid4().hex},
            },
            "binaryData": {_FIELD: base64.b64encode(data).decode()},
        }


def _key_of(found: dict[str, Any]) -> str:
    return str((found["metadata"].get("annotations") or {}).get(KEY, ""))


def _mark_of(found: dict[str, Any]) -> str:
    return str((found["metadata"].get("annotations") or {}).get(_MARK, ""))


def _data_of(found: dict[str, Any], key: str) -> bytes:
    try:
        return base64.b64decode((found.get("binaryData") or {})[_FIELD], validate=True)
    except (KeyError, binascii.Error) as error:
        name = found["metadata"]["name"]
        raise DocumentError(
            f"ConfigMap {name} doesn't hold state document {key!r}",
            cure=f"find out who changed it: kubectl get configmap {name} -o yaml",
        ) from error


def _became(*, gone: bool) -> str:
    return "is gone" if gone else "exists already, or somebody changed it"
