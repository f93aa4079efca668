from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import msgspec
import pytest

from edgefleet.errors import (
    ConflictError,
    DocumentError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.interfaces.abilities import Reply
from edgefleet.protocol.orders import ROLLBACK, STATUS
from edgefleet.protocol.report import Report, read_report
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_local.deployer import LocalDeployer
from edgefleet_local.devices import Devices
from edgefleet_local.journal import Journal
from edgefleet_local.requests import ask
from providers.local.tests.support import cut_at_every_point, elsewhere

Step = Callable[[Path], None]
OTHER_FLEET = "00000000-0000-4000-8000-000000000002"


@pytest.fixture
def deployer(home: Path) -> Iterator[LocalDeployer]:
    deployer = LocalDeployer(home)
    yield deployer
    deployer.close()


@pytest.fixture
def still(home: Path) -> LocalDeployer:
    """A deployer that runs no devices."""
    return LocalDeployer(home, supervise=False)


def _say(home: Path, device: str, report: bytes) -> None:
    outbox = Devices(home).outbox(device)
    outbox.mkdir(parents=True, exist_ok=True)
    (outbox / "report.json").write_bytes(report)


# Records


def _enrol_in_own_group(home: Path) -> str:
    group = f"group-{uuid.uuid4().hex[:8]}"  # one process may take several turns
    try:
        LocalDeployer(home, supervise=False).enroll("cam-1", group=group)
    except ConflictError:
        return ""
    return group


def test_of_processes_that_enrol_a_device_at_once_one_gets_it(
    home: Path, still: LocalDeployer
) -> None:
    groups = [group for group in elsewhere(_enrol_in_own_group, home, workers=3) if group]
    assert groups == [still.device("cam-1").group]


def _enrolled(home: Path) -> None:
    LocalDeployer(home, supervise=False).enroll("cam-1", group="line-3")


def _enrol(home: Path) -> None:
    LocalDeployer(home, supervise=False).enroll("cam-2", group="line-4", labels={"site": "a"})


def _is_enrolled_or_not(home: Path) -> None:
    still = LocalDeployer(home, supervise=False)
    assert [device.name for device in still.devices()] in (["cam-1"], ["cam-1", "cam-2"])
    _enrol(home)
    assert still.device("cam-2").labels == {"site": "a"}
    still.publish("line-4", samples.pointer(1))
    assert (Devices(home).channel("cam-2") / "pointer.json").exists()


def _publish(home: Path) -> None:
    still = LocalDeployer(home, supervise=False)
    for number in (1, 2):
        still.publish("line-3", samples.pointer(number))


def _carries_one_of_them(home: Path) -> None:
    still = LocalDeployer(home, supervise=False)
    assert still.pointer("line-3") in (None, samples.pointer(1), samples.pointer(2))
    still.publish("line-3", samples.pointer(3))
    assert still.pointer("line-3") == samples.pointer(3)


@pytest.mark.parametrize(
    "work, check", [(_enrol, _is_enrolled_or_not), (_publish, _carries_one_of_them)]
)
def test_an_operator_killed_anywhere_leaves_the_old_or_the_new(
    home: Path, work: Step, check: Step
) -> None:
    (points,) = elsewhere(cut_at_every_point, home, _enrolled, work, check)
    assert points >= 10


def test_enrolling_again_adds_labels_and_keeps_the_others(still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3", labels={"a": "1", "b": "2"})
    assert still.enroll("cam-1", group="line-3", labels={"b": "3"}).labels == {"a": "1", "b": "3"}
    assert still.enroll("cam-1", group="line-3").labels == {"a": "1", "b": "3"}


def test_labels_that_its_runtime_would_not_start_with_are_refused(still: LocalDeployer) -> None:
    with pytest.raises(InvalidInputError, match="64 characters are too much"):
        still.enroll("cam-1", group="line-3", labels={"site": "x" * 64})
    assert list(still.devices()) == []
    assert list(still.groups()) == []
    still.enroll("cam-1", group="line-3", labels={str(n): "x" * 63 for n in range(24)})
    with pytest.raises(InvalidInputError, match="25 labels"):
        still.label("cam-1", {"more": "x"})
    assert len(still.label("cam-1", {"more": "x", "0": None}).labels) == 24


def test_an_emptied_group_keeps_its_pointer(still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    still.publish("line-3", samples.pointer(1))
    still.retire("cam-1")
    assert [(group.name, group.devices) for group in still.groups()] == [("line-3", 0)]
    assert still.pointer("line-3") == samples.pointer(1)


def test_another_fleets_pointer_is_left_in_place(still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    theirs = msgspec.structs.replace(samples.pointer(1), fleet=OTHER_FLEET)
    still.publish("line-3", theirs)
    with pytest.raises(ConflictError, match="another fleet"):
        still.publish("line-3", samples.pointer(2))
    assert still.pointer("line-3") == theirs


def test_another_pointer_of_the_same_number_is_refused(still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    still.publish("line-3", samples.pointer(1))
    other = msgspec.structs.replace(samples.pointer(1), sources=("file:///elsewhere",))
    with pytest.raises(ConflictError):
        still.publish("line-3", other)


def test_operations_are_journalled(home: Path, still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    still.label("cam-1", {"site": "a"})
    still.publish("line-3", samples.pointer(7))
    still.retire("cam-1")
    told = [line.split(" ", 1)[1] for line in Journal(home).lines()]
    assert told == [
        "deployer.enroll cam-1 line-3",
        "deployer.label cam-1 site",
        f"deployer.publish line-3 0.7 {samples.pointer(7).current}",
        "deployer.retire cam-1",
    ]


# Reports


def test_a_report_belongs_to_the_folder_whatever_it_says(home: Path, still: LocalDeployer) -> None:
    for name in ("cam-1", "cam-2"):
        still.enroll(name, group="line-3")
    said = msgspec.json.decode(samples.report(samples.pointer(3)).encoded())
    said |= {"device": "cam-2", "name": "cam-2", "labels": {"device": "cam-2"}}
    _say(home, "cam-1", msgspec.json.encode(said))
    assert still.device("cam-1").report is not None
    assert still.device("cam-2").report is None


def test_a_link_is_no_report(home: Path, still: LocalDeployer) -> None:
    for name in ("thief", "victim"):
        still.enroll(name, group="line-3")
    _say(home, "victim", samples.report(samples.pointer(3)).encoded())
    outbox = Devices(home).outbox("thief")
    outbox.mkdir()
    (outbox / "report.json").symlink_to(Devices(home).outbox("victim") / "report.json")
    thief = still.device("thief")
    assert thief.report is None
    assert "can't be read" in thief.evidence["report"]


def test_a_folder_in_the_place_of_a_report_harms_nobody(home: Path, still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    (Devices(home).outbox("cam-1") / "report.json").mkdir(parents=True)
    assert still.device("cam-1").report is None


# Requests and logs


def test_a_request_waits_for_a_device_that_starts(deployer: LocalDeployer) -> None:
    LocalDeployer(deployer._devices_of.home, supervise=False).enroll("cam-1", group="line-3")
    reply = deployer.invoke("cam-1", "/v2/health/live", timeout_s=90)
    assert reply.status == 200
    assert "content-type" in reply.headers
    missing = deployer.invoke("cam-1", "/v2/models/none/infer", body=b"{}")
    assert missing.status == 404


def test_a_request_to_a_device_without_power_fails_at_once(deployer: LocalDeployer) -> None:
    deployer.enroll("cam-1", group="line-3")
    deployer.switch("cam-1", on=False)
    with pytest.raises(UnavailableError, match="switched off"):
        deployer.invoke("cam-1", "/v2/health/live")


def test_a_path_without_a_slash_is_refused(still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    with pytest.raises(InvalidInputError):
        still.invoke("cam-1", "v2/health/live")


def test_an_order_goes_over_the_channel_and_leaves_no_file(
    home: Path, deployer: LocalDeployer
) -> None:
    deployer.enroll("cam-1", group="line-3")
    reply = eventually(lambda: _answered(deployer))
    assert read_report(reply.body).state == "idle"
    outbox = Devices(home).outbox("cam-1")
    assert [*(outbox / "requests").iterdir(), *(outbox / "replies").iterdir()] == []


def _answered(deployer: LocalDeployer) -> Reply | None:
    reply = deployer.invoke("cam-1", STATUS, timeout_s=90)
    return reply if reply.status == 200 else None


def test_an_order_that_comes_to_the_endpoint_is_not_followed(
    home: Path, deployer: LocalDeployer
) -> None:
    deployer.enroll("cam-1", group="line-3")
    report = eventually(lambda: _current(Devices(home)))
    with pytest.raises(HTTPError) as caught:
        urlopen(f"{report.endpoint}{ROLLBACK}", data=b"{}", timeout=90)
    assert caught.value.code == 404
    caught.value.close()


def test_an_order_that_is_not_taken_is_withdrawn(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="doesn't answer") as caught:
        ask(tmp_path, ROLLBACK, b"{}", time.monotonic())
    assert "may follow it yet" not in caught.value.message
    assert list((tmp_path / "requests").iterdir()) == []


@pytest.mark.parametrize("content", [b"garbage", b"[]", b'{"body":"!"}', b'{"headers":3}'])
def test_an_answer_that_makes_no_sense_is_told_as_that(tmp_path: Path, content: bytes) -> None:
    def answer() -> None:
        request = eventually(lambda: next((tmp_path / "requests").glob("*.json"), None))
        replies = tmp_path / "replies"
        replies.mkdir()
        (replies / "partial").write_bytes(content)
        (replies / "partial").rename(replies / request.name)

    (tmp_path / "requests").mkdir()
    device = threading.Thread(target=answer)
    device.start()
    with pytest.raises(DocumentError, match="makes no sense"):
        ask(tmp_path, ROLLBACK, None, time.monotonic() + 90)
    device.join()


def test_a_device_cannot_send_requests_elsewhere(
    home: Path, deployer: LocalDeployer, still: LocalDeployer
) -> None:
    deployer.enroll("cam-1", group="line-3")
    devices = Devices(home)
    report = eventually(lambda: _current(devices))
    lie = msgspec.structs.replace(report, endpoint="http://models.example.com:80")
    _say(home, "cam-1", lie.encoded())
    with pytest.raises(UnavailableError):
        still.invoke("cam-1", "/v2/health/live", timeout_s=0.2)


def _current(devices: Devices) -> Report | None:
    report, _, _ = devices.report("cam-1")
    running = devices.running("cam-1")
    return report if report is not None and report.health.pid == running.pid else None


def test_a_log_is_read_from_its_end(home: Path, still: LocalDeployer) -> None:
    still.enroll("cam-1", group="line-3")
    assert still.device_log("cam-1") == ()
    log = Devices(home).log("cam-1")
    log.parent.mkdir(parents=True)
    log.write_bytes(b"\n".join(b"line %d \xff" % number for number in range(5)))
    assert still.device_log("cam-1", last=2) == ("line 3 \ufffd", "line 4 \ufffd")
    assert still.device_log("cam-1", last=0) == ()
    with pytest.raises(NotFoundError):
        still.device_log("cam-2")
