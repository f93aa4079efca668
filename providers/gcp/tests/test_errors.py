"""What Google's libraries raise, and what it means here."""

from __future__ import annotations

import json
from typing import Any

import pytest
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
from requests.exceptions import JSONDecodeError

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConflictError,
    EdgeFleetError,
    IntegrityError,
    InvalidInputError,
    LimitExceededError,
    NotFoundError,
    ThrottledError,
    UnavailableError,
)
from edgefleet.interfaces.answers import BETWEEN
from edgefleet_gcp.answers import retry_after_s
from edgefleet_gcp.clients import Clients
from edgefleet_gcp.errors import translate
from edgefleet_gcp.settings import GcpSettings

URL = "https://storage.googleapis.com/storage/v1/b/models/o/a?upload_id=secret"
_of: Any = api.from_http_response  # these have no types
_auth: Any = auth


def answer(
    status: int, message: str = "no", reason: str = "", headers: dict[str, str] | None = None
) -> requests.Response:
    """What a service answered."""
    found = requests.Response()
    found.status_code = status
    error = {"code": status, "message": message, "errors": [{"reason": reason}]}
    found._content = json.dumps({"error": error}).encode()
    found.headers.update({"Content-Type": "application/json", **(headers or {})})
    found.request = requests.Request("GET", URL).prepare()
    found.url = URL
    return found


def meant(status: int, message: str = "no", reason: str = "") -> EdgeFleetError:
    found = translate(_of(answer(status, message, reason)))
    assert found is not None
    return found


@pytest.mark.parametrize(
    "status, kind",
    [
        (400, InvalidInputError),
        (401, AccessExpiredError),
        (403, AccessDeniedError),
        (404, NotFoundError),
        (409, ConflictError),
        (412, ConflictError),
        (413, LimitExceededError),
        (416, InvalidInputError),
        (429, ThrottledError),
        (500, UnavailableError),
        (502, UnavailableError),
        (503, UnavailableError),
    ],
)
def test_a_status_has_one_meaning_and_a_cure(status: int, kind: type[EdgeFleetError]) -> None:
    found = meant(status)
    assert type(found) is kind
    assert found.cure


@pytest.mark.parametrize(
    "reason, kind",
    [
        ("rateLimitExceeded", ThrottledError),
        ("quotaExceeded", LimitExceededError),
        ("insufficientPermissions", AccessDeniedError),
    ],
)
def test_a_reason_tells_more_than_the_status(reason: str, kind: type[EdgeFleetError]) -> None:
    assert type(meant(403, "no", reason)) is kind


def test_a_missing_bucket_is_told_apart_from_a_missing_object() -> None:
    assert "`bucket`" in str(meant(404, "The specified bucket does not exist."))
    assert "`bucket`" not in str(meant(404, "No such object: models/a"))


def test_no_address_of_a_session_is_in_a_message() -> None:
    for status in (400, 403, 404, 503):
        assert "secret" not in str(meant(status))


def test_no_address_of_a_session_is_in_a_message_about_an_empty_answer() -> None:
    refused = answer(403)
    refused._content = b""
    found = translate(_of(refused))
    assert isinstance(found, AccessDeniedError)
    assert "secret" not in str(found)


def test_the_library_for_uploads_says_no_in_its_own_way() -> None:
    for status, kind in ((503, UnavailableError), (404, NotFoundError), (412, ConflictError)):
        assert type(translate(InvalidResponse(answer(status)))) is kind


@pytest.mark.parametrize("body", [b'{"error":' + b"[" * 100_000, b'{"error":null}', b"[]", b"<p>"])
def test_an_answer_that_is_none_of_googles_is_known_by_its_status(body: bytes) -> None:
    refused = answer(403)
    refused._content = body
    found = translate(InvalidResponse(refused))
    assert type(found) is AccessDeniedError
    assert len(found.message) < 400


@pytest.mark.parametrize(
    "error, kind",
    [
        (_auth.DefaultCredentialsError("none"), AccessDeniedError),
        (_auth.RefreshError("invalid_grant"), AccessExpiredError),
        (_auth.OAuthError("invalid_grant"), AccessExpiredError),
        (_auth.TransportError("no route"), UnavailableError),
        (requests.exceptions.ConnectionError("refused"), UnavailableError),
        (requests.exceptions.ChunkedEncodingError("broke off"), UnavailableError),
        (DataCorruption(requests.Response()), IntegrityError),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_errors_without_an_answer_are_known(error: Exception, kind: type[EdgeFleetError]) -> None:
    assert type(translate(error)) is kind


def test_an_error_of_nobody_is_left_alone() -> None:
    assert translate(KeyError("x")) is None
    assert translate(_of(answer(418))) is None


@pytest.mark.parametrize(
    "told, wait_s",
    [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), (None, None)],
)
def test_how_long_to_wait_is_a_number_or_a_date(told: str | None, wait_s: float | None) -> None:
    headers = {} if told is None else {"Retry-After": told}
    assert retry_after_s(_of(answer(429, headers=headers))) == wait_s


@pytest.mark.parametrize("body", [b"<p>sign in</p>", b"[]", b""], ids=["page", "list", "nothing"])
def test_what_answers_in_googles_place_is_told(body: bytes) -> None:
    portal = answer(200)
    portal._content = body
    clients = Clients(GcpSettings(bucket="plant"))
    with pytest.raises(UnavailableError, match="answered") as caught:
        clients.asked(lambda: portal)
    assert caught.value.cure == BETWEEN


def test_what_googles_own_library_can_not_read_is_told() -> None:
    portal = answer(200)
    portal._content = b"<p>sign in</p>"
    with pytest.raises(JSONDecodeError) as caught:
        portal.json()
    found = translate(caught.value)
    assert isinstance(found, UnavailableError)
    assert found.cure == BETWEEN
