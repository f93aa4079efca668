"""Who calls the mock: IAM users get what their policies allow, everybody else everything.

A user is judged by the policies of moto's IAM. In S3 resources count; elsewhere a statement must
be for all resources, because which one a call is for isn't told apart here.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from moto.iam.models import iam_backends

from edgefleet_aws.cloud.calls import Call, Fault
from edgefleet_aws.cloud.packages import ACCOUNT
from edgefleet_aws.cloud.policies import allows
from edgefleet_aws.permissions import actions_of

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEY = re.compile(r"Credential=([^/]+)/")
_DENIED = {"s3": "AccessDenied", "cloudformation": "AccessDenied"}


def add_user(name: str, policy: Mapping[str, Any]) -> tuple[str, str]:
    """Make an IAM user who may do what a policy says; its access key and secret."""
    iam = iam_backends[ACCOUNT]["aws"]
    iam.create_user(region_name="us-east-1", user_name=name)
    iam.put_user_policy(name, "least", json.dumps(policy))
    key = iam.create_access_key(name)
    return str(key.access_key_id), str(key.secret_access_key)


def check(call: Call) -> None:
    """Let a call pass.

    Raises:
        Fault: its user may not do it.
    """
    signed = _KEY.search(str(call.environ.get("HTTP_AUTHORIZATION", "")))
    iam = iam_backends[ACCOUNT]["aws"]
    user = None if signed is None else iam.get_user_from_access_key_id(signed[1])
    if user is None or not call.service:
        return
    documents = [json.loads(document) for document in user.policies.values()]
    for action in actions_of(call.service, call.operation):
        for resource in _resources(call) if action.startswith("s3:") else ("*",):
            if not allows(documents, action, resource, {}):
                said = f"is not authorized to perform: {action} on resource: {resource}"
                code = _DENIED.get(call.service, "AccessDeniedException")
                raise Fault(code, f"User: {user.arn} {said}", 403)


def _resources(call: Call) -> tuple[str, ...]:
    place = f"arn:aws:s3:::{call.path.strip('/')}"
    if call.operation != "DeleteObjects":
        return (place,)
    root = ET.fromstring(call.body())  # noqa: S314 - from a test's client
    return tuple(f"{place}/{one.text}" for one in root.iter() if one.tag.endswith("Key"))
