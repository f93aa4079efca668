"""Where a secret may be sent."""

from __future__ import annotations

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet.protocol.clear_text import check_private


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
