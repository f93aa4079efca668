"""Where requests come from: who is one caller, and who is which address."""

from __future__ import annotations

import pytest

from edgefleet_gateway.server.addresses import address_of, counted_as


@pytest.mark.parametrize(
    "told, address",
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8::7", "2001:db8::7"),
        ("fe80::7%eth0", "fe80::7"),
    ],
)
def test_a_caller_has_the_address_that_operators_write(told: str, address: str) -> None:
    assert str(address_of(told)) == address


def test_all_addresses_of_an_ipv6_host_count_together_and_those_of_others_do_not() -> None:
    one, same, other = (
        counted_as(address_of(told))
        for told in ("2001:db8:0:1::1", "2001:db8:0:1:ffff:ffff:ffff:ffff", "2001:db8:0:2::1")
    )
    assert one == same == "2001:db8:0:1::/64"
    assert other != one


def test_callers_over_ipv4_count_each_for_itself_on_a_socket_of_ipv6() -> None:
    assert counted_as(address_of("::ffff:192.0.2.7")) == "192.0.2.7"
    assert counted_as(address_of("::ffff:192.0.2.8")) == "192.0.2.8"
