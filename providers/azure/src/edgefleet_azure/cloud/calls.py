"""One request to the mock of Azure, and how Azure's services say no."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.sax.saxutils import escape

from edgefleet.testing.cloud import calls
from edgefleet.testing.cloud.calls import Refused, Reply

if TYPE_CHECKING:
    from edgefleet_azure.cloud.roles import Principal


def throttled(retry_after_s: float | None = 1) -> Refused:
    """The answer to a call that comes too often."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Refused(429, "TooManyRequests", "Rate limit is exceeded. Try again.", headers=headers)


@dataclass
class Call(calls.Call):
    """One request. Names of its parameters are in lower case.

    Attributes:
        principal: whoever calls, by a token; None where none was needed.
    """

    principal: Principal | None = None

    @staticmethod
    def parameter(name: str) -> str:
        return name.lower()

    def require(self, action: str, scope: str = "/", *, data: bool = False) -> None:
        """Nothing where whoever calls has a role that allows it.

        Args:
            action: such as ``Microsoft.Devices/IotHubs/write``.
            scope: path of the resource.
            data: whether it is a data action.

        Raises:
            Refused: as Azure Resource Manager words it.
        """
        who = self.principal
        if who is None or not who.may(action, scope, data=data):
            name = "" if who is None else who.id
            raise Refused(
                403,
                "AuthorizationFailed",
                f"The client '{name}' with object id '{name}' does not have authorization to "
                f"perform action '{action}' over scope '{scope}' or the scope is invalid. If "
                "access was recently granted, please refresh your credentials.",
            )


# ------------------------------------------------------------------------------- how each says no


def arm_error(refused: Refused) -> Reply:
    """As Azure Resource Manager and most of Azure answer: OData's errors."""
    error = {"code": refused.code, "message": refused.message, **refused.detail}
    return Reply(
        refused.status, {"error": error}, {"x-ms-error-code": refused.code, **refused.headers}
    )


def hub_error(refused: Refused) -> Reply:
    """As IoT Hub's service API answers."""
    body = {
        "Message": f"ErrorCode:{refused.code};{refused.message}",
        "ExceptionMessage": f"Tracking ID:{uuid.uuid4().hex}-G:0-TimeStamp:0",
        **refused.detail,
    }
    return Reply(refused.status, body, {"iothub-errorcode": refused.code, **refused.headers})


def blob_error(refused: Refused) -> Reply:
    """As Blob storage answers: XML, and the code in a header, which is all that HEAD has."""
    detail = "".join(f"<{name}>{escape(str(v))}</{name}>" for name, v in refused.detail.items())
    body = (
        '<?xml version="1.0" encoding="utf-8"?>'
        f"<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message>{detail}"
        "</Error>"
    ).encode()
    headers = {
        "Content-Type": "application/xml",
        "x-ms-error-code": refused.code,
        **refused.headers,
    }
    return Reply(refused.status, b"" if refused.status == 304 else body, headers)
