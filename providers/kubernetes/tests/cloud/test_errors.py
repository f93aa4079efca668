"""What an API server's answers become: one of our errors, each with a cure."""

from __future__ import annotations

from typing import cast

import httpx2
import pytest
from lightkube import ApiError
from lightkube.core.exceptions import ConfigError
from lightkube.models.meta_v1 import Status

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
from edgefleet_kubernetes.cloud import api_status
from edgefleet_kubernetes.cloud.api_kinds import Kinds
from edgefleet_kubernetes.cloud.api_status import Cause, Refused
from edgefleet_kubernetes.errors import reason_of, translate

POD = Kinds().named("Pod")
SPACE = Kinds().named("Namespace")


def _error(refused: Refused) -> ApiError:
    return ApiError(status=cast("Status", Status.from_dict(refused.document)))


TABLE: list[tuple[Refused, type[EdgeFleetError], str]] = [
    (api_status.not_found(POD, "p"), NotFoundError, "check the name"),
    (api_status.not_found(SPACE, "x"), NotFoundError, "edgefleet install --provider kubernetes"),
    (api_status.nothing_there(), UnsupportedError, "install what serves that kind"),
    (api_status.already_exists(POD, "p"), AlreadyExistsError, "another name"),
    (api_status.conflict(POD, "p"), ConflictError, "read it again"),
    (
        api_status.forbidden(POD, "p", 'User "x" cannot get'),
        AccessDeniedError,
        "give whoever calls",
    ),
    (api_status.forbidden(POD, "p", "exceeded quota: q"), LimitExceededError, "ResourceQuota"),
    (api_status.forbidden(POD, "p", "failed quota: q"), InvalidInputError, "resources of the pod"),
    (api_status.forbidden(POD, "p", "violates PodSecurity"), PolicyError, "label of the namespace"),
    (
        api_status.forbidden(POD, "p", "ValidatingAdmissionPolicy 'x' denied"),
        PolicyError,
        "the policy",
    ),
    (
        api_status.forbidden(POD, "p", "because it is being terminated"),
        UnavailableError,
        "wait until the namespace is gone",
    ),
    (api_status.invalid(POD, "p", [Cause("x", "y", "z")]), InvalidInputError, "change what"),
    (api_status.bad_request("no"), InvalidInputError, "change what"),
    (api_status.unauthorized(), AccessExpiredError, "sign in to the cluster again"),
    (api_status.expired(1, 2), UnavailableError, "list again"),
    (api_status.throttled(), ThrottledError, "wait a little"),
    (api_status.method_not_allowed(), UnsupportedError, "newer version"),
    (Refused(413, "RequestEntityTooLarge", "too large"), LimitExceededError, "send less"),
    (Refused(500, "InternalError", "oops"), UnavailableError, "repeat the call later"),
    (Refused(500, "", "etcdserver: request is too large"), LimitExceededError, "send less"),
    (Refused(503, "SomethingNew", "oops"), UnavailableError, "repeat the call later"),
    (Refused(418, "SomethingNew", "oops"), InvalidInputError, "change what"),
]


@pytest.mark.parametrize("refused,kind,cure", TABLE)
def test_each_reason_has_its_error_and_cure(
    refused: Refused, kind: type[EdgeFleetError], cure: str
) -> None:
    found = translate(_error(refused))
    assert type(found) is kind
    assert refused.message in found.message
    assert cure in str(found.cure)


def test_another_field_manager_is_a_conflict_that_no_retry_mends() -> None:
    cause = {"reason": "FieldManagerConflict", "message": 'conflict with "x"', "field": ".data"}
    refused = Refused(409, "Conflict", "Apply failed", details={"causes": [cause]})
    found = translate(_error(refused))
    assert isinstance(found, ConflictError)
    assert found.retryable is False


REQUEST = httpx2.Request("GET", "https://cluster.example/api")
ANSWER = httpx2.Response(502, request=REQUEST)
MISSING = httpx2.Response(404, text="404 page not found", request=REQUEST)


@pytest.mark.parametrize(
    "error,kind,told",
    [
        (httpx2.ConnectError("refused", request=REQUEST), UnavailableError, "can't be reached"),
        (httpx2.ConnectError("refused"), UnavailableError, "can't be reached"),
        (httpx2.ReadTimeout("slow", request=REQUEST), UnavailableError, "in time"),
        (
            httpx2.HTTPStatusError("bad", request=REQUEST, response=ANSWER),
            UnavailableError,
            "no API server does",
        ),
        (
            httpx2.HTTPStatusError("bad", request=REQUEST, response=MISSING),
            UnsupportedError,
            "the cluster has no such API: /api",
        ),
        (ConfigError("bad"), ProfileError, "kubeconfig"),
    ],
)
def test_what_isnt_an_api_servers_answer(
    error: Exception, kind: type[EdgeFleetError], told: str
) -> None:
    found = translate(error)
    assert type(found) is kind
    assert told in found.message


def test_other_errors_stay_what_they_are() -> None:
    assert translate(KeyError("x")) is None
    assert reason_of(KeyError("x")) == ""
