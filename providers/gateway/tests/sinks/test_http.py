"""Events forwarded by HTTP, to somebody who fails in every way."""

from __future__ import annotations

import itertools
import logging
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import trustme

from edgefleet.interfaces.retrying import Pauses
from edgefleet.protocol.event import Event
from edgefleet.protocol.segment import SegmentName, write_segment
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.sinks.running import Forwarding, SinkFigures
from edgefleet_gateway.sinks.settings import HttpSettings
from providers.gateway.tests.sinks.receiving import Receiver

SOON = Pauses(first_s=0.01, most_s=0.02, longest_told_s=0.5)
Make = Callable[..., Forwarding]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver().serving() as receiver:
        yield receiver


@pytest.fixture
def forward(receiver: Receiver, tmp_path: Path) -> Iterator[Make]:
    """Makes what forwards to the receiver; each has the same scratch folder."""
    made: list[Forwarding] = []

    def make(**settings: Any) -> Forwarding:
        settings = {"kind": "http", "name": "plant", "url": receiver.url, **settings}
        one = HttpSettings.model_validate(settings)
        made.append(Forwarding([one], tmp_path, base=tmp_path, pauses=SOON))
        return made[-1]

    yield make
    receiver.released.set()
    for one in made:
        one.close()


def figures(forwarding: Forwarding) -> SinkFigures:
    (one,) = forwarding.figures()
    return one


def alarms(count: int) -> list[Event]:
    return [samples.alarm(number) for number in range(count)]


def ids(events: Sequence[Event]) -> list[str]:
    return [event.id for event in events]


def test_hot_events_come_as_a_batch_in_their_devices_name(
    forward: Make, receiver: Receiver
) -> None:
    forwarding = forward()
    sent = alarms(3)
    forwarding.take("cam-1", sent)
    eventually(lambda: len(receiver.taken) == 3)
    assert receiver.ids == ids(sent)
    assert {event["source"] for event in receiver.taken} == {"/devices/cam-1"}
    assert {event["specversion"] for event in receiver.taken} == {"1.0"}
    assert receiver.posts[0].type == "application/cloudevents-batch+json; charset=utf-8"
    eventually(lambda: figures(forwarding).sent == 3)
    assert figures(forwarding) == SinkFigures("plant", 0, 0, 3, 0, 0, 0, away=False)


def test_a_sink_may_have_each_event_by_itself(forward: Make, receiver: Receiver) -> None:
    forward(batch=1).take("cam-1", sent := alarms(2))
    eventually(lambda: len(receiver.taken) == 2)
    assert [post.type for post in receiver.posts] == [
        "application/cloudevents+json; charset=utf-8"
    ] * 2
    assert receiver.ids == ids(sent)


@pytest.mark.parametrize("status", [301, 401, 404, 429, 500, 503])
def test_a_sink_that_is_in_trouble_gets_them_later(
    forward: Make, receiver: Receiver, status: int
) -> None:
    receiver.answers = [(status, {"Location": receiver.url + "/else"})] * 3
    forwarding = forward()
    forwarding.take("cam-1", sent := alarms(5))
    eventually(lambda: figures(forwarding).sent == 5)
    assert receiver.ids == ids(sent)
    assert len(receiver.posts) == 4
    assert figures(forwarding).failures == 3
    eventually(lambda: not figures(forwarding).away)


def test_a_sink_that_says_when_is_not_asked_before(
    receiver: Receiver, forward: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[float | None] = []
    waits = Pauses.next_s

    def next_s(self: Pauses, tries: int, told_s: float | None = None) -> float:
        told.append(told_s)
        return waits(self, tries, None)

    monkeypatch.setattr(Pauses, "next_s", next_s)
    receiver.answers = [(503, {"Retry-After": "0.25"}), (429, {"Retry-After": "3600"}), (503, {})]
    forward().take("cam-1", alarms(1))
    eventually(lambda: receiver.taken)
    assert told == [0.25, SOON.longest_told_s, None]


def test_an_event_that_is_refused_is_set_aside_and_holds_up_no_other(
    forward: Make, receiver: Receiver
) -> None:
    sent = alarms(9)
    receiver.refuses = lambda event: event["id"] == sent[4].id
    forwarding = forward()
    forwarding.take("cam-1", sent)
    eventually(lambda: figures(forwarding).refused == 1)
    assert figures(forwarding).waiting == 0
    assert receiver.ids == ids(sent[:4] + sent[5:])
    ((device, data, reason),) = forwarding.aside("plant")
    assert (device, reason) == ("cam-1", "HTTP 400")
    assert sent[4].id in data.decode()


def test_a_sink_that_hangs_gets_them_again_and_holds_up_no_device(
    forward: Make, receiver: Receiver
) -> None:
    receiver.holding.set()
    forwarding = forward(timeout_s=0.05)
    forwarding.take("cam-1", first := alarms(1))
    eventually(lambda: figures(forwarding).failures)
    later = [samples.alarm(number) for number in range(100, 110)]
    forwarding.take("cam-2", later)  # returns, though nothing is answered
    assert figures(forwarding).away
    receiver.holding.clear()
    receiver.released.set()
    eventually(lambda: figures(forwarding).waiting == 0)
    assert set(receiver.ids) == {*ids(first), *ids(later)}


def test_a_sink_that_hangs_holds_up_no_other(receiver: Receiver, tmp_path: Path) -> None:
    with Receiver().serving() as hanging:
        hanging.holding.set()
        settings = [
            HttpSettings(kind="http", name=name, url=url, timeout_s=600)
            for name, url in (("hanging", hanging.url), ("plant", receiver.url))
        ]
        with closing(Forwarding(settings, tmp_path, base=tmp_path, pauses=SOON)) as forwarding:
            forwarding.take("cam-1", sent := alarms(3))
            eventually(lambda: hanging.posts)
            eventually(lambda: receiver.ids == ids(sent))
            assert next(forwarding.figures()).waiting == 3
            hanging.holding.clear()
            hanging.released.set()
            eventually(lambda: hanging.ids == ids(sent))


def test_what_waits_is_there_after_a_restart(forward: Make, receiver: Receiver) -> None:
    receiver.answers = [(503, {})] * 100_000
    first = forward()
    first.take("cam-1", sent := alarms(3))
    eventually(lambda: figures(first).failures)
    first.close()
    receiver.answers.clear()
    second = forward()
    eventually(lambda: figures(second).sent == 3)
    assert receiver.ids == ids(sent)


def test_the_oldest_go_where_there_is_no_room(
    forward: Make, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver.answers = [(503, {})] * 100_000
    forwarding = forward(max_mib=1)
    sent = [large(number) for number in range(60)]
    for event in sent:
        forwarding.take("cam-1", [event])
    about = figures(forwarding)
    assert about.waiting_bytes <= 1 << 20
    assert about.dropped == 60 - about.waiting
    assert 40 <= about.waiting < 60
    receiver.answers.clear()
    eventually(lambda: figures(forwarding).waiting == 0)
    assert receiver.ids == ids(sent[-about.waiting :])


def large(number: int) -> Event:
    from edgefleet.protocol.event import Alarm, new_event

    return new_event(Alarm(rule=f"r-{number}", message="x" * 20_000), time=samples.MOMENT)


def test_the_events_of_each_device_stay_in_order(forward: Make, receiver: Receiver) -> None:
    receiver.answers = [(503, {}), (204, {}), (500, {})]
    forwarding = forward(batch=2)
    sent: dict[str, list[str]] = {"a": [], "b": []}
    for number, device in zip(range(20), itertools.cycle(sent)):
        event = samples.alarm(number)
        sent[device].append(event.id)
        forwarding.take(device, [event])
    eventually(lambda: figures(forwarding).waiting == 0)
    came = [event for post in receiver.posts for event in post.events]
    for device, expected in sent.items():
        seen = [event["id"] for event in came if event["source"] == f"/devices/{device}"]
        assert list(dict.fromkeys(seen)) == expected


def test_what_a_device_repeats_while_it_waits_is_sent_once(
    forward: Make, receiver: Receiver
) -> None:
    receiver.holding.set()
    forwarding = forward()
    sent = alarms(2)
    forwarding.take("cam-1", sent)
    forwarding.take("cam-1", sent)
    forwarding.take("cam-2", sent[:1])  # the same id of another device is another event
    receiver.holding.clear()
    receiver.released.set()
    eventually(lambda: figures(forwarding).waiting == 0)
    came = sorted((event["source"], event["id"]) for event in receiver.taken)
    assert came == sorted(
        [("/devices/cam-1", one.id) for one in sent] + [("/devices/cam-2", sent[0].id)]
    )


@pytest.mark.parametrize("asked", ["hot", "segments"])
def test_segments_go_where_a_sink_asks_for_them(
    forward: Make, receiver: Receiver, tmp_path: Path, asked: str
) -> None:
    forwarding = forward(segments=asked == "segments")
    file = tmp_path / "segment"
    sent = [samples.prediction(second) for second in range(1200)]
    with file.open("wb") as stream:
        write_segment(sent, stream)
    name = SegmentName(day=samples.MOMENT.date(), device="cam-1", model="digits", id="0-1")
    forwarding.take_file("cam-1", name.below_device, file)
    forwarding.take_file("cam-1", "samples/sha256/" + "0" * 64, file)
    forwarding.take("cam-1", [last := samples.alarm(1)])
    eventually(lambda: last.id in receiver.ids)
    assert receiver.ids == (ids(sent) if asked == "segments" else []) + [last.id]


def test_a_segment_that_is_damaged_gives_what_is_ahead_of_the_damage(
    forward: Make, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    forwarding = forward(segments=True)
    file = tmp_path / "segment"
    file.write_bytes(b"no segment at all")
    name = SegmentName(day=samples.MOMENT.date(), device="cam-1", model="digits", id="0-1")
    forwarding.take_file("cam-1", name.below_device, file)
    assert "forwarded in part" in caplog.text


def test_a_token_is_read_anew_and_in_no_log(
    forward: Make, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = tmp_path / "token"
    secret.write_text("first-secret\n")
    forwarding = forward(token=Path("token"))
    receiver.answers = [(401, {})]
    forwarding.take("cam-1", alarms(1))
    eventually(lambda: receiver.taken)
    secret.write_text("second-secret\n")
    forwarding.take("cam-1", [samples.alarm(7)])
    eventually(lambda: len(receiver.taken) == 2)
    tokens = [post.token for post in receiver.posts]
    assert tokens == ["Bearer first-secret", "Bearer first-secret", "Bearer second-secret"]
    assert "secret" not in caplog.text.replace("the secret in", "")


def test_a_token_that_is_not_there_is_waited_for(
    forward: Make, receiver: Receiver, tmp_path: Path
) -> None:
    forwarding = forward(token=Path("token"))
    forwarding.take("cam-1", alarms(1))
    eventually(lambda: figures(forwarding).failures)
    assert receiver.posts == []
    (tmp_path / "token").write_text("there")
    eventually(lambda: receiver.taken)


def test_a_disk_that_is_full_costs_events_and_no_device(
    forward: Make, receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    forwarding = forward()
    (sending,) = forwarding._all
    with closing(sending.outbox._rows.cursor()) as cursor:
        cursor.execute("PRAGMA max_page_count = 1")  # as little as there is already
    with_all = alarms(50)
    forwarding.take("cam-1", [large(1), *with_all])
    assert figures(forwarding).dropped == 51
    assert "can't be kept" in caplog.text


def test_certificates_that_are_renewed_count_without_a_restart(
    forward: Make, tmp_path: Path
) -> None:
    before, after = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    after.issue_cert("127.0.0.1").configure_cert(context)
    before.cert_pem.write_to_path(tmp_path / "ca.pem")
    with Receiver(context).serving() as receiver:
        forwarding = forward(url=receiver.url, ca="ca.pem")
        forwarding.take("cam-1", sent := alarms(2))
        eventually(lambda: figures(forwarding).failures > 1)
        assert figures(forwarding).away
        after.cert_pem.write_to_path(tmp_path / "ca.pem")
        eventually(lambda: figures(forwarding).sent == 2)
    assert receiver.ids == ids(sent)
