"""One request to the mock of Google Cloud, and how Google's services say no."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from edgefleet.testing.cloud import calls, server
from edgefleet.testing.cloud.calls import Refused, Reply

if TYPE_CHECKING:
    from edgefleet_gcp.cloud.accounts import Account

# https://cloud.google.com/storage/docs/json_api/v1/status-codes and
# https://cloud.google.com/pubsub/docs/reference/error-codes
_REASONS = {
    400: ("invalid", "INVALID_ARGUMENT"),
    401: ("authError", "UNAUTHENTICATED"),
    403: ("forbidden", "PERMISSION_DENIED"),
    404: ("notFound", "NOT_FOUND"),
    405: ("methodNotAllowed", "UNIMPLEMENTED"),
    409: ("conflict", "ALREADY_EXISTS"),
    412: ("conditionNotMet", "FAILED_PRECONDITION"),
    413: ("uploadTooLarge", "INVALID_ARGUMENT"),
    429: ("rateLimitExceeded", "RESOURCE_EXHAUSTED"),
    503: ("backendError", "UNAVAILABLE"),
}


@dataclass
class Call(calls.Call):
    """One request.

    Attributes:
        account: whoever calls, by a token; None where none was shown.
    """

    account: Account | None = None

    def require(self, permission: str, resource: str, *, shown: str) -> None:
        """Nothing where whoever calls has a role that allows it.

        Args:
            permission: such as ``storage.objects.get``.
            resource: full name of what it is asked for.
            shown: what that is, as the service's message names it.

        Raises:
            Refused: nobody calls, or somebody who may not.
        """
        if self.account is None:
            message = f"Anonymous caller does not have {permission} access to {shown}."
            raise Refused(401, "required", message, headers={"WWW-Authenticate": "Bearer"})
        if not self.account.may(permission, resource):
            raise Refused(
                403,
                "forbidden",
                f"{self.account.email} does not have {permission} access to {shown}. Permission "
                f"'{permission}' denied on resource (or it may not exist).",
            )


Route: TypeAlias = server.Route[Call]


def throttled(retry_after_s: float | None = None) -> Refused:
    """The answer to a call that comes too often."""
    headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
    return Refused(429, "rateLimitExceeded", "The rate of requests is too high.", headers=headers)


def google_error(refused: Refused) -> Reply:
    """As Google's services answer: for Cloud Storage with a reason, for others with a status."""
    reason, status = _REASONS.get(refused.status, ("backendError", "INTERNAL"))
    one = {"message": refused.message, "domain": "global", "reason": refused.code or reason}
    error = {
        "code": refused.status,
        "message": refused.message,
        "errors": [one],
        "status": status,
        **refused.detail,
    }
    return Reply(refused.status, {"error": error}, refused.headers)
