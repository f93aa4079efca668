from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import trustme

from device_runtime.tests.channels.pull.standin import Enrolled, StandIn, serving
from device_runtime.tests.support import Clock
from edgefleet_runtime.channels.pull.from_gateway import GatewayChannel

Make = Callable[..., GatewayChannel]


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine's own proxy is none of a test's."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def gateway(authority: trustme.CA) -> Iterator[StandIn]:
    with serving(StandIn(authority)) as server:
        yield server


@pytest.fixture
def enrolled(authority: trustme.CA, gateway: StandIn) -> Enrolled:
    return Enrolled(authority, gateway.address)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make(enrolled: Enrolled) -> Iterator[Make]:
    """Makes channels; those that don't wait for news ask when a test says so."""
    with ExitStack() as stack:

        def channel(credentials: Enrolled = enrolled, **options: Any) -> GatewayChannel:
            given = {"wait_s": 0.0, "timeout_s": 20.0, **options}
            if not given["wait_s"]:
                given.setdefault("start", lambda _name, _work: None)
            found = GatewayChannel(credentials, **given)
            stack.callback(found.close)
            return found

        yield channel
