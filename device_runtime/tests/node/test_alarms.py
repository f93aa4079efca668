"""Rules on a whole runtime: an alarm acts and is told, readings are reduced, what can't be honoured
is rejected."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from device_runtime.tests.node.device import Device, publish
from device_runtime.tests.support import Repository
from edgefleet.protocol.event import Alarm, Event, HealthEvent, Reading, Window, read_event
from edgefleet.protocol.policy import (
    Action,
    AlarmRule,
    Filter,
    TelemetryPolicy,
    WindowRule,
)
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.readings import ReadingsClient

CALLED = "called"


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "fleet")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "alarms"
    made.mkdir()
    return made


@pytest.fixture
def device(tmp_path: Path, repository: Repository, folder: Path) -> Iterator[Device]:
    module = tmp_path / "modules" / "plant_machines.py"
    module.parent.mkdir()
    module.write_text(
        "from pathlib import Path\n"
        "def stop(alarm):\n"
        f"    Path({str(folder / CALLED)!r}).write_text(alarm.rule)\n"
    )
    made = Device(
        tmp_path / "cam-07",
        repository,
        *("--alarm-folder", str(folder), "--alarm-action", "stop-line=plant_machines:stop"),
    )
    made.environment = {"PYTHONPATH": str(module.parent)}
    yield made
    made.kill()


@pytest.fixture
def posted() -> Iterator[tuple[str, list[bytes]]]:
    """A web server on this machine: its address, and what was posted to it."""
    got: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/alarms", got
        server.shutdown()
        thread.join()


def serve(device: Device, repository: Repository, policy: TelemetryPolicy) -> None:
    release = repository.release({"digits": publish(repository, 3)}, telemetry=policy)
    repository.point(release)
    device.start().active(release)


def hot(device: Device) -> list[Event]:
    """What came at once; a line that is half written comes with the next look."""
    found = [path.read_bytes() for path in sorted(device.outbox.glob("hot/*.ndjson"))]
    lines = [line for data in found for line in data.splitlines(keepends=True)]
    return [read_event(line) for line in lines if line.endswith(b"\n")]


def alarms(device: Device) -> list[Alarm]:
    found = [event.payload() for event in hot(device) if event.kind == "alarm"]
    return [each for each in found if isinstance(each, Alarm)]


def told(device: Device, what: str) -> list[str]:
    found = [event.payload() for event in hot(device) if event.kind == "health"]
    return [e.message for e in found if isinstance(e, HealthEvent) and e.what == what]


def sent(device: Device) -> list[Event]:
    return [
        event
        for path in sorted(device.outbox.rglob("*.ndjson.zst"))
        for event in read_segment(io.BytesIO(path.read_bytes()))
    ]


def rule(*actions: Action, when: str = "score > 2.5") -> TelemetryPolicy:
    alarm = AlarmRule(name="high", model="digits", when=when, needs=3, within=5, actions=actions)
    return TelemetryPolicy(alarms=(alarm,))


def test_an_alarm_does_all_its_actions_and_reaches_the_fleet(
    device: Device, repository: Repository, folder: Path, posted: tuple[str, list[bytes]]
) -> None:
    url, got = posted
    actions = (
        Action(kind="webhook", target=url),
        Action(kind="file", target="alarms.ndjson"),
        Action(kind="run", target="stop-line"),
    )
    serve(device, repository, rule(*actions))
    with device.client() as client:
        for _ in range(3):
            client.factor()
    eventually(lambda: got and (folder / CALLED).exists(), "actions")
    eventually(lambda: alarms(device), "the alarm's event")
    (alarm,) = alarms(device)
    assert (alarm.rule, alarm.model, alarm.values["score"]) == ("high", "digits", 3.0)
    ids = {event.id for event in hot(device) if event.kind == "alarm"}
    assert {json.loads(got[0])["id"]} == ids
    eventually((folder / "alarms.ndjson").exists)
    line = eventually(lambda: (folder / "alarms.ndjson").read_text().strip())
    assert json.loads(line)["id"] in ids
    assert eventually((folder / CALLED).read_text) == "high"


def test_what_the_device_refuses_is_told_and_the_alarm_goes_all_the_same(
    device: Device, repository: Repository
) -> None:
    actions = (
        Action(kind="webhook", target="http://93.184.216.34/alarms"),
        Action(kind="run", target="rm"),
    )
    serve(device, repository, rule(*actions))
    with device.client() as client:
        for _ in range(3):
            client.factor()
    eventually(lambda: len(told(device, "action-refused")) == 2, "two refusals")
    assert {message.split()[1] for message in told(device, "action-refused")} == {"webhook", "run"}
    eventually(lambda: len(alarms(device)) == 1)


def test_readings_raise_alarms_are_reduced_and_kept(device: Device, repository: Repository) -> None:
    policy = TelemetryPolicy(
        segment_max_age_s=3600,
        filters=(Filter(name="warm", stream="room", when="values.temperature > 20.0"),),
        windows=(WindowRule(name="hour", stream="motor", size_s=3600.0),),
        alarms=(AlarmRule(name="shakes", stream="motor", when="values.vibration > 4.0"),),
    )
    serve(device, repository, policy)
    endpoint = device.reported().endpoint
    assert endpoint is not None
    with ReadingsClient(endpoint) as client:
        for vibration in (1.0, 5.0, 3.0):
            client.send("motor", {"vibration": vibration}, key="m1")
        for temperature in (19.0, 21.0):
            client.send("room", {"temperature": temperature})
    eventually(lambda: len(alarms(device)) == 2, "a beginning and an end")
    assert {(alarm.key, alarm.ended) for alarm in alarms(device)} == {("m1", False), ("m1", True)}
    device.signal(signal.SIGTERM)
    assert device.ended() == 0
    found = [event.payload() for event in sent(device) if event.kind in {"reading", "window"}]
    readings = [each for each in found if isinstance(each, Reading)]
    windows = [each for each in found if isinstance(each, Window)]
    assert [reading.values for reading in readings] == [{"temperature": 21.0}]
    assert sum(window.count for window in windows) == 3
    assert max(window.values["vibration"].most or 0 for window in windows) == 5.0


def test_only_predictions_that_a_filter_lets_pass_are_sent(
    device: Device, repository: Repository
) -> None:
    policy = TelemetryPolicy(
        segment_max_age_s=3600,
        filters=(Filter(name="a", model="digits", when="score < 2.5"),),
    )
    serve(device, repository, policy)
    with device.client() as client:
        for _ in range(3):
            client.factor()
    device.signal(signal.SIGTERM)
    assert device.ended() == 0
    assert device.recorded() == 0


def without(device: Device, module: str) -> None:
    """Hide a library from the device, as on one that lacks its extra."""
    folder = device.root.parent / "hidden"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import sys\n"
        "class Without:\n"
        "    def __init__(self, finder):\n"
        "        self.finder = finder\n"
        "    def __getattr__(self, name):\n"
        "        return getattr(self.finder, name)\n"
        "    def find_spec(self, name, *more):\n"
        f"        return None if name == {module!r} else self.finder.find_spec(name, *more)\n"
        "sys.meta_path = [Without(finder) for finder in sys.meta_path]\n"
    )
    device.environment = {"PYTHONPATH": str(folder)}


@pytest.mark.parametrize(
    "policy, module, extra",
    [
        (rule(), "cel", "rules"),
        (
            TelemetryPolicy(windows=(WindowRule(name="w", stream="s", quantiles=(0.5,)),)),
            "datasketches",
            "drift",
        ),
    ],
    ids=["conditions", "quantiles"],
)
def test_a_device_without_the_library_rejects_the_release_and_names_the_extra(
    device: Device, repository: Repository, policy: TelemetryPolicy, module: str, extra: str
) -> None:
    without(device, module)
    first = repository.release({"digits": publish(repository, 2)})
    repository.point(first)
    device.start().active(first)
    second = repository.release({"digits": publish(repository, 3)}, telemetry=policy)
    repository.point(second)
    report = device.reported(state="rejected", running=first, wanted=second)
    assert any(f"edgefleet-runtime[{extra}]" in error for error in report.errors)
    with device.client() as client:
        assert client.factor() == 2


def test_a_malformed_rule_is_rejected_with_its_place(
    device: Device, repository: Repository
) -> None:
    release = repository.release({"digits": publish(repository, 3)}, telemetry=rule(when="score >"))
    repository.point(release)
    report = device.start().reported(state="rejected", wanted=release)
    assert any("alarms.high.when: 1:8: " in error for error in report.errors)
