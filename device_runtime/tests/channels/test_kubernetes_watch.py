"""Following a ConfigMap through the API: nothing is missed, whatever happens to the server."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from device_runtime.tests.channels.api_server import FakeApiServer
from edgefleet.errors import AccessDeniedError, AccessExpiredError, ConfigurationError
from edgefleet.testing.waiting import eventually
from edgefleet_runtime.channels.kubernetes.api import ApiServer
from edgefleet_runtime.channels.kubernetes.settings import Place
from edgefleet_runtime.channels.kubernetes.watch import LONGEST_PAUSE_S, Watch

PLACE = Place("edgefleet", "edgefleet-pointer-line-3")
PATH = f"{PLACE.namespace}/{PLACE.name}"


class Watched:
    """A watch, every state it told of, and a clock that its pauses move."""

    def __init__(self, api: FakeApiServer) -> None:
        self.states: list[str | None] = []
        self.pauses: list[float] = []
        self.now = 0.0
        self.at: Callable[[float], None] = lambda _now: None
        self._step = threading.Event()
        self.watch = Watch(
            api.client(),
            PLACE,
            changed=self._changed,
            pause=self._pause,
            clock=lambda: self.now,
            jitter=random.Random(7),
        )

    def _changed(self) -> None:
        found = self.watch.object
        self.states.append(None if found is None else found["data"]["pointer.json"])

    def _pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        self.at(self.now)
        self._step.wait(0.001)  # lets others run: no time passes here but what is told

    def saw(self, *states: str | None) -> None:
        eventually(lambda: self.states == list(states), f"{states}, saw {self.states}")


@contextmanager
def watched(api: FakeApiServer) -> Iterator[Watched]:
    made = Watched(api)
    made.watch.start()
    yield made
    made.watch.stop()
    if api.up.is_set():
        api.stop()


def put(api: FakeApiServer, pointer: str) -> None:
    api.put(PATH, {"pointer.json": pointer})


def watches(api: FakeApiServer) -> list[dict[str, Any]]:
    return [query for _, _, query in api.requests if "watch" in query]


def lists(api: FakeApiServer) -> int:
    return sum("watch" not in query for _, _, query in api.requests)


def test_what_is_there_is_listed_and_what_comes_is_told(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        seen.saw("one")
        eventually(lambda: watches(api))
        put(api, "two")
        api.delete(PATH)
        put(api, "three")
        seen.saw("one", "two", None, "three")
    assert lists(api) == 1


def test_a_role_that_names_one_object_is_enough(api: FakeApiServer) -> None:
    with watched(api):
        eventually(lambda: watches(api))
    assert {query["fieldSelector"] for _, _, query in api.requests} == {
        f"metadata.name={PLACE.name}"
    }


def test_a_server_that_is_gone_for_a_minute_costs_no_change(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        eventually(lambda: watches(api))
        put(api, "two")
        seen.saw("one", "two")
        api.stop()
        put(api, "three")
        put(api, "four")
        asked = len(api.requests)

        def back(now: float) -> None:
            if now >= 60 and not api.up.is_set():
                api.start()

        seen.at = back
        seen.saw("one", "two", "three", "four")
        again = api.requests[asked:]
    assert all("watch" in query for _, _, query in again)
    assert again[0][2]["resourceVersion"] == "102"  # that of the last event before
    assert all(pause <= LONGEST_PAUSE_S for pause in seen.pauses)


def test_a_minute_without_a_server_is_a_handful_of_tries(api: FakeApiServer) -> None:
    with watched(api) as seen:
        eventually(lambda: watches(api))
        api.stop()
        eventually(lambda: seen.now >= 60)
        until = [sum(seen.pauses[: n + 1]) for n in range(len(seen.pauses))]
    assert 5 < sum(at < 60 for at in until) < 12


def test_a_version_that_the_server_forgot_is_listed_anew(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        eventually(lambda: watches(api))
        api.stop()
        put(api, "two")
        put(api, "three")
        api.forget()
        api.start()
        seen.saw("one", "three")  # the state of now; what came between is history
        eventually(lambda: watches(api)[-1]["resourceVersion"] == str(api.version))
    assert lists(api) == 2


def test_an_error_in_the_stream_means_the_same_as_an_answer(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        eventually(lambda: watches(api))
        with api.changed:
            api.version += 1
            told = {"metadata": {"namespace": PLACE.namespace, "name": PLACE.name}, "code": 410}
            api.history.append((api.version, "ERROR", told))
            api.changed.notify_all()
        eventually(lambda: lists(api) == 2)
        put(api, "two")
        seen.saw("one", "two")


def test_a_server_that_was_restored_to_older_versions_is_listed_anew(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        eventually(lambda: watches(api))
        put(api, "two")
        seen.saw("one", "two")
        api.stop()
        api.restore()
        put(api, "three")
        api.start()
        eventually(lambda: len(watches(api)) == 2 and seen.watch._socket is not None)
        assert lists(api) == 1
        api.stop()  # in the place of the end that the server puts to a watch after minutes
        api.start()
        seen.saw("one", "two", "three")
        eventually(lambda: watches(api)[-1]["resourceVersion"] == str(api.version))
        put(api, "four")
        seen.saw("one", "two", "three", "four")


def test_bookmarks_move_the_version_to_go_on_from(api: FakeApiServer) -> None:
    put(api, "one")
    with watched(api) as seen:
        eventually(lambda: watches(api))
        api.bookmark(PATH)
        version = str(api.version)
        eventually(lambda: seen.watch._version == version)
        api.stop()
        api.start()
        eventually(lambda: len(watches(api)) >= 2)
    assert watches(api)[-1]["resourceVersion"] == version
    assert watches(api)[-1]["allowWatchBookmarks"] == "true"
    assert seen.states == ["one"]


def test_a_watch_that_is_refused_is_tried_ever_more_seldom(api: FakeApiServer) -> None:
    api.refuse = lambda _method, _path: (403, "configmaps is forbidden")
    with watched(api) as seen:
        eventually(lambda: len(seen.pauses) >= 8)
    assert seen.pauses[7] >= LONGEST_PAUSE_S / 2


def test_stopping_ends_a_watch_that_is_quiet(api: FakeApiServer) -> None:
    with watched(api) as seen:
        eventually(lambda: watches(api))
        eventually(lambda: seen.watch._socket is not None)
        seen.watch.stop()
        seen.watch._thread.join(90)
        assert not seen.watch._thread.is_alive()


def test_stopping_before_a_watch_stands_ends_it(api: FakeApiServer) -> None:
    put(api, "one")

    def stop() -> None:
        watch.stop()

    watch = Watch(api.client(), PLACE, changed=stop)
    watch.start()
    watch._thread.join(60)
    assert not watch._thread.is_alive()


# ------------------------------------------------------------------------------------ the server


def test_the_token_is_read_again_for_each_request(api: FakeApiServer) -> None:
    client = api.client()
    api.tokens = {"token-1"}
    client.apply(PLACE, {"data": {}}, manager="m")
    api.tokens = {"token-2"}
    with pytest.raises(AccessExpiredError, match="401: Unauthorized") as caught:
        client.apply(PLACE, {"data": {}}, manager="m")
    assert "token-1" not in str(caught.value)
    (api.folder / "token").write_text("token-2\n", encoding="ascii")
    client.apply(PLACE, {"data": {}}, manager="m")


def test_a_server_of_another_authority_is_shown_no_token(
    api: FakeApiServer, tmp_path: Path
) -> None:
    other = FakeApiServer(tmp_path / "other")
    client = ApiServer("127.0.0.1", api.port, other.folder, timeout_s=90)
    with pytest.raises(ConnectionError, match="certificate"):
        client.apply(PLACE, {"data": {}}, manager="m")
    assert api.requests == []


@pytest.mark.parametrize("name", ["token", "ca.crt"])
def test_a_pod_without_its_volume_is_told_what_to_mount(api: FakeApiServer, name: str) -> None:
    (api.folder / name).unlink()
    with pytest.raises(AccessDeniedError, match="cure: mount"):
        api.client().apply(PLACE, {"data": {}}, manager="m")


@pytest.mark.parametrize("content", ["", "sécret", "se\ncret", "s" * (17 << 10)])
def test_a_token_that_is_none_is_named_by_its_file_and_not_repeated(
    api: FakeApiServer, content: str
) -> None:
    (api.folder / "token").write_text(content, encoding="utf-8")
    with pytest.raises(AccessDeniedError, match="no token for the API server in") as caught:
        api.client().apply(PLACE, {"data": {}}, manager="m")
    assert "cret" not in str(caught.value)
    assert "sss" not in str(caught.value)
    assert api.requests == []


def test_without_a_kubelet_there_is_no_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="KUBERNETES_SERVICE_HOST"):
        ApiServer.from_environment(tmp_path)
