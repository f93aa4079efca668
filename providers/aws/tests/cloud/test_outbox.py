"""What the two nuclei do with messages while there is no network."""

from __future__ import annotations

import asyncio

import pytest

from edgefleet.errors import LimitExceededError, UnavailableError
from edgefleet_aws.cloud.outbox import MAX_BYTES, Outbox
from edgefleet_aws.cloud.recipes import Kind


class Network:
    """Takes messages while it is up."""

    def __init__(self, kind: Kind) -> None:
        self.up = False
        self.sent: list[bytes] = []
        self.outbox = Outbox(kind, self.publish)

    def publish(self, topic: str, payload: bytes) -> None:
        if not self.up:
            raise UnavailableError("no network")
        self.sent.append(payload)


@pytest.fixture
def network(kind: Kind) -> Network:
    return Network(kind)


only_classic = pytest.mark.parametrize("kind", [Kind.CLASSIC])
only_lite = pytest.mark.parametrize("kind", [Kind.LITE])


@only_classic
def test_the_classic_nucleus_sends_later_and_in_order(network: Network) -> None:
    async def work() -> None:
        await network.outbox.put("t", b"1")
        await network.outbox.put("t", b"2")
        await network.outbox.flush()
        assert network.sent == []
        network.up = True
        await network.outbox.put("t", b"3")
        await network.outbox.flush()

    asyncio.run(work())
    assert network.sent == [b"1", b"2", b"3"]


@only_classic
def test_what_the_classic_nucleus_keeps_is_bounded(network: Network) -> None:
    async def work() -> None:
        await network.outbox.put("t", bytes(MAX_BYTES))
        with pytest.raises(LimitExceededError):
            await network.outbox.put("t", b"1")

    asyncio.run(work())


@only_lite
def test_the_light_nucleus_keeps_nothing(network: Network) -> None:
    async def work() -> None:
        with pytest.raises(UnavailableError):
            await network.outbox.put("t", b"1")
        network.up = True
        await network.outbox.flush()

    asyncio.run(work())
    assert network.sent == []
