"""Trials on a device as the user gives them: what a backend's answers become."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.devices import Device
from edgefleet.errors import (
    CancelledError,
    EdgeFleetError,
    NotFoundError,
    UnavailableError,
    UnsupportedError,
    WaitTimeoutError,
)
from edgefleet.interfaces.abilities import CanInvoke, Reply
from edgefleet.interfaces.values import DeviceInfo
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.orders import TRIAL, TrialAnswer, TrialFigures, TrialOrder
from edgefleet.testing.kit import samples
from edgefleet_local.registry import LocalRegistry

if TYPE_CHECKING:
    from pathlib import Path

    from edgefleet.protocol.layout import BundleLayout

FIGURES = (TrialFigures(variant="fp32", outcome="measured", p50_us=3.0),)


class Following(CanInvoke):
    """A backend whose only device answers with what is prepared, and then with the last of it."""

    provider = "following"
    role = "deployer"

    def __init__(self, *answers: str | Reply | BaseException) -> None:
        self.answers = list(answers)
        self.asked: list[TrialOrder] = []

    def _invoke(
        self, device: str, path: str, body: bytes | None, headers: dict[str, str], timeout_s: float
    ) -> Reply:
        assert path == TRIAL
        order = decode(TrialOrder, body or b"")
        self.asked.append(order)
        answer: Any = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        told = TrialAnswer(
            id=order.id or "",
            bundle=self.asked[0].bundle or "",
            state=answer,
            reason="because",
            figures=FIGURES if answer == "done" else (),
        )
        return Reply(200, {}, encode(told))


@pytest.fixture
def bundle(tmp_path: Path) -> BundleLayout:
    return samples.bundle(tmp_path / "bundles", 1, size=400)


@pytest.fixture
def registry(tmp_path: Path) -> LocalRegistry:
    return LocalRegistry(tmp_path / "registry")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgefleet.devices.FIRST_LOOK_S", 0.0)


def device_of(backend: object, registry: LocalRegistry | None) -> Device:
    found: Any = backend
    info = DeviceInfo(name="cam-07", group="line-3", labels={"target": "x86-cpu"})
    return Device(found, info, registry=None if registry is None else lambda: registry)


def refused(status: int, error: str, cure: str | None) -> Reply:
    return Reply(status, {}, json.dumps({"error": error, "cure": cure}).encode())


def test_a_trial_is_ordered_once_looked_at_and_told(
    bundle: BundleLayout, registry: LocalRegistry
) -> None:
    backend = Following("waiting", "working", "done")
    said: list[str] = []
    answer = device_of(backend, registry).trial(bundle, max_bytes=9, say=said.append)
    assert (answer.state, answer.figures) == ("done", FIGURES)
    first, *looks = backend.asked
    assert (first.bundle, first.max_bytes) == (bundle.digest, 9)
    assert [(look.id, look.bundle, look.cancel) for look in looks] == [(first.id, None, False)] * 2
    assert said == ["trial on cam-07: waiting, 0 done", "trial on cam-07: working, 0 done"]


def test_the_blobs_lie_in_the_registry_and_no_version_names_them(
    bundle: BundleLayout, registry: LocalRegistry
) -> None:
    device_of(Following("done"), registry).trial(bundle.root)
    assert all(registry.blobs.size(blob.digest) == blob.size for blob in bundle.blobs())
    assert registry.list() == ()


@pytest.mark.parametrize(
    "end, kind",
    [
        ("failed", UnavailableError),
        ("interrupted", UnavailableError),
        ("cancelled", CancelledError),
    ],
)
def test_a_trial_that_comes_to_nothing_says_why(
    bundle: BundleLayout, registry: LocalRegistry, end: str, kind: type[EdgeFleetError]
) -> None:
    with pytest.raises(kind, match=f"cam-07 .*{end}: because"):
        device_of(Following("working", end), registry).trial(bundle)


def test_a_device_that_is_away_for_a_while_is_waited_for(
    bundle: BundleLayout, registry: LocalRegistry
) -> None:
    away = UnavailableError("no answer", retryable=True)
    backend = Following("working", away, away, "done")
    assert device_of(backend, registry).trial(bundle).state == "done"


@pytest.mark.parametrize("broken", [KeyboardInterrupt(), UnavailableError("gone")])
def test_whoever_stops_waiting_ends_it_on_the_device(
    bundle: BundleLayout, registry: LocalRegistry, broken: BaseException
) -> None:
    if isinstance(broken, EdgeFleetError):
        broken.retryable = False
    backend = Following("working", broken, "working")
    with pytest.raises(type(broken)):
        device_of(backend, registry).trial(bundle)
    assert [order.cancel for order in backend.asked] == [False, False, True]
    assert backend.asked[2].id == backend.asked[0].id


def test_a_trial_that_takes_too_long_is_ended(
    bundle: BundleLayout, registry: LocalRegistry
) -> None:
    backend = Following("working")
    with pytest.raises(WaitTimeoutError, match="is not done"):
        device_of(backend, registry).trial(bundle, timeout_s=0.01)
    assert backend.asked[-1].cancel


@pytest.mark.parametrize(
    "reply, kind, cure",
    [
        (
            refused(404, "no order '/edgefleet/trial'", "there are …"),
            UnsupportedError,
            "update edgefleet-runtime",
        ),
        (Reply(404, {}, b"no such path"), UnsupportedError, "update edgefleet-runtime"),
        (refused(404, "no trial x is remembered here", "again"), NotFoundError, "again"),
        (refused(409, "no pointer has come", "deploy first"), EdgeFleetError, "deploy first"),
        (refused(429, "another goes on", "wait"), UnavailableError, "wait"),
        (refused(501, "models here run elsewhere", None), UnsupportedError, ""),
    ],
)
def test_a_refusal_keeps_its_cure_and_an_old_runtime_is_told_as_that(
    bundle: BundleLayout,
    registry: LocalRegistry,
    reply: Reply,
    kind: type[EdgeFleetError],
    cure: str,
) -> None:
    with pytest.raises(kind, match="cam-07") as caught:
        device_of(Following(reply), registry).trial(bundle)
    assert cure in str(caught.value.cure or "")


def test_a_device_without_a_registry_takes_no_trial(bundle: BundleLayout) -> None:
    with pytest.raises(UnsupportedError, match="without a registry"):
        device_of(Following("done"), None).trial(bundle)


def test_a_device_knows_its_target(registry: LocalRegistry) -> None:
    assert device_of(Following("done"), registry).target == "x86-cpu"
