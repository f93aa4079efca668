"""Requests that lie as files in a device's outbox, and their answers beside them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.file import FileChannel
from edgefleet_runtime.channels.file_requests import KEPT_S
from edgefleet_runtime.channels.requests import Reply, Request

NAME = "0123.json"


class Outbox:
    """A device's outbox, with a channel that hears."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[Request] = []
        self.channel = FileChannel(root / "pointer.json", root, interval_s=0.005)

    def hear(self) -> None:
        def ask(request: Request) -> Reply:
            self.asked.append(request)
            return Reply(200, {"a": "b"}, b"hi")

        self.channel.serve(ask)

    def put(self, content: bytes, name: str = NAME) -> Path:
        folder = self.root / "requests"
        folder.mkdir(exist_ok=True)
        partial = folder / f".{name}.partial"
        partial.write_bytes(content)
        return partial.rename(folder / name)

    def reply(self, name: str = NAME) -> dict[str, object]:
        path = self.root / "replies" / name
        eventually(path.exists)
        found: dict[str, object] = json.loads(path.read_bytes())
        return found


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(tmp_path)
    yield outbox
    outbox.channel.close()


def test_a_request_is_answered_once_and_taken_away(outbox: Outbox) -> None:
    outbox.hear()
    path = outbox.put(b'{"path":"/v2","body":"aGk="}')
    assert outbox.reply() == {"status": 200, "headers": {"a": "b"}, "body": "aGk="}
    assert not path.exists()
    assert outbox.asked == [Request("/v2", {}, b"hi")]


def test_a_request_from_before_the_start_is_not_followed(outbox: Outbox) -> None:
    path = outbox.put(b'{"path":"/edgefleet/rollback","body":"e30="}')
    outbox.hear()
    assert not path.exists()
    outbox.put(b'{"path":"/v2"}', "later.json")
    outbox.reply("later.json")
    assert [request.path for request in outbox.asked] == ["/v2"]


def test_answers_that_nobody_fetched_go_when_the_device_starts(outbox: Outbox) -> None:
    left = outbox.root / "replies" / NAME
    left.parent.mkdir()
    left.write_bytes(b"{}")
    outbox.hear()
    assert not left.exists()


def test_answers_that_nobody_fetches_go_while_the_device_runs(outbox: Outbox) -> None:
    outbox.hear()
    long_ago = time.time() - KEPT_S - 1
    for number in range(20):
        outbox.put(b'{"path":"/v2"}', f"left-{number}.json")
        outbox.reply(f"left-{number}.json")
        os.utime(outbox.root / "replies" / f"left-{number}.json", (long_ago, long_ago))
    outbox.put(b'{"path":"/v2"}')
    eventually(lambda: [path.name for path in (outbox.root / "replies").iterdir()] == [NAME])


@pytest.mark.parametrize("content", [b"", b"garbage", b"[]", b'{"path":3}', b'{"path":"\xff"}'])
def test_a_request_that_makes_no_sense_is_dropped_and_the_next_answered(
    outbox: Outbox, content: bytes
) -> None:
    outbox.hear()
    outbox.put(content, "wrong.json")
    eventually(lambda: not (outbox.root / "requests" / "wrong.json").exists())
    outbox.put(b'{"path":"/v2"}')
    assert outbox.reply()["status"] == 200
    assert not (outbox.root / "replies" / "wrong.json").exists()


def test_a_link_out_of_the_folder_is_not_read(outbox: Outbox, tmp_path: Path) -> None:
    outbox.hear()
    secret = tmp_path / "secret.json"
    secret.write_bytes(b'{"path":"/v2"}')
    (outbox.root / "requests").mkdir()
    (outbox.root / "requests" / "link.json").symlink_to(secret)
    pipe = outbox.root / "requests" / "pipe.json"
    os.mkfifo(pipe)
    outbox.put(b'{"path":"/v2/other"}')
    outbox.reply()
    assert [request.path for request in outbox.asked] == ["/v2/other"]


def test_a_folder_named_like_a_request_is_let_be(outbox: Outbox) -> None:
    folder = outbox.root / "requests" / "folder.json"
    folder.mkdir(parents=True)
    outbox.hear()
    outbox.put(b'{"path":"/v2"}')
    assert outbox.reply()["status"] == 200
    assert folder.is_dir()
