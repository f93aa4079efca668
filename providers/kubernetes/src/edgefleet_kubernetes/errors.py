"""What Kubernetes' errors mean here: one table from the reason of a ``Status`` to our errors.

Reasons as in https://kubernetes.io/docs/reference/using-api/api-concepts/ and apimachinery's
``pkg/apis/meta/v1/types.go``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
from lightkube.core.exceptions import ApiError, ConfigError

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    AlreadyExistsError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    PolicyError,
    ProfileError,
    ThrottledError,
    UnavailableError,
    UnsupportedError,
)

if TYPE_CHECKING:
    from lightkube.models.meta_v1 import Status

_AGAIN = "repeat the call later"
_READ_AGAIN = "read it again and repeat"
_CHANGE = "change what the message names"
_LESS = "ask for less, or have the ResourceQuota that the message names raised"
_SIGN_IN = (
    "sign in to the cluster again, or check the user of the kubeconfig's context: kubectl auth "
    "whoami"
)
_ROLE = (
    "give whoever calls the role that edgefleet install --provider kubernetes --dry-run writes; "
    "who it is: kubectl auth whoami"
)
_INSTALL = (
    "check `namespace` of the profile, or prepare the cluster: "
    "edgefleet install --provider kubernetes"
)
_SERVED = "install what serves that kind in the cluster, or use a newer version of Kubernetes"
_STANDARD = (
    "change the pod, or the pod-security.kubernetes.io/enforce label of the namespace, which must "
    "let through what the documentation lists"
)
_MANAGED = "have the other field manager let go of the field, or undo its change"

_MEANING: dict[str, tuple[type[EdgeFleetError], str]] = {
    "AlreadyExists": (AlreadyExistsError, "use another name, or delete the one that is there"),
    "BadRequest": (InvalidInputError, _CHANGE),
    "Conflict": (ConflictError, _READ_AGAIN),
    "Expired": (UnavailableError, "list again, and go on from there"),
    "Forbidden": (AccessDeniedError, _ROLE),
    "Gone": (UnavailableError, "list again, and go on from there"),
    "InternalError": (UnavailableError, _AGAIN),
    "Invalid": (InvalidInputError, _CHANGE),
    "MethodNotAllowed": (UnsupportedError, _SERVED),
    "NotAcceptable": (UnsupportedError, _SERVED),
    "NotFound": (NotFoundError, "check the name and the namespace"),
    "RequestEntityTooLarge": (LimitExceededError, "send less"),
    "ServerTimeout": (UnavailableError, _AGAIN),
    "ServiceUnavailable": (UnavailableError, _AGAIN),
    "Timeout": (UnavailableError, _AGAIN),
    "TooManyRequests": (ThrottledError, "wait a little and repeat the call"),
    "Unauthorized": (AccessExpiredError, _SIGN_IN),
    "UnsupportedMediaType": (UnsupportedError, _SERVED),
}
_BY_CODE = {
    400: "BadRequest",
    401: "Unauthorized",
    403: "Forbidden",
    404: "NotFound",
    405: "MethodNotAllowed",
    409: "Conflict",
    410: "Expired",
    413: "RequestEntityTooLarge",
    422: "Invalid",
    429: "TooManyRequests",
}
# What a message says, where the reason alone says less: admission answers as if by a role.
_SAYS: tuple[tuple[str, type[EdgeFleetError], str], ...] = (
    ("exceeded quota", LimitExceededError, _LESS),
    ("failed quota", InvalidInputError, "set the resources of the pod that the message names"),
    ("violates PodSecurity", PolicyError, _STANDARD),
    ("ValidatingAdmissionPolicy", PolicyError, "do what the policy asks, or change the policy"),
    ("is being terminated", UnavailableError, "wait until the namespace is gone, and repeat"),
    ("request is too large", LimitExceededError, "send less"),
    ("disruption budget", UnavailableError, "wait until other pods are ready, and repeat"),
)
_MOST_SAID = 1000  # characters of what a server said that a message repeats


def reason_of(error: Exception) -> str:
    """Reason of what an API server answered, such as ``NotFound``; empty for anything else."""
    status = status_of(error)
    if status is None:
        if isinstance(error, httpx2.HTTPStatusError):
            return _BY_CODE.get(error.response.status_code, "")
        return ""
    return status.reason or _BY_CODE.get(status.code or 0, "")


def status_of(error: Exception) -> Status | None:
    """What an API server answered that says no; None for any other error."""
    return error.status if isinstance(error, ApiError) else None


def problem_of(error: Exception) -> EdgeFleetError | None:
    """An error of ours as it is, one of lightkube's as `translate` maps it; None for others."""
    return error if isinstance(error, EdgeFleetError) else translate(error)


def translate(error: Exception) -> EdgeFleetError | None:
    """Map an error of lightkube and what it speaks through to ours; None for others."""
    status = status_of(error)
    if status is not None:
        return _meaning(status)
    if isinstance(error, httpx2.HTTPError):
        return _of_http(error)
    if isinstance(error, ConfigError):
        told = f"the kubeconfig can't be used: {error}"
        return ProfileError(told, cure="check it: kubectl config view")
    return None


def _of_http(error: httpx2.HTTPError) -> EdgeFleetError | None:
    if isinstance(error, httpx2.HTTPStatusError):
        code = error.response.status_code
        if code == 404:
            told = f"the cluster has no such API: {error.request.url.path}"
            return UnsupportedError(told, cure=_SERVED)
        reason = _BY_CODE.get(code, "ServiceUnavailable")
        kind, cure = _MEANING[reason]
        return kind(
            f"{error.request.url.host} answered {code}, which no API server does", cure=cure
        )
    if isinstance(error, httpx2.TimeoutException):
        host = _host(error)
        return UnavailableError(f"the API server{host} didn't answer in time", cure=_AGAIN)
    if isinstance(error, httpx2.TransportError):
        told = f"the API server{_host(error)} can't be reached: {error}"
        return UnavailableError(told, cure="check the network and `server` of the kubeconfig")
    return None


def _meaning(status: Status) -> EdgeFleetError:
    message = (status.message or "an API server refused")[:_MOST_SAID]
    reason = status.reason or _BY_CODE.get(status.code or 0, "InternalError")
    for words, kind, cure in _SAYS:
        if words in message:
            return kind(message, cure=cure)
    causes = (status.details.causes or ()) if status.details else ()
    if reason == "Conflict" and any(one.reason == "FieldManagerConflict" for one in causes):
        return ConflictError(message, cure=_MANAGED, retryable=False)
    if reason == "NotFound" and status.details and status.details.kind == "namespaces":
        return NotFoundError(message, cure=_INSTALL)
    if reason == "NotFound" and not (status.details and status.details.name):
        return UnsupportedError(f"the cluster has no such kind: {message}", cure=_SERVED)
    kind, cure = _MEANING.get(reason, _by_code(status.code or 500))
    return kind(message, cure=cure)


def _by_code(code: int) -> tuple[type[EdgeFleetError], str]:
    if code >= 500:
        return (UnavailableError, _AGAIN)
    return _MEANING[_BY_CODE.get(code, "BadRequest")]


def _host(error: Any) -> str:  # noqa: ANN401 - of httpx2
    try:
        return f" at {error.request.url.host}"
    except RuntimeError:  # it had no request yet
        return ""
