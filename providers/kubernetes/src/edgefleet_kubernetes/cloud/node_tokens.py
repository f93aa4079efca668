"""What pods on a node read of the cluster: ConfigMaps, Secrets, and tokens of their own.

Without a network a pod goes on with what the kubelet has read before. A token is had anew when
four fifths of its time are over, as ``pkg/kubelet/token/token_manager.go`` of
kubernetes/kubernetes does.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from edgefleet_kubernetes.cloud.api_status import Refused
from edgefleet_kubernetes.cloud.kubelet_volumes import NotYetError

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_client import Client

RENEWED_AT = 0.8  # of a token's time


class Issue(Protocol):
    """Makes a token."""

    def __call__(
        self, namespace: str, account: str, *, audience: str | None, expires_s: int, pod: Object
    ) -> str:
        """A token of a service account, bound to a pod and its node.

        Raises:
            Refused: the account may have none.
        """


class _Token(NamedTuple):
    text: str
    due: float


class Tokens:
    """The sources of a node's volumes.

    Args:
        client: of the API server.
        node: name of it.
        issue: makes tokens.
        reachable: whether the API server can be asked.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        client: Client,
        node: str,
        issue: Issue,
        *,
        reachable: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client, self._node, self._issue = client, node, issue
        self._reachable, self._clock = reachable, clock
        self._read: dict[tuple[str, str, str], Object | None] = {}
        self._tokens: dict[tuple[str, str | None, int], _Token] = {}

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None where there is none, or none was read before the network went."""
        key = kind, namespace, name
        if self._reachable():
            self._read[key] = self._client.get(kind, namespace, name)
        return self._read.get(key)

    def token(self, pod: Object, audience: str | None, expires_s: int) -> str:
        """A token of the pod's service account, not older than four fifths of its time.

        Raises:
            NotYetError: none can be had now.
        """
        key = pod["metadata"]["uid"], audience, expires_s
        found = self._tokens.get(key)
        if found is not None and (self._clock() < found.due or not self._reachable()):
            return found.text
        if not self._reachable():
            raise NotYetError("failed to fetch token: the API server can't be reached")
        account = pod["spec"].get("serviceAccountName", "default")
        try:
            text = self._issue(
                pod["metadata"]["namespace"],
                account,
                audience=audience,
                expires_s=expires_s,
                pod=pod,
            )
        except Refused as refused:
            raise NotYetError(f"failed to fetch token: {refused.message}") from refused
        self._tokens[key] = _Token(text, self._clock() + RENEWED_AT * expires_s)
        return text
