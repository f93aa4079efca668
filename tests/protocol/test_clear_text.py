"""Where a secret may be sent."""

from __future__ import annotations

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.clear_text import address_told, check_private


@pytest.mark.parametrize(
    "address",
    ["https://a.example/", "http://localhost:4443", "http://127.0.0.9:1/", "http://[::1]:80"],
)
def test_over_tls_and_within_this_machine_it_may(address: str) -> None:
    assert check_private(address) == address.rstrip("/")


@pytest.mark.parametrize(
    "address", ["http://a.example", "http://10.0.0.1:80", "http://localhost.example", "a.example"]
)
def test_elsewhere_it_may_not(address: str) -> None:
    with pytest.raises(ConfigurationError, match="https"):
        check_private(address)


@pytest.mark.parametrize(
    "told, address",
    [
        (None, "https://a.example"),
        ("", "https://a.example"),
        ("localhost:8085", "http://localhost:8085"),
        ("http://127.0.0.1:4443/", "http://127.0.0.1:4443"),
        ("https://b.example/", "https://b.example"),
    ],
)
def test_a_service_is_where_a_variable_says_or_at_its_own_address(
    monkeypatch: pytest.MonkeyPatch, told: str | None, address: str
) -> None:
    monkeypatch.delenv("A_SERVICE", raising=False)
    if told is not None:
        monkeypatch.setenv("A_SERVICE", told)
    assert address_told("A_SERVICE", "https://a.example") == address


@pytest.mark.parametrize("told", ["b.example:80", "http://b.example"])
def test_a_variable_sends_no_secret_through_the_clear(
    monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    monkeypatch.setenv("A_SERVICE", told)
    with pytest.raises(ConfigurationError, match="https"):
        address_told("A_SERVICE", "https://a.example")
