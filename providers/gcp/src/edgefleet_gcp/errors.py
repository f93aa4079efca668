"""What Google Cloud's errors mean here: one table from statuses and reasons to our errors.

https://cloud.google.com/storage/docs/json_api/v1/status-codes and
https://cloud.google.com/pubsub/docs/reference/error-codes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.api_core.exceptions import GoogleAPICallError
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.exceptions import JSONDecodeError

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConflictError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.answers import BETWEEN
from edgefleet_gcp.answers import operation_of, reason_of, retry_after_s, said_by, status_of
from edgefleet_gcp.retries import LOST

if TYPE_CHECKING:
    from edgefleet.errors import EdgeFleetError

_AGAIN = "repeat the call later"
_SIGN_IN = "sign in again: gcloud auth application-default login, or renew the key file"
_FEWER = "wait a little and repeat the call, or ask Google for a higher quota"
_READ_AGAIN = "read it again and repeat"
_BUCKET = "check `bucket` of the profile, or make it (docs/how-to/google-cloud.md)"
_TOPIC = "check `topic`, `subscription` and `project`, or make them"
_NETWORK = "check the network, then repeat the call"
_SCOPES = "give this machine's credentials the scope cloud-platform"
_MOST_SAID = 300  # characters

_BY_STATUS: dict[int, tuple[type[EdgeFleetError], str]] = {
    400: (InvalidInputError, "change what the message names"),
    401: (AccessExpiredError, _SIGN_IN),
    403: (AccessDeniedError, "who is asking: gcloud auth list"),
    404: (NotFoundError, "check the name"),
    408: (UnavailableError, _AGAIN),
    409: (ConflictError, _READ_AGAIN),
    412: (ConflictError, _READ_AGAIN),
    413: (LimitExceededError, "send less"),
    416: (InvalidInputError, "change what the message names"),
    429: (ThrottledError, _FEWER),
}
_BY_REASON: dict[str, tuple[type[EdgeFleetError], str]] = {
    "rateLimitExceeded": (ThrottledError, _FEWER),
    "userRateLimitExceeded": (ThrottledError, _FEWER),
    "quotaExceeded": (LimitExceededError, "ask for a higher quota"),
    "insufficientPermissions": (AccessDeniedError, _SCOPES),
    "accountDisabled": (AccessDeniedError, "enable billing of the project"),
}
# Cloud Storage: "… does not have storage.objects.get access to …"; Pub/Sub: "User not authorized
# to perform this action." with the permission in a detail, or not at all.
_NAMED = re.compile(r"\b((?:storage|pubsub)\.[a-zA-Z]+\.[a-zA-Z]+)\b")
_NO_BUCKET = re.compile(r"bucket does not exist", re.IGNORECASE)


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that an error of Google's libraries means; None for others."""
    if isinstance(error, DataCorruption):
        return IntegrityError("what came isn't what Cloud Storage holds", cure=_AGAIN)
    if isinstance(error, GoogleAPICallError | InvalidResponse):
        return _of_service(error)
    if isinstance(error, LOST):
        return UnavailableError(_first(error), cure=_NETWORK)
    if isinstance(error, JSONDecodeError):
        return UnavailableError(f"what answered isn't Google Cloud: {_first(error)}", cure=BETWEEN)
    return _of_identity(error) if isinstance(error, auth.GoogleAuthError) else None


def is_no_object(error: Exception) -> bool:
    """Whether Cloud Storage has the bucket, and nothing of that name in it."""
    return status_of(error) == 404 and not _NO_BUCKET.search(said_by(error))


def _first(error: Exception) -> str:
    said = error.args[0] if error.args else type(error).__name__
    return str(said).partition("\n")[0][:_MOST_SAID]


def _of_identity(error: Exception) -> EdgeFleetError:
    if isinstance(error, auth.DefaultCredentialsError):
        cure = "sign in: gcloud auth application-default login, or GOOGLE_APPLICATION_CREDENTIALS"
        return AccessDeniedError(str(error).partition("\n")[0], cure=cure)
    return AccessExpiredError(f"no token: {_first(error)}", cure=_SIGN_IN)


def _of_service(error: Exception) -> EdgeFleetError | None:
    status, said = status_of(error), said_by(error)[:_MOST_SAID]
    where = operation_of(error)
    message = f"{where}: {said or status}" if where else said or str(error)[:_MOST_SAID]
    if status == 404:
        if _NO_BUCKET.search(said):
            return NotFoundError(message, cure=_BUCKET)
        if "/topics/" in where or "/subscriptions/" in where:
            return NotFoundError(message, cure=_TOPIC)
    known = _BY_REASON.get(reason_of(error)) or _BY_STATUS.get(status)
    if known is None:
        return UnavailableError(message, cure=_AGAIN) if status >= 500 else None
    kind, cure = known
    named = _NAMED.search(said)
    if status == 403 and kind is AccessDeniedError and named is not None:
        cure = (
            f"give the identity in use a role with {named[1]} (docs/reference/gcp-permissions.md); "
            f"{cure}"
        )
    found = kind(message, cure=cure)
    if isinstance(found, ThrottledError):
        found.retry_after_s = retry_after_s(error)
    return found
