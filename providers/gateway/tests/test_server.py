"""What devices get from a gateway and give it, over TLS with certificates of the fleet."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest

from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.event import HealthEvent, new_event
from edgefleet.protocol.gateway import (
    Archive,
    Identity,
    Requests,
    RuntimeOffer,
    WaitingRequest,
    digest_field,
)
from edgefleet.protocol.pointer import read_pointer
from edgefleet.testing.waiting import TIMEOUT_S, eventually
from edgefleet_gateway.records import (
    AnswerRecord,
    ReportRecord,
    RequestRecord,
    RuntimeRecord,
    SeenRecord,
)
from edgefleet_gateway.server.running import Serving
from providers.gateway.tests.exchanges import REPORT, SEGMENT, patch, polled, waiting
from providers.gateway.tests.joining_rig import Machine
from providers.gateway.tests.server_rig import Client, Fleet

# The pointer


def test_a_pointer_has_an_etag_and_is_sent_once(fleet: Fleet, device: Client) -> None:
    assert device.get("/v1/pointer").status == 204
    pointer = fleet.publish()
    eventually(lambda: device.get("/v1/pointer").status == 200)
    answer = device.get("/v1/pointer")
    assert read_pointer(answer.body) == pointer
    assert answer.headers["edgefleet-poll"] == "60"
    assert answer.headers["edgefleet-waiting"] == "0"
    again = device.get("/v1/pointer", If_None_Match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_a_poll_that_waits_is_answered_when_there_is_news(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    asking, answers = polled(device)
    eventually(lambda: waiting(gateway) == 1)
    fleet.publish()
    asking.join(TIMEOUT_S)
    assert [answer.status for answer in answers] == [200]


def test_a_poll_that_waits_ends_with_what_the_device_has(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, longest_wait_s=0.05)
    fleet.publish()
    with fleet.gateway() as gateway:
        device = fleet.device(gateway, "cam-1")
        etag = device.get("/v1/pointer").headers["etag"]
        assert device.get("/v1/pointer", If_None_Match=etag, Prefer="wait=50").status == 304


def test_a_poll_that_waits_is_answered_when_the_gateway_ends(fleet: Fleet) -> None:
    with fleet.gateway(hang_up=False) as gateway:
        device = fleet.device(gateway, "cam-1")
        asking, answers = polled(device)
        eventually(lambda: waiting(gateway) == 1)
    asking.join(TIMEOUT_S)
    assert [answer.status for answer in answers] == [204]


def test_nobody_waits_for_a_device_that_hung_up(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    with device.raw() as raw:
        raw.sendall(b"GET /v1/pointer HTTP/1.1\r\nHost: gw\r\nPrefer: wait=50\r\n\r\n")
        eventually(lambda: waiting(gateway) == 1)
    eventually(lambda: waiting(gateway) == 0)


def test_a_revoked_device_is_told_while_it_waits(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    asking, answers = polled(device)
    eventually(lambda: waiting(gateway) == 1)
    fleet.rig.roster.change("cam-1", lambda there: msgspec.structs.replace(there, revoked=True))
    asking.join(TIMEOUT_S)
    assert answers[0].problem()["code"] == "revoked"


def test_a_device_that_is_moved_gets_its_new_group_s_pointer(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    fleet.publish(group="other")
    asking, answers = polled(device)
    eventually(lambda: waiting(gateway) == 1)
    fleet.rig.roster.change("cam-1", lambda there: msgspec.structs.replace(there, group="other"))
    asking.join(TIMEOUT_S)
    assert answers[0].status == 200


# Blobs


@pytest.mark.parametrize(
    "asked, status, expected",
    [
        (None, 200, slice(None)),
        ("bytes=0-", 206, slice(None)),
        ("bytes=700000-", 206, slice(700_000, None)),
        ("bytes=5-9", 206, slice(5, 10)),
        ("bytes=-3", 206, slice(-3, None)),
        ("bytes=999990-2000000", 206, slice(999_990, None)),
    ],
)
def test_a_blob_is_sent_whole_or_by_range(
    fleet: Fleet, device: Client, asked: str | None, status: int, expected: slice
) -> None:
    content = bytes(range(250)) * 4000
    found = fleet.blobs.put_bytes(content, "application/octet-stream")
    path = f"/v1/blobs/{found.digest.replace(':', '/')}"
    answer = device.ask("GET", path, None, {"Range": asked} if asked else {})
    assert (answer.status, answer.body) == (status, content[expected])
    head = device.ask("HEAD", path)
    assert (head.status, head.headers["content-length"], head.body) == (200, "1000000", b"")
    assert device.get(path, If_None_Match=answer.headers["etag"]).status == 304


@pytest.mark.parametrize("asked", ["bytes=1000000-", "bytes=9-5", "bytes=-0", "bytes=1-2,4-5", "x"])
def test_a_range_that_can_t_be_given_is_refused(fleet: Fleet, device: Client, asked: str) -> None:
    found = fleet.blobs.put_bytes(b"x" * 1_000_000, "application/octet-stream")
    answer = device.get(f"/v1/blobs/{found.digest.replace(':', '/')}", Range=asked)
    assert answer.status == 416
    assert answer.headers["content-range"] == "bytes */1000000"


def test_blobs_may_lie_elsewhere(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path, redirects=("https://cdn.example/plant",))
    with fleet.gateway() as gateway:
        answer = fleet.device(gateway, "cam-1").get(f"/v1/blobs/sha256/{'a' * 64}")
    assert answer.status == 307
    assert answer.headers["location"] == f"https://cdn.example/plant/blobs/sha256/{'a' * 64}"


def test_anybody_gets_the_archives_that_were_ordered_and_no_other_blob(
    fleet: Fleet, gateway: Serving
) -> None:
    archive = fleet.blobs.put_bytes(b"a runtime", "application/octet-stream")
    other = fleet.blobs.put_bytes(b"a model", "application/octet-stream")
    anybody = fleet.stranger(gateway)
    path = "/v1/archives/" + archive.digest.replace(":", "/")
    assert anybody.get(path).status == 404
    archives = {"linux-x86_64": Archive(digest=archive.digest, size=archive.size)}
    offer = RuntimeOffer(runtime="2.0", archives=archives)
    record = encode(RuntimeRecord(offer=offer, ordered=datetime.now(UTC)))
    fleet.rig.state.write(fleet.rig.keys.runtime("line"), record, expect=None)
    fleet.rig.roster.ring("runtime/line")
    eventually(lambda: anybody.get(path).status == 200)
    assert anybody.get(path).body == b"a runtime"
    assert anybody.get("/v1/archives/" + other.digest.replace(":", "/")).status == 404


def test_a_runtime_is_offered_with_the_pointer(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    assert device.get("/v1/runtime").status == 204
    asking, answers = polled(device)
    eventually(lambda: waiting(gateway) == 1)
    offer = RuntimeOffer(runtime="2.0", archives={})
    record = encode(RuntimeRecord(offer=offer, ordered=datetime.now(UTC)))
    fleet.rig.state.write(fleet.rig.keys.runtime("line"), record, expect=None)
    fleet.rig.roster.ring("runtime/line")
    asking.join(TIMEOUT_S)
    etag = answers[0].headers["edgefleet-runtime"]
    told = device.get("/v1/runtime")
    assert decode(RuntimeOffer, told.body) == offer
    assert told.headers["etag"] == etag
    assert device.get("/v1/runtime", If_None_Match=etag).status == 304
    missed = device.get("/v1/pointer", Prefer="wait=50", EdgeFleet_Runtime='"another"')
    assert missed.headers["edgefleet-runtime"] == etag


# What devices send


def test_a_report_is_kept_with_the_time_that_it_came(fleet: Fleet, device: Client) -> None:
    body = REPORT.encoded()
    answer = device.ask("PUT", "/v1/report", body, {"Content-Type": "application/json"})
    assert answer.status == 204
    stored = fleet.rig.state.read(fleet.rig.keys.report("cam-1"))
    assert stored is not None
    record = decode(ReportRecord, stored.data)
    assert record.report == body
    assert abs(record.came - datetime.now(UTC)) < timedelta(minutes=1)


def test_events_are_kept_in_the_device_s_name(fleet: Fleet, device: Client) -> None:
    events = [new_event(HealthEvent(what="started", message="here")) for _ in range(3)]
    body = msgspec.json.encode(events)
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    assert device.ask("POST", "/v1/events", body, headers).status == 204
    assert [event.id for event in fleet.receiver.events] == [event.id for event in events]
    assert {event.device for event in fleet.receiver.events} == {"cam-1"}


def test_of_a_batch_what_is_an_event_is_taken(fleet: Fleet, device: Client) -> None:
    good = new_event(HealthEvent(what="started", message="here"))
    body = b"[" + msgspec.json.encode(good) + b', {"id": 7}]'
    headers = {"Content-Type": "application/cloudevents-batch+json"}
    answer = device.ask("POST", "/v1/events", body, headers)
    assert answer.status == 400
    assert answer.problem()["detail"].startswith("event 2: ")
    assert [event.id for event in fleet.receiver.events] == [good.id]


def test_a_file_comes_in_parts_and_is_handed_on_once(fleet: Fleet, device: Client) -> None:
    content = bytes(range(251)) * 10_000
    digest = {"Repr-Digest": digest_field(digest_of(content))}
    standing = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, digest)
    assert (standing.headers["upload-offset"], standing.headers["upload-complete"]) == ("0", "?0")
    step = 1 << 20
    assert patch(device, SEGMENT, content, 0, step).status == 204
    standing = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, digest)
    assert standing.headers["upload-offset"] == str(step)
    assert patch(device, SEGMENT, content, step, 2 * step).status == 204
    assert not fleet.receiver.files
    done = patch(device, SEGMENT, content, 2 * step, len(content))
    assert (done.status, done.headers["upload-complete"]) == (201, "?1")
    assert fleet.receiver.files == [("cam-1", SEGMENT, content)]
    again = patch(device, SEGMENT, content, 2 * step, len(content))
    assert (again.status, again.headers["upload-complete"]) == (204, "?1")
    assert len(fleet.receiver.files) == 1
    standing = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, digest)
    assert standing.headers["upload-complete"] == "?1"


def test_an_empty_file_is_a_file(fleet: Fleet, device: Client) -> None:
    assert patch(device, "samples/sha256/empty", b"", 0, 0).status == 201
    assert fleet.receiver.files == [("cam-1", "samples/sha256/empty", b"")]


def test_a_part_that_was_cut_goes_on_where_it_stopped(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    content = b"x" * 500_000
    digest = digest_field(digest_of(content))
    head = (
        f"PATCH /v1/files/{SEGMENT} HTTP/1.1\r\nHost: gw\r\nContent-Length: 500000\r\n"
        f"Content-Type: application/partial-upload\r\nRepr-Digest: {digest}\r\n"
        "Upload-Offset: 0\r\nUpload-Length: 500000\r\nUpload-Complete: ?1\r\n\r\n"
    )
    fields = {"Repr-Digest": digest}

    def came() -> int:
        answer = device.ask("HEAD", f"/v1/files/{SEGMENT}", None, fields)
        return int(answer.headers["upload-offset"])

    with device.raw() as raw:
        raw.sendall(head.encode() + content[:300_000])
        eventually(lambda: came() >= 200_000)
    # Of what comes right before the connection ends, the last may be lost.
    assert came() <= 300_000
    eventually(lambda: patch(device, SEGMENT, content, came(), 500_000).status == 201)
    assert fleet.receiver.files == [("cam-1", SEGMENT, content)]


# Requests


def test_a_request_is_handed_out_and_its_answer_kept(
    fleet: Fleet, gateway: Serving, device: Client
) -> None:
    request = WaitingRequest(id="a" * 32, path="/v2/health/live")
    ends = datetime.now(UTC) + timedelta(minutes=5)
    asking, answers = polled(device)
    eventually(lambda: waiting(gateway) == 1)
    key = fleet.rig.keys.request("cam-1", request.id)
    fleet.rig.state.write(key, encode(RequestRecord(request=request, ends=ends)), expect=None)
    fleet.rig.roster.change_bell(
        lambda bell: msgspec.structs.replace(
            bell, number=bell.number + 1, waiting={"cam-1": (request.id,)}
        )
    )
    asking.join(TIMEOUT_S)
    assert answers[0].headers["edgefleet-waiting"] == "1"
    assert decode(Requests, device.get("/v1/requests").body).waiting == (request,)
    # It was told, and isn't told again while it works on it.
    assert device.get("/v1/pointer").headers["edgefleet-waiting"] == "0"
    for _ in range(2):
        assert device.ask("PUT", f"/v1/answers/{request.id}", b'{"status":200}').status == 204
    stored = fleet.rig.state.read(fleet.rig.keys.answer("cam-1", request.id))
    assert stored is not None
    assert decode(AnswerRecord, stored.data).answer == b'{"status":200}'
    assert decode(Requests, device.get("/v1/requests").body).waiting == ()
    assert device.ask("PUT", f"/v1/answers/{'b' * 32}", b"{}").status == 404


# Joining


def test_a_device_enrols_over_the_wire_and_counts_at_once(fleet: Fleet, gateway: Serving) -> None:
    machine = Machine()
    body = encode(machine.enrolment(fleet.rig.invite("cam-2")))
    json_type = {"Content-Type": "application/json"}
    answer = fleet.stranger(gateway).ask("POST", "/v1/enroll", body, json_type)
    assert answer.status == 200
    identity = decode(Identity, answer.body)
    assert identity.device == "cam-2"
    device = fleet.client(gateway, machine, identity)
    assert device.get("/v1/pointer").status == 204
    renewed = device.ask("POST", "/v1/renew", encode(machine.renewal()), json_type)
    assert renewed.status == 200
    # The one before counts until the new one was shown, and then no longer.
    assert device.get("/v1/pointer").status == 204
    fresh = fleet.client(gateway, machine, decode(Identity, renewed.body))
    assert fresh.get("/v1/pointer").status == 204
    eventually(lambda: device.get("/v1/pointer").status == 403)
    assert fresh.get("/v1/pointer").status == 204


def test_anybody_reads_the_authorities(fleet: Fleet, gateway: Serving) -> None:
    answer = fleet.stranger(gateway).get("/v1/ca")
    assert answer.body.decode() == fleet.rig.authority.believed


def test_the_install_script_brings_the_runtime_that_was_given_else_ordered_last(
    fleet: Fleet, gateway: Serving
) -> None:
    anybody = fleet.stranger(gateway)
    refused = anybody.get("/install.sh").problem()
    assert (refused["status"], "--runtime FILE" in refused["detail"]) == (404, True)

    def give(key: str, version: str, day: int) -> None:
        archives = {"linux-x86_64": Archive(digest=digest_of(version.encode()), size=3)}
        offer = RuntimeOffer(runtime=version, archives=archives)
        record = encode(RuntimeRecord(offer=offer, ordered=datetime(2026, 1, day, tzinfo=UTC)))
        fleet.rig.state.write(key, record, expect=None)
        fleet.rig.roster.ring("runtime/any")

    def named(version: str) -> bool:
        body = anybody.get("/install.sh").body.decode()
        return f"version={version}\n" in body and digest_of(version.encode())[7:] in body

    give(fleet.rig.keys.runtime("line"), "1.0", 2)
    eventually(lambda: named("1.0"))
    give(fleet.rig.keys.runtime("other"), "0.9", 1)
    give(fleet.rig.keys.first_runtime, "2.0", 1)
    eventually(lambda: named("2.0"))
    assert "https://localhost:8443" in anybody.get("/install.sh").body.decode()


# Itself


def test_it_tells_when_devices_were_seen(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        fleet.device(gateway, "cam-1").get("/v1/pointer")
    keys = list(fleet.rig.state.keys(fleet.rig.keys.seen_all))
    stored = fleet.rig.state.read(keys[0])
    assert len(keys) == 1
    assert stored is not None
    assert abs(decode(SeenRecord, stored.data).devices["cam-1"] - time.time()) < 60


def test_it_writes_down_what_was_done_and_refused_but_no_polls_and_no_secrets(
    fleet: Fleet, tmp_path: Path
) -> None:
    log = tmp_path / "audit" / "log.jsonl"
    token = fleet.rig.invite("cam-2")
    with fleet.gateway(lambda options: replace(options, audit_log=log)) as gateway:
        device = fleet.device(gateway, "cam-1")
        device.get("/v1/pointer")
        device.ask(
            "PUT", "/v1/report?secret", REPORT.encoded(), {"Content-Type": "application/json"}
        )
        fleet.stranger(gateway).get("/v1/pointer")
        body = encode(Machine().enrolment(token))
        fleet.stranger(gateway).ask(
            "POST", "/v1/enroll", body, {"Content-Type": "application/json"}
        )
    text = log.read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    assert [(line["operation"], line.get("device"), line["status"]) for line in lines] == [
        ("putReport", "cam-1", 204),
        ("getPointer", None, 401),
        ("enroll", None, 200),
    ]
    assert token not in text
    assert "secret" not in text


def test_figures_and_health_are_for_those_who_may_observe(fleet: Fleet) -> None:
    with fleet.gateway() as gateway:
        near = fleet.stranger(gateway)
        assert json.loads(near.get("/health").body)["status"] == "ok"
        near.get("/v1/pointer")
        figures = near.get("/metrics").body.decode()
        assert 'edgefleet_gateway_answers_total{operation="getPointer",status="401"} 1.0' in figures
        assert "edgefleet_gateway_connections 1.0" in figures
    far = ("192.0.2.0/24",)
    with fleet.gateway(lambda options: replace(options, observers=far)) as gateway:
        assert fleet.stranger(gateway).get("/metrics").status == 404
        assert fleet.stranger(gateway).get("/health").status == 404


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 on this system")
def test_figures_are_for_this_machine_over_ipv4_on_a_socket_of_ipv6_too(fleet: Fleet) -> None:
    with (
        fleet.gateway(lambda options: replace(options, host="::")) as gateway,
        fleet.stranger(gateway).raw() as raw,  # which goes to 127.0.0.1
    ):
        raw.sendall(b"GET /health HTTP/1.1\r\nHost: gw\r\n\r\n")
        assert raw.recv(15) == b"HTTP/1.1 200 OK"
