"""What AWS's errors mean here: one table from its codes to our errors.

Codes as in the "Common Errors" of each service's API reference, and for S3 in
https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html.
"""

from __future__ import annotations

import re
from typing import Any

from boto3.exceptions import S3UploadFailedError
from botocore import exceptions as vendor

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
    ConflictError,
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet_aws.permissions import S3_ACTIONS

_AGAIN = "repeat the call later"
_SIGN_IN = "sign in again (aws sso login) or renew the keys, then repeat the call"
_FEWER = "wait a little and repeat the call, or ask AWS for a higher rate (Service Quotas)"
_CLOCK = "set this machine's clock: AWS takes no request that is more than 15 minutes off"
_KEYS = "check the access key and its secret: aws sts get-caller-identity"
_BUCKET = "check `bucket` and `region` of the profile, or make the bucket"
_READ_AGAIN = "read it again and repeat"
_QUOTA = "ask for less, or for a higher quota: https://console.aws.amazon.com/servicequotas"

_MEANING: dict[str, tuple[type[EdgeFleetError], str]] = {
    # Identity
    "ExpiredToken": (AccessExpiredError, _SIGN_IN),
    "ExpiredTokenException": (AccessExpiredError, _SIGN_IN),
    "TokenRefreshRequired": (AccessExpiredError, _SIGN_IN),
    "RequestExpired": (ConfigurationError, _CLOCK),
    "RequestTimeTooSkewed": (ConfigurationError, _CLOCK),
    "InvalidAccessKeyId": (AccessDeniedError, _KEYS),
    "InvalidClientTokenId": (AccessDeniedError, _KEYS),
    "UnrecognizedClientException": (AccessDeniedError, _KEYS),
    "SignatureDoesNotMatch": (AccessDeniedError, _KEYS),
    "InvalidSignatureException": (AccessDeniedError, _KEYS),
    "InvalidToken": (AccessDeniedError, _KEYS),
    # Rates
    "BandwidthLimitExceeded": (ThrottledError, _FEWER),
    "RequestLimitExceeded": (ThrottledError, _FEWER),
    "RequestThrottled": (ThrottledError, _FEWER),
    "RequestThrottledException": (ThrottledError, _FEWER),
    "SlowDown": (ThrottledError, _FEWER),
    "Throttling": (ThrottledError, _FEWER),
    "ThrottlingException": (ThrottledError, _FEWER),
    "ThrottledException": (ThrottledError, _FEWER),
    "TooManyRequestsException": (ThrottledError, _FEWER),
    # Service
    "InternalError": (UnavailableError, _AGAIN),
    "InternalFailure": (UnavailableError, _AGAIN),
    "InternalServerException": (UnavailableError, _AGAIN),
    "RequestTimeout": (UnavailableError, _AGAIN),
    "ServiceUnavailable": (UnavailableError, _AGAIN),
    "ServiceUnavailableException": (UnavailableError, _AGAIN),
    # Things
    "404": (NotFoundError, "check the name"),
    "NoSuchBucket": (NotFoundError, _BUCKET),
    "NoSuchKey": (NotFoundError, "check the name"),
    "ResourceNotFound": (NotFoundError, "check the name"),
    "ResourceNotFoundException": (NotFoundError, "check the name"),
    "PermanentRedirect": (ConfigurationError, _BUCKET),
    "AuthorizationHeaderMalformed": (ConfigurationError, _BUCKET),
    "PreconditionFailed": (ConflictError, _READ_AGAIN),
    "ConditionalRequestConflict": (ConflictError, _READ_AGAIN),
    "OperationAborted": (ConflictError, _READ_AGAIN),
    "ConflictException": (ConflictError, _READ_AGAIN),
    "ResourceInUse": (ConflictError, _READ_AGAIN),
    "ResourceAlreadyExistsException": (ConflictError, _READ_AGAIN),
    "LimitExceededException": (LimitExceededError, _QUOTA),
    "ServiceQuotaExceededException": (LimitExceededError, _QUOTA),
    "ResourceLimitExceeded": (LimitExceededError, _QUOTA),
    "EntityTooLarge": (LimitExceededError, "send less"),
    "ValidationException": (InvalidInputError, "change what the message names"),
    "InvalidParameterException": (InvalidInputError, "change what the message names"),
    "InvalidRequestException": (InvalidInputError, "change what the message names"),
    "InvalidRequest": (InvalidInputError, "change what the message names"),
    "InvalidArgument": (InvalidInputError, "change what the message names"),
}
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "UnauthorizedException",
    "AllAccessDisabled",
    "403",
    "Forbidden",
}

# boto3's own errors, first match first.
_LOCAL: tuple[tuple[type[Exception], type[EdgeFleetError], str], ...] = (
    (vendor.NoCredentialsError, AccessDeniedError, "sign in: aws configure, or aws sso login"),
    (vendor.PartialCredentialsError, ConfigurationError, "complete the keys: aws configure"),
    (vendor.CredentialRetrievalError, AccessExpiredError, _SIGN_IN),
    (vendor.TokenRetrievalError, AccessExpiredError, _SIGN_IN),
    (vendor.SSOError, AccessExpiredError, _SIGN_IN),
    (vendor.ProfileNotFound, ConfigurationError, "correct `credentials_profile` of the profile"),
    (vendor.NoRegionError, ConfigurationError, "set `region` in the profile, or AWS_REGION"),
    (vendor.ParamValidationError, InvalidInputError, "change what the message names"),
    (vendor.ConnectionError, UnavailableError, "check the network, then repeat the call"),
    (vendor.HTTPClientError, UnavailableError, "check the network, then repeat the call"),
    (vendor.IncompleteReadError, UnavailableError, "check the network, then repeat the call"),
)

_NAMED_ACTION = re.compile(r"not authorized to perform: ([a-z0-9-]+:[A-Za-z0-9]+)")


def translate(error: Exception) -> EdgeFleetError | None:
    """The error of ours that an error of boto3 means; None for others."""
    if isinstance(error, S3UploadFailedError) and isinstance(error.__context__, Exception):
        return translate(error.__context__)  # boto3 wraps what a service answered
    if isinstance(error, vendor.ClientError):
        return _of_service(error)
    for theirs, ours, cure in _LOCAL:
        if isinstance(error, theirs):
            return ours(str(error), cure=cure)
    return None


def code_of(error: Exception) -> str:
    """The code of an error that a service answered; empty for any other error."""
    return str(_answer(error).get("Code", ""))


def _answer(error: Exception) -> dict[str, Any]:
    if not isinstance(error, vendor.ClientError):
        return {}
    found: dict[str, Any] = error.response.get("Error", {})
    return found


def _of_service(error: Any) -> EdgeFleetError | None:  # noqa: ANN401 - botocore has no types
    code, said = code_of(error), str(_answer(error).get("Message", "")).strip()
    operation = str(error.operation_name)
    message = f"{operation}: {said or code}"
    if code in _DENIED:
        named = _NAMED_ACTION.search(said)
        needed = ", ".join(S3_ACTIONS.get(operation, (operation,)))
        action = named.group(1) if named else needed
        return AccessDeniedError(
            message,
            cure=f"let the identity in use do {action}; who it is: aws sts get-caller-identity",
        )
    if code in _MEANING:
        kind, cure = _MEANING[code]
        return kind(message, cure=cure)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return UnavailableError(message, cure=_AGAIN) if status >= 500 else None
