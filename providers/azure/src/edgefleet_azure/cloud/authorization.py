"""Who may do what in the mock: Azure's role-based access, enforced.

Rules kept here, each in ``mock_rules.md``:

- A request needs one action at one scope, told from its method and path.
- Somebody may do what a role says that is assigned to them there or further up.
- A role that a template assigns counts from then on, as it is defined at the time of the request.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from edgefleet_azure.cloud.arm_resources import ASSIGNMENT, ROLE, Hook
from edgefleet_azure.cloud.roles import Role
from edgefleet_azure.permissions import is_data

if TYPE_CHECKING:
    from collections.abc import Callable

    from edgefleet_azure.cloud.arm_resources import Resources
    from edgefleet_azure.cloud.calls import Call
    from edgefleet_azure.cloud.identity import Identities

_ASSIGNED = "assigned to "  # begins the names of roles that assignments gave

_VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
_HUB = "Microsoft.Devices/IotHubs"
_RUNS = re.compile(r"/(?:history|metric|artifact|execution|mlflow)/v\d[^/]*(/.*)?/subscriptions/")
# "Control access to IoT Hub by using Microsoft Entra ID": permissions for service APIs
_HUB_CALLS = tuple(
    (method, re.compile(path), f"{_HUB}/{action}")
    for method, path, action in (
        ("POST", r"/twins/[^/]+(?:/modules/[^/]+)?/methods", "directMethods/invoke/action"),
        ("POST", r"/devices/query", "twins/read"),
        ("POST", r"/devices/[^/]+/applyConfigurationContent",
         "configurations/applyToEdgeDevice/action"),
        ("POST", r"/configurations/testQueries", "configurations/testQueries/action"),
        ("POST", r"/devices", "devices/write"),
        ("GET", r"/statistics/.*", "statistics/read"),
        ("GET", r"/configurations(?:/[^/]+)?", "configurations/read"),
        ("PUT", r"/configurations/[^/]+", "configurations/write"),
        ("DELETE", r"/configurations/[^/]+", "configurations/delete"),
        ("GET", r"/twins/.*", "twins/read"),
        ("PUT", r"/twins/.*", "twins/write"),
        ("PATCH", r"/twins/.*", "twins/write"),
        ("GET", r"/devices(?:/.*)?", "devices/read"),
        ("PUT", r"/devices/.*", "devices/write"),
        ("DELETE", r"/devices/.*", "devices/delete"),
    )
)  # fmt: skip
# "Manage access to Azure ML registries", and what its own library calls
_SHARED = re.compile(
    r"/mferp/managementfrontend(?P<scope>(?:/[^/]+){4}/providers/(?P<type>[^/]+/registries)/[^/]+)"
    r"/(?P<what>[^/]+)",
    re.IGNORECASE,
)
_DISCOVERY = "/registrymanagement/"
_ENROLLMENT = "Microsoft.Devices/provisioningServices/enrollmentGroups"


class Needed(NamedTuple):
    """What a request needs.

    Attributes:
        action: as Azure names it.
        scope: resource id of what it is about.
    """

    action: str
    scope: str


def of_arm(method: str, path: str) -> Needed | None:
    """What a request to Azure Resource Manager, or to a service behind it, needs."""
    if "/operationresults/" in path.lower():
        return None  # whoever began the operation may follow it
    if path.startswith(_DISCOVERY):
        return None  # looks itself whether the registry may be read
    shared = _SHARED.match(path)
    if shared is not None:
        reads = method == "GET" or shared["what"].lower() == "datarefs"
        return Needed(f"{shared['type']}/assets/{'read' if reads else 'write'}", shared["scope"])
    if _RUNS.match(path):
        workspace = path[path.index("/subscriptions/") :]
        workspace = "/".join(workspace.split("/")[:9])
        verb = "write" if method in {"PUT", "PATCH", "DELETE"} else "read"
        return Needed(f"Microsoft.MachineLearningServices/workspaces/experiments/runs/{verb}",
                      workspace)  # fmt: skip
    before, _, last = path.rstrip("/").rpartition("/providers/")
    if not before:
        verb = _VERBS.get(method) or f"{path.rpartition('/')[2]}/action"
        return Needed(f"Microsoft.Resources/subscriptions/resourceGroups/{verb}", path)
    namespace, *parts = last.split("/")
    verb = _VERBS.get(method, "")
    if method == "POST":
        *parts, action = parts
        verb = f"{action}/action"
    kinds = "/".join(parts[::2])
    names = "/".join(parts[: len(parts) // 2 * 2])
    scope = f"{before}/providers/{namespace}/{names}" if names else before
    if namespace.lower() == "microsoft.authorization":
        scope = before  # a role is assigned at what it is about
    return Needed(f"{namespace}/{kinds}/{verb}", scope)


def of_hub(method: str, hub: str, path: str) -> Needed:
    """What a request to an IoT Hub's service API needs.

    Args:
        method: of HTTP.
        hub: resource id of the hub.
        path: of the request.
    """
    for verb, pattern, action in _HUB_CALLS:
        if verb == method and pattern.fullmatch(path.rstrip("/")):
            return Needed(action, hub)
    return Needed(f"{_HUB}/*", hub)


def of_provisioning(method: str, service: str, path: str) -> Needed:
    """What a request to the provisioning service's own API needs."""
    if path.rstrip("/").endswith("/attestationmechanism"):
        return Needed(
            "Microsoft.Devices/provisioningServices/attestationmechanism/details/action", service
        )
    verb = "read" if method == "POST" else _VERBS[method]
    return Needed(f"{_ENROLLMENT}/{verb}", service)


def guard(
    admit: Callable[[Call], None], needed: Callable[[Call], Needed | None]
) -> Callable[[Call], None]:
    """Lets those in who may do what their request needs.

    Args:
        admit: finds out who calls.
        needed: what a request needs; None for one that anybody known may make.
    """

    def admitted(call: Call) -> None:
        admit(call)
        if call.principal is None:
            return  # a key or a SAS, which says itself what it is good for
        asked = needed(call)
        if asked is not None:
            data = is_data(asked.action)
            call.require(asked.action, asked.scope, data=data)

    return admitted


class Grants:
    """Gives identities the roles that resources say are assigned to them.

    Args:
        resources: hold role definitions and assignments.
        identities: everybody.
    """

    def __init__(self, resources: Resources, identities: Identities) -> None:
        self._resources, self._identities = resources, identities
        resources.known = lambda principal: identities.get(principal) is not None
        for kind in (ASSIGNMENT, ROLE):
            resources.hooks[kind] = Hook(changed=self.refresh)

    def refresh(self) -> None:
        """Have everybody allowed what is assigned now, and no more."""
        for principal in self._identities:
            principal.roles = [
                one for one in principal.roles if not one[0].name.startswith(_ASSIGNED)
            ]
        for somebody, scope, held in self._resources.grants():
            found = self._identities.get(somebody)
            if found is not None:
                role = Role(
                    f"{_ASSIGNED}{somebody}",
                    tuple(held.get("actions", ())),
                    tuple(held.get("notActions", ())),
                    tuple(held.get("dataActions", ())),
                    tuple(held.get("notDataActions", ())),
                )
                found.roles.append((role, scope))
