"""Identities in the mock of Azure, and the roles that say what they may do.

Built-in roles as in https://learn.microsoft.com/azure/role-based-access-control/built-in-roles, cut
to the services that the mock has. An action fits a pattern whose ``*`` stands for anything, and
none of the exceptions.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass, field
from typing import Any

TENANT = "11111111-2222-3333-4444-555555555555"


@dataclass(frozen=True)
class Role:
    """What somebody may do.

    Attributes:
        name: of the role.
        actions: patterns of actions on resources.
        not_actions: exceptions of them.
        data_actions: patterns of actions on data.
        not_data_actions: exceptions of them.
    """

    name: str
    actions: tuple[str, ...] = ()
    not_actions: tuple[str, ...] = ()
    data_actions: tuple[str, ...] = ()
    not_data_actions: tuple[str, ...] = ()

    def allows(self, action: str, *, data: bool) -> bool:
        """Whether an action is allowed, one on data or one on resources."""
        yes = self.data_actions if data else self.actions
        no = self.not_data_actions if data else self.not_actions
        return _fits(action, yes) and not _fits(action, no)

    def kept(self) -> list[Any]:
        """The role as JSON has it."""
        return [
            self.name,
            list(self.actions),
            list(self.not_actions),
            list(self.data_actions),
            list(self.not_data_actions),
        ]

    @classmethod
    def of(cls, kept: list[Any]) -> Role:
        """The role that `kept` told."""
        name, *lists = kept
        return cls(name, *(tuple(one) for one in lists))


def _fits(action: str, patterns: tuple[str, ...]) -> bool:
    return any(
        re.fullmatch(re.escape(pattern).replace(r"\*", ".*"), action, re.IGNORECASE)
        for pattern in patterns
    )


@dataclass
class Principal:
    """An identity.

    Attributes:
        name: of it, in messages.
        roles: that were assigned to it, each with the scope it counts below.
        asked: actions that its requests needed so far, allowed or not.
    """

    name: str
    roles: list[tuple[Role, str]] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)

    @property
    def id(self) -> str:
        """Object id and client id."""
        return str(uuid.uuid5(uuid.UUID(TENANT), self.name))

    def may(self, action: str, scope: str = "/", *, data: bool = False) -> bool:
        """Whether a role allows it.

        Args:
            action: such as ``Microsoft.Devices/IotHubs/read``.
            scope: path of the resource.
            data: whether it is a data action.
        """
        self.asked.add(action)
        return any(
            role.allows(action, data=data)
            for role, below in self.roles
            if f"{scope.lower()}/".startswith(f"{below.lower().rstrip('/')}/")
        )


_CONTAINERS = "Microsoft.Storage/storageAccounts/blobServices/containers"
_DELEGATE = "Microsoft.Storage/storageAccounts/blobServices/generateUserDelegationKey/action"
_HUBS = "Microsoft.Devices/IotHubs"
_ML = "Microsoft.MachineLearningServices"

_BUILT_IN = {
    role.name: role
    for role in (
        Role("Everything", ("*",), (), ("*",)),  # the mock's own: an operator who has every role
        Role("Owner", ("*",)),
        Role(
            "Contributor",
            ("*",),
            (
                "Microsoft.Authorization/*/Delete",
                "Microsoft.Authorization/*/Write",
                "Microsoft.Authorization/elevateAccess/Action",
            ),
        ),
        Role("Reader", ("*/read",)),
        Role(
            "Storage Blob Data Contributor",
            (*(f"{_CONTAINERS}/{verb}" for verb in ("delete", "read", "write")), _DELEGATE),
            (),
            tuple(
                f"{_CONTAINERS}/blobs/{verb}"
                for verb in ("delete", "read", "write", "move/action", "add/action")
            ),
        ),
        Role(
            "Storage Blob Data Reader",
            (f"{_CONTAINERS}/read", _DELEGATE),
            (),
            (f"{_CONTAINERS}/blobs/read",),
        ),
        Role("Storage Blob Delegator", (_DELEGATE,)),
        Role(
            "Storage Account Key Operator Service Role",
            (
                "Microsoft.Storage/storageAccounts/listkeys/action",
                "Microsoft.Storage/storageAccounts/regeneratekey/action",
            ),
        ),
        Role("IoT Hub Data Contributor", (), (), (f"{_HUBS}/*",)),
        Role(
            "IoT Hub Data Reader",
            (),
            (),
            (f"{_HUBS}/*/read", f"{_HUBS}/fileUpload/notifications/action"),
        ),
        Role("IoT Hub Registry Contributor", (), (), (f"{_HUBS}/devices/*",)),
        Role("IoT Hub Twin Contributor", (), (), (f"{_HUBS}/twins/*",)),
        Role(
            "AzureML Data Scientist",
            tuple(f"{_ML}/workspaces/*/{verb}" for verb in ("read", "action", "delete", "write")),
            (
                f"{_ML}/workspaces/delete",
                f"{_ML}/workspaces/write",
                f"{_ML}/workspaces/computes/*/write",
                f"{_ML}/workspaces/computes/*/delete",
                f"{_ML}/workspaces/computes/listKeys/action",
                f"{_ML}/workspaces/listKeys/action",
            ),
        ),
        Role(
            "AzureML Registry User",
            (f"{_ML}/registries/read", f"{_ML}/registries/assets/*"),
        ),
        Role("Azure Event Hubs Data Receiver", (), (), ("Microsoft.EventHub/*/receive/action",)),
    )
}


def role_named(name: str) -> Role:
    """A built-in role.

    Raises:
        KeyError: the mock doesn't know it.
    """
    return _BUILT_IN[name]
