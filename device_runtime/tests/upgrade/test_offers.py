"""Which offers are for a device."""

from __future__ import annotations

import pytest

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.gateway import Archive, RuntimeOffer
from edgefleet.protocol.pointer import Cohort, in_cohort
from edgefleet_runtime.upgrade.offers import Wanted, wanted
from edgefleet_runtime.upgrade.places import Kept

ARCHIVE = Archive(digest=digest_of(b"runtime"), size=7)
NAME = f"0.2.0-{ARCHIVE.digest[7:19]}"
ORDER = f"runtime/{ARCHIVE.digest}"


def offer(permille: int = 1000) -> RuntimeOffer:
    return RuntimeOffer(runtime="0.2.0", archives={"linux-aarch64": ARCHIVE}, permille=permille)


def decide(
    found: RuntimeOffer | None,
    *,
    device: str = "cam-1",
    machine: str = "linux-aarch64",
    own: str = "old",
    kept: Kept | None = None,
) -> Wanted | None:
    return wanted(found, device=device, machine=machine, own=own, kept=kept)


def test_what_is_offered_is_wanted() -> None:
    assert decide(offer()) == Wanted(ARCHIVE, NAME, "0.2.0", ORDER)


def test_nothing_another_platform_s_and_what_runs_is_not() -> None:
    assert decide(None) is None
    assert decide(offer(), machine="linux-x86_64") is None
    assert decide(offer(), own=NAME) is None


def test_the_same_devices_are_in_every_larger_cohort() -> None:
    devices = [f"cam-{number}" for number in range(300)]
    taking = [
        {one for one in devices if decide(offer(permille), device=one)}
        for permille in (0, 100, 500, 1000)
    ]
    assert taking[0] == set()
    assert taking[0] < taking[1] < taking[2] < taking[3]
    assert taking[3] == set(devices)
    cohort = Cohort(salt="runtime", permille=100)
    assert taking[1] == {one for one in devices if in_cohort(cohort, one)}


@pytest.mark.parametrize(
    "kept, again",
    [
        (Kept(order=ORDER, name=NAME, runtime="0.2.0", failed="it died"), False),
        (Kept(order=ORDER, name=NAME, runtime="0.2.0"), True),
        (Kept(order="before", name=NAME, runtime="0.2.0", failed="it died"), True),
    ],
)
def test_what_failed_is_not_wanted_again_under_the_same_order(*, kept: Kept, again: bool) -> None:
    assert (decide(offer(), kept=kept) is not None) == again
