"""Faults of a link, over real HTTP: it breaks in a file, refuses, is busy, and access ends."""

from __future__ import annotations

import io
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from device_runtime.tests.support import MemoryChannel
from device_runtime.tests.sync.rig import Rig, metric
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.segment import read_segment
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.iotedge import blob
from edgefleet_runtime.channels.iotedge.twin import UploadAccess
from edgefleet_runtime.retry import LONGEST_S
from edgefleet_runtime.sync.lane import in_thread

Answer = tuple[int, dict[str, str]] | int
"""Status and headers; or after how many bytes of the body the link breaks."""


class Receiver(ThreadingHTTPServer):
    """Takes files by PUT, each name once, but for what ``script`` has it do before."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.script: list[Answer] = []
        self.asked = 0
        self.hold: threading.Event | None = None

    @property
    def access(self) -> UploadAccess:
        return UploadAccess(address=f"http://127.0.0.1:{self.server_port}/d/cam-07", write="sig=x")

    def segments(self) -> list[str]:
        """Ids of the events that came, repetitions included."""
        files = [data for name, data in self.files.items() if "/segments/" in name]
        return [event.id for data in files for event in read_segment(io.BytesIO(data))]


class Handler(BaseHTTPRequestHandler):
    server: Receiver
    wbufsize = -1

    def do_PUT(self) -> None:
        self.server.asked += 1
        answer = self.server.script.pop(0) if self.server.script else (201, {})
        if isinstance(answer, int):
            self.rfile.read(answer)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        size = int(self.headers["Content-Length"])
        if self.server.hold is not None:
            self.rfile.read(1)
            assert self.server.hold.wait(60)
            size -= 1
        data = self.rfile.read(size)
        name = self.path.partition("?")[0]
        status, headers = answer
        if status == 201 and name in self.server.files:
            status, headers = 409, {"x-ms-error-code": "BlobAlreadyExists"}
        elif status == 201:
            self.server.files[name] = data
        self.send_response(status)
        for header, value in {"Content-Length": "0", **headers}.items():
            self.send_header(header, value)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


class Uploading(MemoryChannel):
    """Uploads as the IoT Edge channel does."""

    def __init__(self, receiver: Receiver) -> None:
        super().__init__()
        self._receiver = receiver

    def upload(self, name: str, path: Path) -> None:
        blob.put(self._receiver.access, name, path, blob.Ended(), self.opened)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def rig(receiver: Receiver, tmp_path: Path) -> Rig:
    return Rig(tmp_path, channel=Uploading(receiver))


def test_a_link_that_breaks_within_a_file_sends_it_again_whole(
    rig: Rig, receiver: Receiver
) -> None:
    data = bytes(range(256)) * 4096
    rig.samples.put(data)
    receiver.script = [len(data) // 2, 1, 0]
    for _ in range(8):
        rig.turn(after_s=LONGEST_S)
    assert [digest_of(found) for found in receiver.files.values()] == [digest_of(data)]
    assert rig.samples.used_bytes == 0
    assert receiver.asked == 4


def test_a_receiver_that_is_busy_is_left_alone_for_as_long_as_it_asks(
    rig: Rig, receiver: Receiver
) -> None:
    rig.store.events = [metric(1.0)]
    receiver.script = [(503, {"Retry-After": "600"})]
    rig.turn(2)
    rig.turn(2, after_s=599)
    assert (receiver.asked, rig.sync.state.why) == (1, "link")
    rig.turn(2, after_s=1)
    assert (len(receiver.segments()), rig.sync.state.why) == (1, None)


def test_access_that_ended_waits_and_goes_on_when_it_was_renewed(
    rig: Rig, receiver: Receiver
) -> None:
    sent = [metric(float(number)) for number in range(3)]
    rig.store.events = list(sent)
    ended: Answer = (403, {"x-ms-error-code": "AuthenticationFailed"})
    receiver.script = [ended, ended]
    rig.turn(2)
    assert rig.sync.state.why == "access"
    for _ in range(4):
        rig.turn(after_s=LONGEST_S)
    assert receiver.segments() == [event.id for event in sent]
    assert rig.sync.state.why is None


def test_an_answer_that_got_lost_repeats_the_file_and_the_receiver_knows_it(
    rig: Rig, receiver: Receiver
) -> None:
    rig.store.forgets = False
    rig.store.events = [metric(1.0)]
    rig.turn()
    rig.restart()  # as after a power cut
    rig.store.forgets = True
    rig.turn()
    assert receiver.asked == 2
    assert len(receiver.segments()) == 1
    assert rig.store.under_way is None


def test_a_link_that_stands_still_holds_up_neither_turns_nor_the_process(
    receiver: Receiver, tmp_path: Path
) -> None:
    receiver.hold = threading.Event()
    rig = Rig(tmp_path, channel=Uploading(receiver), start=in_thread)
    data = bytes(8 << 20)  # more than what the two ends hold between them
    rig.samples.put(data)
    rig.turn()
    eventually(lambda: receiver.asked)
    rig.turn(20)
    rig.sync.stop_within(0.0)
    rig.sync.turn(True)
    assert rig.samples.used_bytes == len(data)
    receiver.hold.set()
