"""Requests at a steady rate to every device, from a thread for each, while versions change."""

from __future__ import annotations

import http.client
import threading
import time
from typing import TYPE_CHECKING, Any, NamedTuple, Self
from urllib.parse import urlsplit

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol import inference

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from numpy.typing import NDArray

Request = tuple[bytes, dict[str, str]]
"""Body and headers."""

TIMEOUT_S = 30.0  # of one request; one that takes longer counts as dropped


class Answer(NamedTuple):
    """One request and what came back. ``at_s`` counts from the load's start.

    Attributes:
        version: that answered; None where nothing did.
        label: that it gave; None likewise.
    """

    device: str
    at_s: float
    latency_ms: float
    version: str | None
    label: int | None


class Requests:
    """A connection that is kept open to one device, as an application beside it would.

    Args:
        device: its name.
        endpoint: ``http://host:port``.
        model: name of the model.
    """

    def __init__(self, device: str, endpoint: str, model: str) -> None:
        self.device = device
        address = urlsplit(endpoint)
        self._connection = http.client.HTTPConnection(
            address.hostname or "", address.port, timeout=TIMEOUT_S
        )
        self._path = f"/v2/models/{model}/infer"

    def ask(self, request: Request, started_s: float) -> Answer:
        """Send a request and time it; a failure is an answer without a version."""
        begun = time.perf_counter()
        version = label = None
        try:
            self._connection.request("POST", self._path, *request)
            reply = self._connection.getresponse()
            body = reply.read()
            if reply.status == http.client.OK:
                length = inference.read_header_length(reply.headers.get(inference.HEADER_LENGTH))
                found = inference.decode_response(body, length)
                version, label = found.model_version, int(found.outputs["label"][0])
        except (OSError, http.client.HTTPException, EdgeFleetError):
            self._connection.close()
        latency_ms = (time.perf_counter() - begun) * 1000
        return Answer(self.device, begun - started_s, latency_ms, version, label)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def encode_each(images: NDArray[Any]) -> list[Request]:
    """One request an image."""
    return [inference.encode_request({"image": images[i : i + 1]}) for i in range(len(images))]


class Load:
    """A constant load on devices while the block runs; `answers` holds what came of it.

    Args:
        endpoints: device -> ``http://host:port``.
        model: name of the model.
        requests: sent in turn, over and over.
        rate_hz: requests a second to each device.
    """

    def __init__(
        self,
        endpoints: Mapping[str, str],
        model: str,
        requests: Sequence[Request],
        *,
        rate_hz: float,
    ) -> None:
        self._requests, self._pause_s = requests, 1 / rate_hz
        self._stop = threading.Event()
        self._began = 0.0
        self._found: list[list[Answer]] = [[] for _ in endpoints]
        self._threads = [
            threading.Thread(target=self._run, args=(Requests(device, endpoint, model), found))
            for (device, endpoint), found in zip(endpoints.items(), self._found, strict=True)
        ]

    def __enter__(self) -> Self:
        self._began = time.perf_counter()
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    @property
    def now_s(self) -> float:
        """Seconds since it began."""
        return time.perf_counter() - self._began

    @property
    def answers(self) -> list[Answer]:
        """All answers so far, in the order in which they were asked for."""
        return sorted((a for found in self._found for a in list(found)), key=lambda a: a.at_s)

    def go_on_for(self, seconds: float) -> None:
        """Let the load run on."""
        self._stop.wait(seconds)

    def _run(self, device: Requests, found: list[Answer]) -> None:
        due = self._began
        number = 0
        while not self._stop.wait(max(0.0, due - time.perf_counter())):
            found.append(device.ask(self._requests[number % len(self._requests)], self._began))
            number += 1
            # What fell behind is not made up for: a slow answer must not become a burst.
            due = max(due + self._pause_s, time.perf_counter())
        device.close()
