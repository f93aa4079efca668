"""What Azure's errors mean here: one table from its codes to our errors.

Codes of Blob storage as in
https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes, of IoT Hub as in
https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes, of Azure Resource Manager and
Azure ML as in https://learn.microsoft.com/azure/azure-resource-manager/troubleshooting/error-reference.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from azure.core import exceptions as core

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.answers import BETWEEN
from edgefleet.protocol.retry_after import retry_after_s
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from collections.abc import Mapping

_AGAIN = "repeat the call later"
_SIGN_IN = "sign in again: az login"
_FEWER = "wait a little and repeat the call, or ask for a larger unit or quota of the service"
_CLOCK = "set this machine's clock: Azure takes no request that is more than 15 minutes off"
_READ_AGAIN = "read it again and repeat"
_QUOTA = "ask for less, or for a higher quota: https://portal.azure.com, Quotas"
_CHANGE = "change what the message names"
_NAME = "check the name"
_ACCOUNT = "check `storage_url` and `prefix` of the profile, or run: edgefleet install"

_MEANING: dict[str, tuple[type[EdgeFleetError], str]] = {
    # Identity
    "ExpiredAuthenticationToken": (AccessExpiredError, _SIGN_IN),
    "InvalidAuthenticationToken": (AccessDeniedError, _SIGN_IN),
    "InvalidAuthenticationInfo": (AccessDeniedError, _SIGN_IN),
    "AuthenticationFailed": (AccessDeniedError, f"{_SIGN_IN}; and {_CLOCK}"),
    "NoAuthenticationInformation": (AccessDeniedError, _SIGN_IN),
    "KeyBasedAuthenticationNotPermitted": (
        AccessDeniedError,
        "let the storage account take shared keys, or use an identity",
    ),
    # Rates
    "ServerBusy": (ThrottledError, _FEWER),
    "TooManyRequests": (ThrottledError, _FEWER),
    "ThrottlingException": (ThrottledError, _FEWER),
    "ThrottleBacklogLimitExceeded": (ThrottledError, _FEWER),
    "ThrottlingBacklogTimeout": (ThrottledError, _FEWER),
    # Service
    "InternalError": (UnavailableError, _AGAIN),
    "InternalServerError": (UnavailableError, _AGAIN),
    "OperationTimedOut": (UnavailableError, _AGAIN),
    "ServerError": (UnavailableError, _AGAIN),
    "ServiceUnavailable": (UnavailableError, _AGAIN),
    "GatewayTimeout": (UnavailableError, _AGAIN),
    # Things
    "ContainerNotFound": (NotFoundError, _ACCOUNT),
    "ContainerBeingDeleted": (UnavailableError, "wait half a minute and repeat the call"),
    "BlobNotFound": (NotFoundError, _NAME),
    "ResourceNotFound": (NotFoundError, _NAME),
    "ResourceGroupNotFound": (NotFoundError, "check `subscription` and `resource_group`"),
    "SubscriptionNotFound": (NotFoundError, "check `subscription`, and who it is: az account show"),
    "WorkspaceNotFound": (NotFoundError, "check `workspace` of the profile"),
    "UserError.NotFound": (NotFoundError, _NAME),
    "IotHubNotFound": (NotFoundError, "check `hubs` of the profile"),
    "DeviceNotFound": (NotFoundError, _NAME),
    "ModuleNotFound": (NotFoundError, _NAME),
    "ConfigurationNotFound": (NotFoundError, _NAME),
    "ConditionNotMet": (ConflictError, _READ_AGAIN),
    "TargetConditionNotMet": (ConflictError, _READ_AGAIN),
    "BlobAlreadyExists": (ConflictError, _READ_AGAIN),
    "PreconditionFailed": (ConflictError, _READ_AGAIN),
    "DeviceAlreadyExists": (ConflictError, _READ_AGAIN),
    "ModuleAlreadyExistsOnDevice": (ConflictError, _READ_AGAIN),
    "ConfigurationAlreadyExists": (ConflictError, _READ_AGAIN),
    "LeaseIdMissing": (ConflictError, "have whoever holds the lease end it"),
    "BlobImmutableDueToPolicy": (ConflictError, "change the immutability policy of the container"),
    "AnotherOperationInProgress": (ConflictError, _AGAIN),
    # Requests
    "IotHubQuotaExceeded": (LimitExceededError, "wait for the next day, or add units to the hub"),
    "QuotaExceeded": (LimitExceededError, _QUOTA),
    "MessageTooLarge": (LimitExceededError, "send less"),
    "RequestBodyTooLarge": (LimitExceededError, "send less"),
    "ConfigurationCountLimitExceeded": (LimitExceededError, "delete deployments of the hub"),
    "TooManyDevices": (LimitExceededError, _QUOTA),
    "ArgumentInvalid": (InvalidInputError, _CHANGE),
    "ArgumentNull": (InvalidInputError, _CHANGE),
    "InvalidHeaderValue": (InvalidInputError, _CHANGE),
    "InvalidInput": (InvalidInputError, _CHANGE),
    "InvalidQueryParameterValue": (InvalidInputError, _CHANGE),
    "InvalidRequestContent": (InvalidInputError, _CHANGE),
    "OutOfRangeInput": (InvalidInputError, _CHANGE),
    "UserError": (InvalidInputError, _CHANGE),
    "ValidationError": (InvalidInputError, _CHANGE),
    "BadRequest": (InvalidInputError, _CHANGE),
}

# Azure's built-in role that allows what we do there, and where it is given.
_ROLES = {
    "blob": "Storage Blob Data Contributor",
    "hub": "IoT Hub Data Contributor",
    "ml": "AzureML Data Scientist",
    "shared": "AzureML Registry User",
}
_PLACES = {
    "blob": "the storage account",
    "hub": "the IoT Hub",
    "ml": "the Azure ML workspace",
    "shared": "the shared Azure ML registry",
}

_BY_STATUS: dict[int, tuple[type[EdgeFleetError], str]] = {
    400: (InvalidInputError, _CHANGE),
    401: (AccessDeniedError, _SIGN_IN),
    404: (NotFoundError, _NAME),
    409: (ConflictError, _READ_AGAIN),
    412: (ConflictError, _READ_AGAIN),
    413: (LimitExceededError, "send less"),
    429: (ThrottledError, _FEWER),
}

_EXPIRED_SAS = re.compile(r"Signature not valid in the specified time frame", re.IGNORECASE)
_NAMED_ACTION = re.compile(r"perform action '([^']+)'")
_HUB_MESSAGE = re.compile(r"ErrorCode:\s*([A-Za-z0-9]+)")
_SIGNATURE = re.compile(
    r"([?&;]|\b)(sig|sv|se|st|sp|sr|si|skoid|sktid)=[^&\s\"'<>]*", re.IGNORECASE
)
_MOST_SAID = 500  # characters of what a service said that a message repeats


@dataclass(frozen=True)
class Answer:
    """What a service answered that says no.

    Attributes:
        status: of HTTP.
        code: as Azure writes it; empty where it gave none.
        said: for people; without signatures.
        service: ``blob``, ``hub``, ``ml``, ``shared`` (a shared registry of Azure ML) or ``arm``.
        operation: method and path that were called.
        retry_after_s: how long it asks to wait; None when it doesn't say.
    """

    status: int
    code: str
    said: str
    service: str
    operation: str
    retry_after_s: float | None


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that an error of Azure's libraries means; None for others."""
    answer = answer_of(error)
    if answer is not None:
        return _of_service(answer)
    name = _names(error)
    said = without_signature(str(error))
    if "CredentialUnavailableError" in name or "ClientAuthenticationError" in name:
        return AccessDeniedError(said, cure="sign in: az login, or give this machine an identity")
    if isinstance(error, core.ServiceRequestError | core.ServiceResponseError):
        return UnavailableError(said, cure="check the network, then repeat the call")
    if isinstance(error, core.DecodeError | core.DeserializationError):
        return UnavailableError(f"what answered isn't Azure: {said}", cure=BETWEEN)
    if name & {"ClientRequestError", "RequestException"}:
        return UnavailableError(said, cure="check the network, then repeat the call")
    return None


def code_of(error: Exception) -> str:
    """The code of an error that a service answered; empty for any other error."""
    answer = answer_of(error)
    return "" if answer is None else answer.code


def status_of(error: Exception) -> int:
    """The HTTP status of an error that a service answered; 0 for any other error."""
    answer = answer_of(error)
    return 0 if answer is None else answer.status


def without_signature(text: str) -> str:
    """A text in which no SAS can be read any more."""
    return _SIGNATURE.sub(r"\1\2=…", text)


def answer_of(error: Exception) -> Answer | None:
    """What a service answered; None where none did."""
    response: Any = getattr(error, "response", None)
    status = getattr(response, "status_code", None)
    if not isinstance(status, int) or status < 400:
        return None
    headers = {str(name).lower(): str(value) for name, value in response.headers.items()}
    code, said = _body(response)
    code = headers.get("x-ms-error-code") or headers.get("iothub-errorcode") or code
    request: Any = getattr(response, "request", None)
    url = urlsplit(str(getattr(request, "url", "") or getattr(response, "url", "")))
    return Answer(
        status=status,
        code=code,
        said=without_signature(said)[:_MOST_SAID],
        service=_service(headers, url.netloc, url.path),
        operation=f"{getattr(request, 'method', '')} {url.path}".strip(),
        retry_after_s=retry_after_s(headers.get("retry-after")),
    )


def _names(error: Exception) -> set[str]:
    """Names of an error's classes: msrest's and azure-identity's aren't imported for this."""
    return {kind.__name__ for kind in type(error).__mro__}


def _body(response: Any) -> tuple[str, str]:  # noqa: ANN401 - of several libraries
    """Code and message of an error's body: Azure's JSON, IoT Hub's, or storage's XML."""
    try:
        text = response.text() if callable(response.text) else response.text
    except Exception:  # noqa: BLE001 - a body that wasn't read says nothing
        return "", ""
    text = str(text or "")
    xml = re.search(r"<Code>([^<]*)</Code>\s*<Message>([^<]*)", text)
    if xml is not None:
        detail = re.search(r"<AuthenticationErrorDetail>([^<]*)", text)
        first = xml.group(2).partition("\n")[0]
        return xml.group(1), f"{first} {detail.group(1)}" if detail else first
    try:
        found = decoder(dict[str, Any]).decode(text)
    except UNREADABLE:
        return "", ""
    inner = found.get("error")
    if isinstance(inner, dict):
        return str(inner.get("code", "")), str(inner.get("message", ""))
    said = str(found.get("Message") or found.get("message") or "")
    named = _HUB_MESSAGE.search(said)
    return named.group(1) if named else str(found.get("code", "")), said


def _service(headers: Mapping[str, str], host: str, path: str) -> str:
    if "iothub-errorcode" in headers or ".azure-devices." in host:
        return "hub"
    if "/registrymanagement/" in path or "MachineLearningServices/registries/" in path:
        return "shared"
    if ".blob." in host or "x-ms-error-code" in headers:
        return "blob"
    return "ml" if "Microsoft.MachineLearningServices" in path else "arm"


def _of_service(answer: Answer) -> EdgeFleetError | None:
    message = f"{answer.operation}: {answer.said or answer.code or answer.status}"
    if _EXPIRED_SAS.search(answer.said):
        return AccessExpiredError(message, cure="renew it: edgefleet access renew")
    if answer.status == 403 and answer.code not in _MEANING:
        return AccessDeniedError(message, cure=_missing(answer))
    if answer.status == 401 and answer.service == "hub":
        return AccessDeniedError(message, cure=_missing(answer))
    known = _MEANING.get(answer.code) or _BY_STATUS.get(answer.status)
    if known is None:
        return UnavailableError(message, cure=_AGAIN) if answer.status >= 500 else None
    kind, cure = known
    found = kind(message, cure=cure)
    if isinstance(found, ThrottledError):
        found.retry_after_s = answer.retry_after_s
    return found


def _missing(answer: Answer) -> str:
    """What an identity lacks that was refused."""
    named = _NAMED_ACTION.search(answer.said)
    if named is not None:
        return f"give the identity in use a role that allows {named.group(1)!r}"
    role = _ROLES.get(answer.service, "Contributor")
    where = _PLACES.get(answer.service, "the resource group")
    return (
        f"give the identity in use the role {role!r} on {where} (it works some minutes later); "
        "who it is: az account show"
    )
