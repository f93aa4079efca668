"""Azure Resource Manager's deployments, and the resources that they make.

Rules kept here, each in ``mock_rules.md``:

- A deployment is accepted when its template is whole and whoever sends it may write everything in
  it; then it is ``Running`` until somebody asks how it goes, and no other of its name may start.
- It ends ``Failed`` at the first resource that is refused; what was made before stays.
- Resources are read, made, changed on their ETag, deleted and listed one by one as well.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.arm_resources import KINDS, Resources
from edgefleet_azure.cloud.arm_template import Declared, Surroundings, TemplateError, read
from edgefleet_azure.cloud.authorization import Needed, of_arm
from edgefleet_azure.cloud.calls import Call
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}"
_ONE = f"{_GROUP}/providers/Microsoft.Resources/deployments/{{name}}"
_REST = f"{_GROUP}/providers/{{rest*}}"
_RESULT = "/subscriptions/{subscription}/operationresults/{id}"
_MAX_RECORDS = 800  # of a resource group's deployments


@dataclass
class _Deployment:
    template: Any
    parameters: dict[str, Any]
    state: str = "Running"
    error: dict[str, Any] | None = None
    made: list[str] = field(default_factory=list)
    came: str = ""


class Deployments:
    """What a resource group holds, and what templates make in it.

    Args:
        resources: that are there.
        location: of the resource group.
        list_keys: gives the keys of a resource, by its id; raises `Refused`.
    """

    def __init__(
        self,
        resources: Resources,
        *,
        location: str,
        list_keys: Callable[[str], Mapping[str, Any]],
    ) -> None:
        self._resources = resources
        self._location = location
        self._list_keys = list_keys
        self._found: dict[str, _Deployment] = {}
        self._foreseen: dict[str, dict[str, Any]] = {}

    @property
    def routes(self) -> Sequence[Route]:
        """Deployments first: any resource's route fits them too."""
        return (
            Route("arm.WhatIf", "POST", f"{_ONE}/whatIf", self._what_if),
            Route("arm.WhatIfResult", "GET", _RESULT, self._foresee),
            Route("arm.Validate", "POST", f"{_ONE}/validate", self._validate),
            Route("arm.Deploy", "PUT", _ONE, self._deploy),
            Route("arm.GetDeployment", "GET", _ONE, self._get),
            Route("arm.DeleteDeployment", "DELETE", _ONE, self._delete),
            Route("arm.GetResource", "GET", _REST, self._get_resource),
            Route("arm.PutResource", "PUT", _REST, self._put_resource),
            Route("arm.DeleteResource", "DELETE", _REST, self._delete_resource),
            Route("arm.ListKeys", "POST", f"{_REST}/listkeys", self._keys),
        )

    # Deployments

    def _deploy(self, call: Call) -> Reply:
        name = call.parts["name"].lower()
        before = self._found.get(name)
        if before is not None and before.state == "Running":
            raise Refused(
                409,
                "DeploymentActive",
                f"Unable to edit or replace deployment '{call.parts['name']}': previous deployment "
                f"from '{before.came}' is still active.",
            )
        if before is None and len(self._found) >= _MAX_RECORDS:
            raise Refused(
                409,
                "DeploymentQuotaExceeded",
                f"Creating the deployment would exceed the quota of '{_MAX_RECORDS}'.",
            )
        asked = _asked(call)
        self._preflight(call, asked)
        came = datetime.now(UTC).isoformat()
        one = _Deployment(asked["template"], asked.get("parameters", {}), came=came)
        self._found[name] = one
        return Reply(201 if before is None else 200, self._shown(call, one))

    def _get(self, call: Call) -> Reply:
        one = self._found.get(call.parts["name"].lower())
        if one is None:
            raise Refused(
                404, "DeploymentNotFound", f"Deployment '{call.parts['name']}' could not be found."
            )
        if one.state == "Running":
            self._run(call, one)
        return Reply(body=self._shown(call, one))

    def _delete(self, call: Call) -> Reply:
        one = self._found.get(call.parts["name"].lower())
        if one is not None and one.state == "Running":
            raise Refused(409, "DeploymentActive", "The deployment is still active.")
        self._found.pop(call.parts["name"].lower(), None)
        return Reply(204 if one is None else 202)

    def _run(self, call: Call, one: _Deployment) -> None:
        try:
            for declared in self._read(call, one.template, one.parameters):
                self._resources.put(declared)
                one.made.append(declared.id)
        except (Refused, TemplateError) as refused:
            code = refused.code
            said = refused.message if isinstance(refused, Refused) else str(refused)
            one.state = "Failed"
            one.error = {
                "code": "DeploymentFailed",
                "message": "At least one resource deployment operation failed. Please list "
                "deployment operations for details.",
                "details": [{"code": code, "message": said}],
            }
        else:
            one.state = "Succeeded"

    def _shown(self, call: Call, one: _Deployment) -> dict[str, Any]:
        properties: dict[str, Any] = {
            "provisioningState": one.state,
            "mode": "Incremental",
            "parameters": one.parameters,
            "timestamp": one.came,
            "outputResources": [{"id": identity} for identity in one.made],
        }
        if one.error is not None:
            properties["error"] = one.error
        return {
            "id": call.path,
            "name": call.parts["name"],
            "type": "Microsoft.Resources/deployments",
            "properties": properties,
        }

    # What would be

    def _validate(self, call: Call) -> Reply:
        asked = _asked(call)
        self._preflight(call, asked)
        return Reply(body={"properties": {"provisioningState": "Succeeded"}})

    def _what_if(self, call: Call) -> Reply:
        asked = _asked(call)
        try:
            declared = self._preflight(call, asked)
        except Refused as refused:
            if refused.code == "AuthorizationFailed":
                raise
            error = {"code": refused.code, "message": refused.message, **refused.detail}
            result: dict[str, Any] = {"status": "Failed", "error": error}
        else:
            changes = [
                {"resourceId": one.id, "changeType": self._resources.changes(one)}
                for one in declared
            ]
            result = {"status": "Succeeded", "properties": {"changes": changes}}
        number = uuid.uuid4().hex
        self._foreseen[number] = result
        path = f"/subscriptions/{call.parts['subscription']}/operationresults/{number}"
        where = f"{call.base}{path}?{call.environ.get('QUERY_STRING', '')}"
        return Reply(202, headers={"Location": where, "Retry-After": "0"})

    def _foresee(self, call: Call) -> Reply:
        found = self._foreseen.get(call.parts["id"])
        if found is None:
            raise Refused(404, "ResourceNotFound", "There is no such result.")
        return Reply(body=found)

    def _preflight(self, call: Call, asked: Mapping[str, Any]) -> list[Declared]:
        """What a template declares, where nothing of it is refused beforehand."""
        try:
            found = list(self._read(call, asked["template"], asked.get("parameters", {})))
        except TemplateError as error:
            raise Refused(400, error.code, str(error)) from error
        for one in found:
            self._authorized(call, one)
            self._resources.check(one)
        return found

    def _authorized(self, call: Call, one: Declared) -> None:
        scope = one.id
        if one.type.startswith("Microsoft.Authorization/"):
            scope = one.id.rpartition("/providers/")[0]
        needed = Needed(f"{one.type}/write", scope)
        if call.principal is not None and not call.principal.may(needed.action, needed.scope):
            me = call.principal.id
            raise Refused(
                403,
                "AuthorizationFailed",
                f"Authorization failed for template resource '{one.name}' of type '{one.type}'. "
                f"The client '{me}' with object id '{me}' does not have permission to perform "
                f"action '{needed.action}' at scope '{needed.scope}'.",
            )

    def _read(self, call: Call, template: Any, parameters: dict[str, Any]) -> Any:  # noqa: ANN401
        around = Surroundings(
            call.parts["subscription"],
            call.parts["group"],
            self._location,
            lambda identity: self._template_keys(call, identity),
        )
        return read(template, parameters, around)

    def _template_keys(self, call: Call, identity: str) -> Mapping[str, Any]:
        """Keys that a template asks for, which whoever deploys it must be allowed to list."""
        needed = of_arm("POST", f"{identity}/listkeys")
        if needed is not None:
            call.require(needed.action, needed.scope)
        try:
            return self._list_keys(identity)
        except Refused:
            return {"primaryKey": ""}  # of what this same template is still to make

    # Resources

    def _get_resource(self, call: Call) -> Reply:
        found = self._resources.get(call.path)
        if found is not None:
            return Reply(body=found)
        listed = self._listed(call)
        if listed is None:
            raise _not_found(call.path)
        return Reply(body={"value": listed})

    def _listed(self, call: Call) -> list[dict[str, Any]] | None:
        """Resources of a type, in what the path names; None for a path that names no type."""
        before, _, last = call.path.rstrip("/").rpartition("/providers/")
        namespace, *parts = last.split("/")
        kind = "/".join((namespace, *parts[::2])).lower()
        if len(parts) % 2 == 0 or kind not in KINDS:
            return None
        inside = call.path.rstrip("/").rpartition("/")[0].lower()
        if namespace.lower() == "microsoft.authorization":
            inside = before.lower()  # whatever is about something in there
        return [
            one
            for one in self._resources.of_type(kind)
            if one["id"].lower().startswith(f"{inside}/")
        ]

    def _put_resource(self, call: Call) -> Reply:
        body = call.json()
        there = self._resources.get(call.path)
        wanted = call.headers.get("if-match", "*").strip('"')
        if wanted != "*" and (there is None or there["etag"] != wanted):
            raise Refused(412, "PreconditionFailed", "The resource was changed meanwhile.")
        made = self._resources.put(_declared(call, body))
        found = self._resources.get(made["id"])
        return Reply(200 if there else 201, found)

    def _delete_resource(self, call: Call) -> Reply:
        return Reply(200 if self._resources.delete(call.path) else 204)

    def _keys(self, call: Call) -> Reply:
        return Reply(body=dict(self._list_keys(call.path.rpartition("/")[0])))

    # Kept over restarts

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Resources, and the records of deployments that ended."""
        records = {
            name: [one.template, one.parameters, one.state, one.error, one.made, one.came]
            for name, one in self._found.items()
            if one.state != "Running"
        }
        return {"resources": self._resources.kept(), "deployments": records}

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have what there was."""
        self._resources.restore(kept["resources"])
        self._found = {name: _Deployment(*one) for name, one in kept["deployments"].items()}


def _asked(call: Call) -> dict[str, Any]:
    properties = call.json().get("properties")
    if not isinstance(properties, dict) or not isinstance(properties.get("template"), dict):
        raise Refused(400, "InvalidRequestContent", "properties.template is needed")
    if properties.get("mode") != "Incremental":
        raise Refused(400, "InvalidDeploymentMode", "This mock deploys incrementally only.")
    return properties


def _declared(call: Call, body: Mapping[str, Any]) -> Declared:
    """A resource that is sent by itself: what the provider added to it is passed over."""
    _, _, last = call.path.rstrip("/").rpartition("/providers/")
    namespace, *parts = last.split("/")
    kind = "/".join((namespace, *parts[::2]))
    known = KINDS.get(kind.lower())
    content = {key: body[key] for key in body.keys() - {"id", "name", "type", "etag"}}
    if known is not None and isinstance(content.get("properties"), dict):
        own = {key: v for key, v in content["properties"].items() if key in known.properties}
        content["properties"] = own
    return Declared(call.path, kind, call.query.get("api-version", ""), parts[-1], content)


def _not_found(path: str) -> Refused:
    return Refused(
        404,
        "ResourceNotFound",
        f"The Resource '{path.rpartition('/providers/')[2]}' was not found.",
    )
