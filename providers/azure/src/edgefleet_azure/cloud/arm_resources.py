"""Resources that the mock's resource group holds, and what their providers refuse.

Rules kept here, each in ``mock_rules.md``:

- A type, a version of its API, a key or a property that isn't known is refused, never passed over.
- Names are as Azure's naming rules have them; a resource lies in one that is there.
- A resource that is there is changed by what is sent for it; what is not sent stays.
- Role assignments are of principals and roles that are there, and none is there twice. A role that
  is assigned is not deleted.
"""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.testing.cloud.calls import Refused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet_azure.cloud.arm_template import Declared

_GUID = r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_IMPLICIT = ("/blobservices/default", "/eventhubendpoints/events")  # each account and hub has them
_SERVICE = frozenset({"location", "tags", "sku", "kind", "identity", "properties"})
_INNER = frozenset({"properties"})


class Kind(NamedTuple):
    """What a provider takes of a type.

    Attributes:
        type: with its namespace, as the provider writes it.
        versions: of its API that are known here.
        name: the whole of a name matches it.
        properties: that are known.
        content: that stands beside type and name.
        needed: of content.
        told: properties that a new one needs.
    """

    type: str
    versions: tuple[str, ...]
    name: str
    properties: frozenset[str]
    content: frozenset[str] = _INNER
    needed: frozenset[str] = frozenset()
    told: frozenset[str] = frozenset()


_KINDS = (
    Kind(
        "Microsoft.Storage/storageAccounts",
        ("2023-05-01",),
        r"[a-z0-9]{3,24}",
        frozenset(
            {
                "accessTier",
                "allowBlobPublicAccess",
                "allowSharedKeyAccess",
                "isHnsEnabled",
                "minimumTlsVersion",
                "supportsHttpsTrafficOnly",
            }
        ),
        _SERVICE,
        frozenset({"location", "sku", "kind"}),
    ),
    Kind("Microsoft.Storage/storageAccounts/blobServices", ("2023-05-01",), "default", frozenset()),
    Kind(
        "Microsoft.Storage/storageAccounts/blobServices/containers",
        ("2023-05-01",),
        r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]",
        frozenset({"publicAccess"}),
    ),
    Kind(
        "Microsoft.Devices/IotHubs",
        ("2023-06-30",),
        r"(?!.*-$)[A-Za-z0-9][A-Za-z0-9-]{2,49}",
        frozenset({"eventHubEndpoints", "minTlsVersion", "routing"}),
        _SERVICE,
        frozenset({"location", "sku"}),
    ),
    Kind(
        "Microsoft.Devices/IotHubs/eventHubEndpoints/ConsumerGroups",
        ("2023-06-30",),
        r"[A-Za-z0-9$][\w.$-]{0,49}",
        frozenset({"name"}),
    ),
    Kind(
        "Microsoft.Devices/provisioningServices",
        ("2022-12-12",),
        r"(?!.*-$)[A-Za-z0-9][A-Za-z0-9-]{2,63}",
        frozenset({"allocationPolicy", "iotHubs"}),
        _SERVICE,
        frozenset({"location", "sku", "properties"}),
    ),
    Kind(
        "Microsoft.ContainerRegistry/registries",
        ("2023-07-01",),
        r"[A-Za-z0-9]{5,50}",
        frozenset({"adminUserEnabled", "anonymousPullEnabled"}),
        _SERVICE,
        frozenset({"location", "sku"}),
    ),
    Kind(
        "Microsoft.Authorization/roleDefinitions",
        ("2022-04-01",),
        _GUID,
        frozenset({"roleName", "description", "type", "assignableScopes", "permissions"}),
        told=frozenset({"roleName", "permissions"}),
    ),
    Kind(
        "Microsoft.Authorization/roleAssignments",
        ("2022-04-01",),
        _GUID,
        frozenset({"principalId", "principalType", "roleDefinitionId"}),
        told=frozenset({"principalId", "roleDefinitionId"}),
    ),
)
KINDS = {kind.type.lower(): kind for kind in _KINDS}
"""By type, in lower case."""
ROLE = "microsoft.authorization/roledefinitions"
ASSIGNMENT = "microsoft.authorization/roleassignments"


class Hook(NamedTuple):
    """What a service of the mock does when a resource of it is made, shown or removed.

    Attributes:
        made: a new one is to be there, or one that is there to change; raises Refused.
        shown: properties that the service adds.
        removed: it goes.
        changed: resources of the type are other ones now.
    """

    made: Callable[[Mapping[str, Any]], object] = lambda _: None
    shown: Callable[[Mapping[str, Any]], Mapping[str, Any]] = lambda _: {}
    removed: Callable[[Mapping[str, Any]], object] = lambda _: None
    changed: Callable[[], object] = lambda: None


class Resources:
    """The resources of a resource group, and those about them.

    Attributes:
        hooks: by type, in lower case.
        known: says of an object id whether somebody has it.
        refresh: called before resources are looked at: brings in what services made by themselves.
    """

    def __init__(self) -> None:
        self.hooks: dict[str, Hook] = {}
        self.known: Callable[[str], bool] = lambda _: False
        self.refresh: Callable[[], object] = lambda: None
        self._found: dict[str, dict[str, Any]] = {}

    def get(self, identity: str) -> dict[str, Any] | None:
        """A resource as its provider shows it; None for none."""
        self.refresh()
        found = self._found.get(identity.lower())
        if found is None:
            return None
        hook = self.hooks.get(found["type"].lower(), Hook())
        own = {"provisioningState": "Succeeded", **hook.shown(found)}
        return {**found, "properties": {**found.get("properties", {}), **own}}

    def adopt(self, identity: str, type_: str, name: str, content: Mapping[str, Any]) -> None:
        """Have a resource that was there before; no error where it is."""
        found = {"id": identity, "name": name, "type": type_, "etag": "0", "properties": {}}
        self._found.setdefault(identity.lower(), {**found, **content})

    def names_below(self, start: str) -> list[str]:
        """Names of the resources whose ids begin so."""
        return [
            str(one["name"])
            for identity, one in tuple(self._found.items())
            if identity.startswith(start.lower())
        ]

    def forget(self, identity: str) -> None:
        """Have a resource no more that its service took away by itself."""
        self._found.pop(identity.lower(), None)

    def of_type(self, type_: str) -> Iterator[dict[str, Any]]:
        """Every resource of a type."""
        self.refresh()
        for identity, one in tuple(self._found.items()):
            if one["type"].lower() == type_.lower():
                yield self.get(identity) or {}

    def check(self, one: Declared) -> None:
        """Refuse what the provider refuses before anything is made.

        Raises:
            Refused: and why.
        """
        kind = KINDS.get(one.type.lower())
        if kind is None:
            raise Refused(
                400,
                "NoRegisteredProviderFound",
                f"The resource type '{one.type}' could not be found in this mock.",
            )
        if one.version not in kind.versions:
            raise Refused(
                400,
                "NoRegisteredProviderFound",
                f"No registered resource provider found for API version '{one.version}' for type "
                f"'{one.type}'. The supported api-versions are '{', '.join(kind.versions)}'.",
            )
        if not re.fullmatch(kind.name, one.name):
            raise Refused(400, *_bad_name(kind, one.name))
        unknown = one.content.keys() - kind.content
        if unknown:
            raise Refused(400, "InvalidRequestContent", f"unknown members: {sorted(unknown)}")
        unknown = one.content.get("properties", {}).keys() - kind.properties
        if unknown:
            raise Refused(400, "BadRequest", f"{kind.type} has no {sorted(unknown)}")
        missing = kind.needed - one.content.keys()
        missing |= kind.told - one.content.get("properties", {}).keys()
        if missing and one.id.lower() not in self._found:
            raise Refused(400, "BadRequest", f"{kind.type} needs {sorted(missing)}")

    def changes(self, one: Declared) -> str:
        """What `put` would do: ``Create``, ``Modify`` or ``NoChange``."""
        self.refresh()
        there = self._found.get(one.id.lower())
        if there is None:
            return "Create"
        return "NoChange" if _holds(there, one.content) else "Modify"

    def put(self, one: Declared) -> dict[str, Any]:
        """Have a resource as declared.

        Raises:
            Refused: and why it can't be.
        """
        self.check(one)
        kind = KINDS[one.type.lower()]
        self._in_one_that_is_there(one)
        before = self._found.get(one.id.lower(), {})
        made = {
            **before,
            **one.content,
            "id": one.id,
            "name": one.name,
            "type": kind.type,
            "etag": secrets.token_urlsafe(9),
            "properties": {**before.get("properties", {}), **one.content.get("properties", {})},
        }
        if one.type.lower() == ASSIGNMENT:
            self._assignable(made, before)
        if one.type.lower() == ROLE:
            self._named_apart(made)
        hook = self.hooks.get(one.type.lower(), Hook())
        hook.made(made)
        self._found[one.id.lower()] = made
        hook.changed()
        return made

    def delete(self, identity: str) -> bool:
        """Take a resource away with all that lies in it, and who may do what with it.

        Returns:
            Whether it was there.

        Raises:
            Refused: it can't be.
        """
        found = self._found.get(identity.lower())
        if found is None:
            return False
        if found["type"].lower() == ROLE:
            self._unassigned(found)
        below = [key for key in self._found if key.startswith(f"{identity.lower()}/")]
        for key in (*sorted(below, reverse=True), identity.lower()):
            one = self._found.pop(key)
            hook = self.hooks.get(one["type"].lower(), Hook())
            hook.removed(one)
            hook.changed()
        return True

    def grants(self) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
        """Principal, scope and permissions of every role assignment."""
        for identity, one in tuple(self._found.items()):
            if one["type"].lower() != ASSIGNMENT:
                continue
            scope = identity.rpartition("/providers/microsoft.authorization/")[0]
            for permissions in self._role(one)["properties"].get("permissions", ()):
                yield one["properties"]["principalId"], scope, permissions

    # Kept over restarts

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """What there is."""
        return list(self._found.values())

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have what there was."""
        self._found = {one["id"].lower(): one for one in kept}

    # Refusals

    def _in_one_that_is_there(self, one: Declared) -> None:
        inner = one.id.lower()
        parent = inner.rsplit("/", 2)[0]
        if one.type.count("/") < 2 and "/providers/" not in parent.rpartition("/providers/")[0]:
            return
        if one.type.count("/") < 2:  # about another resource
            parent = parent.rpartition("/providers/")[0]
        for end in _IMPLICIT:
            if parent not in self._found:
                parent = parent.removesuffix(end)
        if parent not in self._found:
            raise Refused(
                404,
                "ParentResourceNotFound",
                "Can not perform requested operation on nested resource. Parent resource "
                f"'{parent.rpartition('/')[2]}' not found.",
            )

    def _assignable(self, made: Mapping[str, Any], before: Mapping[str, Any]) -> None:
        properties = made["properties"]
        self._role(made)
        if not self.known(properties["principalId"]):
            raise Refused(
                400,
                "PrincipalNotFound",
                f"Principal {properties['principalId']} does not exist in the directory.",
            )
        if before and before["properties"]["principalId"] != properties["principalId"]:
            raise Refused(
                400,
                "RoleAssignmentUpdateNotPermitted",
                "Tenant ID, application ID, principal ID, and scope are not allowed to be updated.",
            )
        scope = str(made["id"]).lower().rpartition("/")[0]
        for identity, one in self._found.items():
            same = one["properties"] == properties and identity.rpartition("/")[0] == scope
            if same and identity != str(made["id"]).lower():
                raise Refused(409, "RoleAssignmentExists", "The role assignment already exists.")

    def _role(self, assignment: Mapping[str, Any]) -> dict[str, Any]:
        role = str(assignment["properties"]["roleDefinitionId"]).rpartition("/")[2].lower()
        for identity, one in self._found.items():
            if one["type"].lower() == ROLE and identity.endswith(f"/{role}"):
                return one
        raise Refused(
            400,
            "RoleDefinitionDoesNotExist",
            f"The specified role definition with ID '{role}' does not exist.",
        )

    def _named_apart(self, made: Mapping[str, Any]) -> None:
        for one in self._found.values():
            same = one["type"].lower() == ROLE and one["id"] != made["id"]
            if same and one["properties"]["roleName"] == made["properties"]["roleName"]:
                raise Refused(
                    409,
                    "RoleDefinitionWithSameNameExists",
                    "A custom role with the same name already exists in this directory.",
                )

    def _unassigned(self, role: Mapping[str, Any]) -> None:
        for one in self._found.values():
            if one["type"].lower() == ASSIGNMENT and self._role(one)["id"] == role["id"]:
                raise Refused(
                    400,
                    "RoleDefinitionHasAssignments",
                    "There are existing role assignments referencing role.",
                )


def _bad_name(kind: Kind, name: str) -> tuple[str, str]:
    if kind.type == "Microsoft.Storage/storageAccounts":
        said = (
            f"{name} is not a valid storage account name. Storage account name must be between 3 "
            "and 24 characters in length and use numbers and lower-case letters only."
        )
        return "AccountNameInvalid", said
    return "BadRequest", f"'{name}' is no name of {kind.type}."


def _holds(there: Any, wanted: Any) -> bool:  # noqa: ANN401 - JSON
    """Whether all that is wanted is there, whatever else is."""
    if isinstance(wanted, dict):
        return isinstance(there, dict) and all(
            key in there and _holds(there[key], item) for key, item in wanted.items()
        )
    return bool(there == wanted)
