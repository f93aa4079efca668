"""CloudFormation's stacks, as far as install uses them; what they make is `stacks`' affair."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from xml.sax.saxutils import escape

from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from wsgiref.types import StartResponse

    from edgefleet_aws.cloud.stacks import Stacks

_SPACE = "http://cloudformation.amazonaws.com/doc/2010-05-15/"
_MAX_BODY = 51_200  # bytes of a template in a request; CloudFormation quotas


class CloudFormation:
    """Four operations of the query protocol; any other is answered 501.

    Args:
        stacks: makes what templates name.
        scope: beginning of the stacks' ARNs.
    """

    def __init__(self, stacks: Stacks, scope: str) -> None:
        self._stacks = stacks
        self._scope = scope
        self._found: dict[str, str] = {}
        self._operations: dict[str, Callable[[dict[str, str]], str]] = {
            "CreateStack": self._create,
            "UpdateStack": self._update,
            "DeleteStack": self._delete,
            "DescribeStacks": self._describe,
        }

    def kept(self) -> dict[str, str]:
        """The stacks' templates."""
        return dict(self._found)

    def restore(self, kept: dict[str, str]) -> None:
        """Make what these templates name."""
        for name, body in kept.items():
            self._stacks.apply(json.loads(body))
            self._found[name] = body

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
        self._stacks.apply(_template(fields))
        self._found[name] = fields["TemplateBody"]
        return self._id(name)

    def _update(self, fields: dict[str, str]) -> str:
        name = fields["StackName"]
        if self._one(name) == fields["TemplateBody"]:
            raise Fault("ValidationError", "No updates are to be performed.")
        self._stacks.apply(_template(fields))
        self._found[name] = fields["TemplateBody"]
        return self._id(name)

    def _delete(self, fields: dict[str, str]) -> str:
        body = self._found.pop(fields["StackName"], None)
        if body is not None:
            self._stacks.remove(json.loads(body))
        return ""

    def _describe(self, fields: dict[str, str]) -> str:
        name = fields["StackName"]
        self._one(name)
        return (
            f"<Stacks><member>{self._id(name)}<StackName>{name}</StackName>"
            "<CreationTime>2026-01-01T00:00:00Z</CreationTime>"
            "<StackStatus>CREATE_COMPLETE</StackStatus></member></Stacks>"
        )

    def _one(self, name: str) -> str:
        if name not in self._found:
            raise Fault("ValidationError", f"Stack with id {name} does not exist")
        return self._found[name]

    def _id(self, name: str) -> str:
        return f"<StackId>{self._scope}:stack/{name}/0</StackId>"


def _lacking(fields: dict[str, str]) -> str:
    raise Fault("NotImplemented", f"the mock lacks {fields.get('Action')}", 501)


def _template(fields: dict[str, str]) -> dict[str, Any]:
    body = fields["TemplateBody"]
    if len(body.encode()) > _MAX_BODY:
        raise Fault("ValidationError", f"TemplateBody is over {_MAX_BODY} bytes")
    named = {key: value for key, value in fields.items() if key.startswith("Capabilities.")}
    if "CAPABILITY_NAMED_IAM" not in named.values():
        raise Fault(
            "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_NAMED_IAM]"
        )
    found: dict[str, Any] = json.loads(body)
    return found
