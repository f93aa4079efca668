"""Who calls an API server: people, service accounts, and Kubernetes' own parts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

MASTERS = "system:masters"
AUTHENTICATED = "system:authenticated"
ANONYMOUS = "system:anonymous"
SERVICE_ACCOUNTS = "system:serviceaccounts"
NODE_NAME = "authentication.kubernetes.io/node-name"
"""What a token's node claim is called in ``userInfo.extra``; beta from 1.30, stable in 1.32."""


@dataclass(frozen=True)
class User:
    """Whoever calls.

    Attributes:
        name: such as ``system:serviceaccount:NAMESPACE:NAME``.
        groups: that they are in.
        uid: of a service account; empty for others.
        extra: what their credentials say beside, such as the node of a pod's token.
    """

    name: str
    groups: tuple[str, ...] = (AUTHENTICATED,)
    uid: str = ""
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def info(self) -> dict[str, object]:
        """As ``userInfo`` and reviews write it."""
        return {
            "username": self.name,
            **({"uid": self.uid} if self.uid else {}),
            "groups": list(self.groups),
            "extra": {key: list(values) for key, values in self.extra.items()},
        }


SYSTEM = User("system:kube-controller-manager", (MASTERS, AUTHENTICATED))
"""Kubernetes' own controllers."""


def service_account(
    namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]
) -> User:
    """The user that a service account is."""
    groups = (SERVICE_ACCOUNTS, f"{SERVICE_ACCOUNTS}:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", groups, uid, extra)
