"""S3 as devices see it: requests with a device's keys get what its role's policies allow.

Everybody else's requests go on to whatever serves S3 behind.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from edgefleet_aws.cloud.calls import Call, Fault

if TYPE_CHECKING:
    from collections.abc import Iterable
    from wsgiref.types import StartResponse

    from edgefleet_aws.cloud.device_cloud import DeviceCloud
    from edgefleet_aws.cloud.server import Mount

_KEY = re.compile(r"Credential=([^/]+)/")
# "Actions, resources, and condition keys for Amazon S3" in the Service Authorization Reference.
_ACTIONS = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject"}


class DeviceBucket:
    """The guard before S3.

    Args:
        devices: knows whose keys are whose.
        behind: serves what passes; None for moto alone.
    """

    def __init__(self, devices: DeviceCloud, behind: Mount | None) -> None:
        self._devices = devices
        self._behind = behind

    def answer(self, call: Call, start: StartResponse) -> Iterable[bytes] | None:
        """Let a request pass.

        Raises:
            Fault: a device may not do it, or its keys have ended.
        """
        signed = _KEY.search(str(call.environ.get("HTTP_AUTHORIZATION", "")))
        found = None if signed is None else self._devices.thing_of(signed[1])
        if found is not None:
            thing, holds = found
            if not self._devices.online(thing):
                raise ConnectionResetError(f"{thing} has no network")
            if not holds:
                raise Fault("ExpiredToken", "The provided token has expired.", 400)
            action = _ACTIONS.get(str(call.environ["REQUEST_METHOD"]), "s3:*")
            resource = f"arn:aws:s3:::{call.path.strip('/')}"
            if not self._devices.may(thing, action, resource):
                raise Fault("AccessDenied", "Access Denied", 403)
        return None if self._behind is None else self._behind.answer(call, start)
