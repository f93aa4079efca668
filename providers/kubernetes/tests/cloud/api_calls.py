"""Calls of an API server, for tests."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from lightkube import ApiError

from edgefleet_kubernetes.clients import Clients
from providers.kubernetes.tests.cloud.api_samples import Object

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
METADATA = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"


class Api:
    """Calls for one namespace.

    Args:
        clients: to call with.
        namespace: its name.

    Attributes:
        core: address of what lies in it.
    """

    def __init__(self, clients: Clients, namespace: str) -> None:
        self.clients, self.core = clients, f"api/v1/namespaces/{namespace}"

    def __call__(self, method: str, path: str, document: Any = None, **more: Any) -> Any:
        """Call an address."""
        return self.clients.call(method, path, document=document, **more)

    def maps(self, method: str, name: str = "", document: Any = None, **more: Any) -> Any:
        """Call the namespace's ConfigMaps."""
        path = f"{self.core}/configmaps" + (f"/{name}" if name else "")
        return self(method, path, document, **more)


def refused(call: Callable[[], Any]) -> Any:
    """The Status that a call is answered."""
    with pytest.raises(ApiError) as caught:
        call()
    return caught.value.status


def events(clients: Clients, path: str, count: int, **query: str) -> list[Object]:
    """So many events of a watch."""
    found: list[Object] = []
    with clients.stream(path, query={"watch": "true", **query}) as lines:
        for line in lines:
            found.append(json.loads(line))
            if len(found) == count:
                break
    return found
