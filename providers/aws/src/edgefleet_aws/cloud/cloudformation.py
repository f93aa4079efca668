"""CloudFormation's stacks, as far as install uses them; what they make is `stacks`' affair."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from wsgiref.types import StartResponse

    from edgefleet_aws.cloud.stacks import Stacks

_SPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
_MAX_BODY = 51_200  # bytes of a template in a request; CloudFormation quotas


@dataclass
class Stack:
    """One stack.

    Attributes:
        resources: as they were made.
        reason: why it could not be made.
    """

    body: str
    parameters: dict[str, str]
    resources: dict[str, Any] = field(default_factory=dict)
    status: str = "CREATE_COMPLETE"
    reason: str = ""


class CloudFormation:
    """Five operations of the query protocol; any other is answered 501.

    Args:
        stacks: makes what templates name.
        scope: beginning of the stacks' ARNs.
    """

    def __init__(self, stacks: Stacks, scope: str) -> None:
        self._stacks = stacks
        self._scope = scope
        self._found: dict[str, Stack] = {}
        self._operations: dict[str, Callable[[dict[str, str]], str]] = {
            "CreateStack": self._create,
            "UpdateStack": self._update,
            "DeleteStack": self._delete,
            "DescribeStacks": self._describe,
            "GetTemplate": self._template,
        }

    def kept(self) -> dict[str, Any]:
        """The stacks, as JSON has them."""
        return {name: asdict(stack) for name, stack in self._found.items()}

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Make what these stacks hold."""
        for name, told in kept.items():
            stack = Stack(**told)
            self._stacks.apply(stack.resources, {})
            self._found[name] = stack

    def clear(self) -> None:
        """Forget every stack."""
        self._found.clear()

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes]:
        """Do what the body asks for."""
        fields = {key: values[0] for key, values in parse_qs(call.body().decode()).items()}
        operation = self._operations.get(call.operation, _lacking)
        try:
            result = f"<{call.operation}Result>{operation(fields)}</{call.operation}Result>"
            status, name = 200, f"{call.operation}Response"
        except Fault as fault:
            said = f"<Code>{fault.code}</Code><Message>{escape(fault.message)}</Message>"
            result, status, name = f"<Error>{said}</Error>", fault.status, "ErrorResponse"
        body = f'<{name} xmlns="{_SPACE}">{result}</{name}>'.encode()
        headers = [("Content-Type", "text/xml"), ("Content-Length", str(len(body)))]
        start(f"{status} {'OK' if status == 200 else 'Refused'}", headers)
        return [body]

    def _create(self, fields: dict[str, str]) -> str:
        name = fields["StackName"]
        if name in self._found:
            raise Fault("AlreadyExistsException", f"Stack [{name}] already exists")
        template = _read(fields)
        parameters = _parameters(fields, template)
        stack = self._found[name] = Stack(fields["TemplateBody"], parameters)
        wanted = self._stacks.resources(template, parameters)
        for key, resource in wanted.items():
            try:
                self._stacks.apply({**stack.resources, key: resource}, stack.resources)
            except Exception as error:  # noqa: BLE001 - whatever moto refuses with
                self._stacks.remove(stack.resources)
                stack.resources, stack.status = {}, "ROLLBACK_COMPLETE"
                stack.reason = f"The following resource(s) failed to create: [{key}]. {error}"
                break
            stack.resources[key] = resource
        return self._id(name)

    def _update(self, fields: dict[str, str]) -> str:
        name = fields["StackName"]
        stack = self._one(name)
        if not stack.status.endswith(("CREATE_COMPLETE", "UPDATE_COMPLETE")):
            raise Fault(
                "ValidationError",
                f"Stack:{self._id(name)} is in {stack.status} state and can not be updated.",
            )
        template = _read(fields)
        parameters = _parameters(fields, template)
        if (stack.body, stack.parameters) == (fields["TemplateBody"], parameters):
            raise Fault("ValidationError", "No updates are to be performed.")
        wanted = self._stacks.resources(template, parameters)
        self._stacks.apply(wanted, stack.resources)
        self._found[name] = Stack(fields["TemplateBody"], parameters, wanted, "UPDATE_COMPLETE")
        return self._id(name)

    def _delete(self, fields: dict[str, str]) -> str:
        stack = self._found.pop(fields["StackName"], None)
        if stack is not None:
            self._stacks.remove(stack.resources)
        return ""

    def _describe(self, fields: dict[str, str]) -> str:
        name = fields.get("StackName")
        found = sorted(self._found) if name is None else [name]
        return f"<Stacks>{''.join(self._described(one) for one in found)}</Stacks>"

    def _described(self, name: str) -> str:
        stack = self._one(name)
        parameters = "".join(
            f"<member><ParameterKey>{key}</ParameterKey>"
            f"<ParameterValue>{escape(value)}</ParameterValue></member>"
            for key, value in stack.parameters.items()
        )
        return (
            f"<member>{self._id(name)}<StackName>{name}</StackName>"
            f"<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
            f"<Parameters>{parameters}</Parameters>"
            f"<StackStatus>{stack.status}</StackStatus>"
            f"<StackStatusReason>{escape(stack.reason)}</StackStatusReason></member>"
        )

    def _template(self, fields: dict[str, str]) -> str:
        body = self._one(fields["StackName"]).body
        return f"<TemplateBody>{escape(body)}</TemplateBody>"

    def _one(self, name: str) -> Stack:
        if name not in self._found:
            raise Fault("ValidationError", f"Stack with id {name} does not exist")
        return self._found[name]

    def _id(self, name: str) -> str:
        return f"<StackId>{self._scope}:stack/{name}/0</StackId>"


def _lacking(fields: dict[str, str]) -> str:
    raise Fault("NotImplemented", f"the mock lacks {fields.get('Action')}", 501)


def _read(fields: dict[str, str]) -> dict[str, Any]:
    """The template of a request.

    Raises:
        Fault: it is none, too long, or names roles without leave.
    """
    body = fields.get("TemplateBody", "")
    if len(body.encode()) > _MAX_BODY:
        raise Fault("ValidationError", f"TemplateBody is over {_MAX_BODY} bytes")
    try:
        found: dict[str, Any] = json.loads(body)
    except ValueError as error:
        raise Fault("ValidationError", "Template format error: not JSON") from error
    if not found.get("Resources"):
        raise Fault(
            "ValidationError",
            "Template format error: At least one Resources member must be defined.",
        )
    named = {key: value for key, value in fields.items() if key.startswith("Capabilities.")}
    if "CAPABILITY_NAMED_IAM" not in named.values():
        raise Fault(
            "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]"
        )
    return found


def _parameters(fields: dict[str, str], template: dict[str, Any]) -> dict[str, str]:
    """What a request gives for a template's parameters.

    Raises:
        Fault: one is missing, unknown, or has a value that isn't allowed.
    """
    start, end = "Parameters.member.", ".ParameterKey"
    given = {
        value: fields.get(f"{key.removesuffix(end)}.ParameterValue", "")
        for key, value in fields.items()
        if key.startswith(start) and key.endswith(end)
    }
    known = template.get("Parameters", {})
    missing = [key for key in known if key not in given and "Default" not in known[key]]
    if missing:
        said = f"Parameters: [{', '.join(missing)}] must have values"
        raise Fault("ValidationError", said)
    unknown = given.keys() - known.keys()
    if unknown:
        said = f"Parameters: [{', '.join(sorted(unknown))}] do not exist in the template"
        raise Fault("ValidationError", said)
    for key, value in given.items():
        allowed = known[key].get("AllowedValues")
        if allowed is not None and value not in allowed:
            said = f"Parameter '{key}' must be one of AllowedValues"
            raise Fault("ValidationError", said)
    return {key: given.get(key, str(known[key].get("Default", ""))) for key in known}
