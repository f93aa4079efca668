"""Addresses, challenges and credentials of OCI registries."""

from __future__ import annotations

import base64
import json
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import ConfigurationError, InvalidInputError, UnavailableError
from edgefleet.protocol.oci import (
    Challenge,
    Credentials,
    Helper,
    Repository,
    credentials_in,
    credentials_told,
    is_loopback,
    read_challenge,
    read_repository,
    read_token,
    token_request,
)

PLANT = Repository("registry.plant:5000", "fleet/models")
ADA = Credentials("ada", "pass")
BEARER = Challenge(
    "bearer", "https://auth.plant/token", "registry", ("repository:fleet/models:pull",)
)


@pytest.mark.parametrize(
    "address, origin",
    [
        ("oci://registry.plant/models", "https://registry.plant"),
        ("oci://registry.plant:5000/a/b-c/d__e/", "https://registry.plant:5000"),
        ("oci://127.0.0.1:5000/models", "http://127.0.0.1:5000"),
        ("oci://localhost/models", "http://localhost"),
        ("oci://[::1]:5000/models", "http://[::1]:5000"),
        ("oci://127.0.0.1.example.com/models", "https://127.0.0.1.example.com"),
        ("oci://localhost.plant/models", "https://localhost.plant"),
        ("oci://docker.io/acme/models", "https://registry-1.docker.io"),
    ],
)
def test_tls_is_left_out_on_loopback_alone(address: str, origin: str) -> None:
    repository = read_repository(address)
    assert repository.origin == origin
    assert str(repository) == address.rstrip("/")


@pytest.mark.parametrize(
    "address",
    [
        "https://registry.plant/models", "oci://registry.plant", "oci:///models",
        "oci://registry.plant/Models", "oci://registry.plant/a//b", "oci://registry.plant/../a",
        "oci://ada:pass@registry.plant/models", f"oci://h/{256 * 'a'}", "oci://h/a?b", "",
    ],
)  # fmt: skip
def test_what_is_no_address_of_a_repository_is_refused(address: str) -> None:
    with pytest.raises(InvalidInputError, match="REPOSITORY"):
        read_repository(address)


def _auth(text: str) -> dict[str, str]:
    return {"auth": base64.b64encode(text.encode()).decode()}


@pytest.mark.parametrize(
    "key",
    ["registry.plant:5000", "https://registry.plant:5000", "https://registry.plant:5000/v1/",
     "registry.plant:5000/fleet", "registry.plant:5000/fleet/models"],
)  # fmt: skip
def test_credentials_are_found_under_the_forms_that_tools_write(key: str) -> None:
    config = json.dumps({"auths": {"other.plant": _auth("eve:x"), key: _auth("ada:p:ss")}})
    assert credentials_in(config.encode(), PLANT) == Credentials("ada", "p:ss")


@pytest.mark.parametrize(
    "key", ["registry.plant", "plant:5000", "registry.plant:5000/fle", "registry.plant:5000/other"]
)
def test_credentials_of_another_place_are_not_ours(key: str) -> None:
    assert credentials_in(json.dumps({"auths": {key: _auth("eve:x")}}).encode(), PLANT) is None


def test_the_longest_place_that_fits_counts() -> None:
    auths = {PLANT.host: _auth("all:x"), f"{PLANT.host}/fleet": _auth("ada:x")}
    found = credentials_in(json.dumps({"auths": auths}).encode(), PLANT)
    assert found == Credentials("ada", "x")


def test_docker_hub_has_several_names() -> None:
    config = json.dumps({"auths": {"https://index.docker.io/v1/": _auth("ada:x")}}).encode()
    assert credentials_in(config, read_repository("oci://docker.io/acme/m")) == Credentials(
        "ada", "x"
    )


@pytest.mark.parametrize(
    "entry, found",
    [
        ({"username": "ada", "password": "x"}, Credentials("ada", "x")),
        ({**_auth("ada:x"), "identitytoken": "t"}, Credentials("", "t", "identity")),
        ({"registrytoken": "t"}, Credentials("", "t", "bearer")),
        (_auth("<token>:t"), Credentials("", "t", "identity")),
        ({}, None),
    ],
)
def test_each_kind_of_credentials_is_known(
    entry: dict[str, str], found: Credentials | None
) -> None:
    assert credentials_in(json.dumps({"auths": {PLANT.host: entry}}).encode(), PLANT) == found


def test_a_helper_is_named_by_host_or_for_all() -> None:
    by_host = json.dumps({"credHelpers": {PLANT.host: "gcloud"}, "credsStore": "other"}).encode()
    assert credentials_in(by_host, PLANT) == Helper("gcloud", PLANT.host)
    stored = json.dumps({"auths": {PLANT.host: {}}, "credsStore": "desktop"}).encode()
    assert credentials_in(stored, PLANT) == Helper("desktop", PLANT.host)


@pytest.mark.parametrize(
    "config",
    [b"", b"[]", b"[" * 5000, b"secret", b'{"auths": {"registry.plant:5000": {"auth": "secret!"}}}',
     b'{"auths": {"registry.plant:5000": "secret"}}',
     b'{"auths": {"registry.plant:5000": {"registrytoken": "a\\nsecret"}}}',
     b'{"auths": {"registry.plant:5000": {"registrytoken": "s\\u00e9cret, secret"}}}',
     b'{"credHelpers": {"registry.plant:5000": "../secret"}}'],
)  # fmt: skip
def test_a_broken_file_is_told_and_nothing_of_it(config: bytes) -> None:
    with pytest.raises(ConfigurationError) as raised:
        credentials_in(config, PLANT)
    assert "secret" not in str(raised.value)
    assert raised.value.__suppress_context__


def test_a_helpers_answer_is_read() -> None:
    assert credentials_told(b'{"Username": "ada", "Secret": "x"}') == Credentials("ada", "x")
    assert credentials_told(b'{"Username": "<token>", "Secret": "t"}').kind == "identity"
    with pytest.raises(ConfigurationError):
        credentials_told(b"credentials not found in native keychain")
    with pytest.raises(ConfigurationError):
        credentials_told(b"[" * 5000)


def test_secrets_are_not_in_the_text_of_values() -> None:
    token = read_token(b'{"token": "secret"}')
    request = token_request(BEARER, Credentials("ada", "secret"), PLANT)
    posted = token_request(BEARER, Credentials("", "secret", "identity"), PLANT)
    for value in (Credentials("ada", "secret"), token, request, posted):
        assert "secret" not in repr(value)
        assert base64.b64encode(b"ada:secret").decode() not in repr(value)


def test_a_challenge_is_read() -> None:
    said = (
        'Bearer realm="https://auth.plant/token",service="registry",'
        'scope="repository:fleet/models:pull,push repository:other:pull",error="invalid_token"'
    )
    assert read_challenge(said) == Challenge(
        "bearer",
        "https://auth.plant/token",
        "registry",
        ("repository:fleet/models:pull,push", "repository:other:pull"),
    )


@pytest.mark.parametrize(
    "header", ['Basic realm="a, Bearer b", Bearer realm="https://x"', 'bearer realm="https://x"']
)
def test_a_token_is_preferred_to_a_password(header: str) -> None:
    found = read_challenge(header)
    assert found is not None
    assert (found.scheme, found.realm) == ("bearer", "https://x")


def test_a_challenge_that_nothing_here_answers_is_none() -> None:
    assert read_challenge("Negotiate") is None
    assert read_challenge("") is None
    assert read_challenge("Basic") == Challenge("basic")


@given(st.text())
def test_no_header_breaks_the_reader(header: str) -> None:
    found = read_challenge(header)
    assert found is None or found.scheme in {"basic", "bearer"}


def test_a_token_is_asked_for_with_a_password_in_the_header_alone() -> None:
    request = token_request(BEARER, ADA, PLANT, ["repository:other:pull"])
    asked = parse_qs(urlsplit(request.url).query)
    assert asked == {
        "service": ["registry"],
        "scope": ["repository:fleet/models:pull", "repository:other:pull"],
    }
    assert request.headers == {"Authorization": ADA.basic()}
    assert request.body is None


def test_an_identity_token_is_posted_and_stands_in_no_address() -> None:
    request = token_request(BEARER, Credentials("", "secret", "identity"), PLANT)
    assert request.url == BEARER.realm
    assert request.body is not None
    assert parse_qs(request.body.decode())["refresh_token"] == ["secret"]


def test_nobody_asks_with_nothing() -> None:
    assert token_request(BEARER, None, PLANT).headers == {}


@pytest.mark.parametrize(
    "realm", ["http://auth.plant/token", "http://127.0.0.1/token", "", "ftp://x/", "https://a@b/"]
)
def test_credentials_are_never_sent_in_the_clear(realm: str) -> None:
    with pytest.raises(UnavailableError, match="without TLS") as raised:
        token_request(Challenge("bearer", realm), ADA, PLANT)
    assert not raised.value.retryable


def test_a_registry_on_loopback_may_have_its_tokens_there() -> None:
    here = read_repository("oci://127.0.0.1:5000/models")
    request = token_request(Challenge("bearer", "http://127.0.0.1:5001/token"), ADA, here)
    assert request.url.startswith("http://127.0.0.1:5001/")
    with pytest.raises(UnavailableError):
        token_request(Challenge("bearer", "http://auth.plant/token"), ADA, here)


@pytest.mark.parametrize(
    "answer",
    [b"", b"{}", b"[]", b"[" * 5000, b'{"token": ""}', b'{"token": "a b"}', b'{"token": 7}'],
)
def test_an_answer_without_a_token_is_told(answer: bytes) -> None:
    with pytest.raises(UnavailableError):
        read_token(answer)


def test_a_token_has_two_names_and_lasts_a_minute_by_default() -> None:
    assert read_token(b'{"access_token": "t", "expires_in": 900}').lifetime_s == 900
    assert read_token(b'{"token": "t"}').lifetime_s == 60


@pytest.mark.parametrize("host", ["localhost", "localhost:1", "127.1.2.3:80", "[::1]", "[::1]:80"])
def test_loopback_is_known(host: str) -> None:
    assert is_loopback(host)
