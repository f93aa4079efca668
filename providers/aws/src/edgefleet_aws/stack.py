"""A fleet's CloudFormation stack: made, changed, removed, and waited for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from edgefleet.errors import ConfigurationError, WaitTimeoutError
from edgefleet.interfaces.values import Action
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import Names
from edgefleet_aws.template import template

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from edgefleet_aws.clients import CloudFormation
    from edgefleet_aws.settings import AwsSettings

TIMEOUT_S = 600.0
FIRST_POLL_S, LAST_POLL_S = 0.1, 5.0
_NAMED = ["CAPABILITY_NAMED_IAM"]  # the roles have names, which the runtime's policies tell
_DONE = {"CREATE_COMPLETE", "UPDATE_COMPLETE"}
_NEVER_MADE = "ROLLBACK_COMPLETE"  # a stack whose making failed; it can only be removed
_GONE = "DELETE_COMPLETE"


class Stack:
    """The stack of one fleet.

    Args:
        client: to reach CloudFormation with.
        settings: of the fleet.
    """

    def __init__(self, client: CloudFormation, settings: AwsSettings) -> None:
        self._client = client
        self.name = Names(settings).stack
        self.body = json.dumps(template(settings), indent=2, sort_keys=True)
        """The template as it is sent."""

    def parameters(self) -> dict[str, str] | None:
        """What the stack that is there was made with; None for none."""
        found = self._found()
        return None if found is None else _parameters(found)

    def others(self) -> Iterator[dict[str, str]]:
        """What the stacks of other fleets of the account were made with."""
        for page in self._client.get_paginator("describe_stacks").paginate():
            for found in page["Stacks"]:
                name = str(found["StackName"])
                if name.startswith("edgefleet-") and name != self.name:
                    yield _parameters(found)

    def action(self, parameters: Mapping[str, str]) -> Action:
        """What `apply` would do."""
        there = self.parameters()
        if there is None:
            return Action.CREATE
        body = self._client.get_template(StackName=self.name)["TemplateBody"]
        # botocore reads a JSON template; CloudFormation keeps it as it was sent.
        same = body in (self.body, json.loads(self.body)) and there == parameters
        return Action.UNCHANGED if same else Action.UPDATE

    def apply(self, parameters: Mapping[str, str]) -> None:
        """Have the fleet's stack as the template says; no error when it is.

        Raises:
            ConfigurationError: CloudFormation couldn't make it; the message says why.
            WaitTimeoutError: it still works on it.
        """
        request = {
            "StackName": self.name,
            "TemplateBody": self.body,
            "Capabilities": _NAMED,
            "Parameters": _as_sent(parameters),
        }
        there = self._found()
        if there is not None and there["StackStatus"] == _NEVER_MADE:
            self.remove()
            there = None
        if there is None:
            self._client.create_stack(**request)
        else:
            try:
                self._client.update_stack(**request)
            except Exception as refused:
                if "No updates are to be performed" not in str(refused):
                    raise
                return
        self._await()

    def remove(self) -> None:
        """Remove the fleet's stack, and wait until it is gone; no error when there is none.

        Raises:
            ConfigurationError: CloudFormation couldn't; the message says why.
            WaitTimeoutError: it still works on it.
        """
        if self._found() is not None:
            self._client.delete_stack(StackName=self.name)
            self._await()

    def _found(self) -> dict[str, Any] | None:
        try:
            (found,) = self._client.describe_stacks(StackName=self.name)["Stacks"]
        except Exception as error:
            if code_of(error) == "ValidationError" and "does not exist" in str(error):
                return None
            raise
        return None if found["StackStatus"] == _GONE else dict(found)

    def _await(self) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        pause = FIRST_POLL_S
        while True:
            found = self._found()
            if found is None or found["StackStatus"] in _DONE:
                return
            status = str(found["StackStatus"])
            if status.endswith(("_FAILED", "ROLLBACK_COMPLETE")):
                raise ConfigurationError(
                    f"stack {self.name} is {status}: {found.get('StackStatusReason', '')}",
                    cure="see what each resource says: "
                    f"aws cloudformation describe-stack-events --stack-name {self.name}",
                )
            if time.monotonic() > deadline:
                raise WaitTimeoutError(
                    f"stack {self.name} is still {status} after {TIMEOUT_S:.0f} s"
                )
            time.sleep(pause)
            pause = min(pause * 2, LAST_POLL_S)


def parameters_document(parameters: Mapping[str, str]) -> bytes:
    """Parameters as a file for ``aws cloudformation … --parameters file://…``."""
    return json.dumps(_as_sent(parameters), indent=2).encode() + b"\n"


def _as_sent(parameters: Mapping[str, str]) -> list[dict[str, str]]:
    return [
        {"ParameterKey": key, "ParameterValue": value} for key, value in sorted(parameters.items())
    ]


def _parameters(found: Mapping[str, Any]) -> dict[str, str]:
    return {one["ParameterKey"]: one["ParameterValue"] for one in found.get("Parameters", ())}
