"""A fleet's CloudFormation stack: made, changed, removed, and waited for."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, WaitTimeoutError
from edgefleet_aws.errors import code_of
from edgefleet_aws.names import Names
from edgefleet_aws.template import template

if TYPE_CHECKING:
    from edgefleet_aws.clients import CloudFormation
    from edgefleet_aws.settings import AwsSettings

TIMEOUT_S = 600.0
POLL_S = 2.0
_NAMED = ["CAPABILITY_NAMED_IAM"]  # the roles have names, which the runtime's policies tell


def body(settings: AwsSettings) -> str:
    """The template as it is sent."""
    return json.dumps(template(settings), indent=2, sort_keys=True)


def apply(client: CloudFormation, settings: AwsSettings) -> None:
    """Have the fleet's stack as the template says; no error when it is.

    Raises:
        ConfigurationError: CloudFormation couldn't make it; the message says which resource.
        WaitTimeoutError: it still works on it.
    """
    name = Names(settings).stack
    request = {"StackName": name, "TemplateBody": body(settings), "Capabilities": _NAMED}
    try:
        client.create_stack(**request)
    except Exception as error:
        if code_of(error) != "AlreadyExistsException":
            raise
        try:
            client.update_stack(**request)
        except Exception as refused:
            if "No updates are to be performed" not in str(refused):
                raise
            return
    _await(client, name)


def remove(client: CloudFormation, settings: AwsSettings) -> None:
    """Remove the fleet's stack; no error when there is none."""
    client.delete_stack(StackName=Names(settings).stack)


def _await(client: CloudFormation, name: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        (found,) = client.describe_stacks(StackName=name)["Stacks"]
        status = str(found["StackStatus"])
        if status in {"CREATE_COMPLETE", "UPDATE_COMPLETE"}:
            return
        if status.endswith(("_FAILED", "ROLLBACK_COMPLETE")):
            raise ConfigurationError(
                f"stack {name} is {status}: {found.get('StackStatusReason', '')}",
                cure=f"aws cloudformation describe-stack-events --stack-name {name}",
            )
        if time.monotonic() > deadline:
            raise WaitTimeoutError(f"stack {name} is still {status} after {TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)
