"""As much of an API server as a device sees: ConfigMaps applied, listed and watched, under TLS."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import trustme

from edgefleet.testing.cloud.ports import HeldPort
from edgefleet_runtime.channels.kubernetes.api import HOST_VARIABLE, PORT_VARIABLE, ApiServer

TICK_S = 0.02
Refusal = tuple[int, str]


class FakeApiServer:
    """ConfigMaps of all namespaces, with the history that watches are told.

    Attributes:
        requests: method, path and query of each request, in order.
        sent: body of each request that had one.
        tokens: that are taken; any where it is empty.
        refuse: gives the refusal of a request by its method and path, or None.
    """

    def __init__(self, folder: Path) -> None:
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.sent: list[dict[str, Any]] = []
        self.tokens: set[str] = set()
        self.refuse: Callable[[str, str], Refusal | None] = lambda _method, _path: None
        self.changed = threading.Condition()
        self.objects: dict[str, dict[str, Any]] = {}
        self.history: list[tuple[int, str, dict[str, Any]]] = []
        self.version = 100
        self.oldest = 100
        self.up = threading.Event()
        authority = trustme.CA()
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(self._context)
        folder.mkdir()
        authority.cert_pem.write_to_path(folder / "ca.crt")
        (folder / "token").write_text("token-1\n", encoding="ascii")
        self.folder = folder
        self.port = 0
        self._held: HeldPort | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {HOST_VARIABLE: "127.0.0.1", PORT_VARIABLE: str(self.port)}

    def client(self, timeout_s: float = 90.0) -> ApiServer:
        return ApiServer("127.0.0.1", self.port, self.folder, timeout_s=timeout_s)

    def start(self) -> None:
        """Listen, at the same port each time."""
        if self._held is None:  # until the end: another process would be given the port
            self._held = HeldPort()
            self.port = self._held.number
        self._server = _Server(("127.0.0.1", self.port), _Handler)
        self._server.fake, self._server.context = self, self._context
        self.up.set()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(TICK_S,))
        self._thread.start()

    def stop(self) -> None:
        """Go without a word: watches break off."""
        self.up.clear()
        with self.changed:
            self.changed.notify_all()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def end(self) -> None:
        """Go for good."""
        if self.up.is_set():
            self.stop()
        if self._held is not None:
            self._held.close()

    def put(self, path: str, data: dict[str, str]) -> None:
        """Make or change a ConfigMap: ``NAMESPACE/NAME``."""
        namespace, _, name = path.partition("/")
        meta = {"namespace": namespace, "name": name}
        self._happen("MODIFIED" if path in self.objects else "ADDED", path, meta, data)

    def delete(self, path: str) -> None:
        namespace, _, name = path.partition("/")
        self._happen("DELETED", path, {"namespace": namespace, "name": name}, {})

    def bookmark(self, path: str) -> None:
        """Tell watches the version of now, though nothing happened to what they watch."""
        namespace, _, name = path.partition("/")
        self._happen("BOOKMARK", path, {"namespace": namespace, "name": name}, {})

    def forget(self) -> None:
        """Let go of the history: who asks for it gets 410."""
        with self.changed:
            self.version += 1000
            self.oldest = self.version
            self.history.clear()

    def restore(self) -> None:
        """Go back to a backup of long ago: nothing was made yet, and versions are lower."""
        with self.changed:
            self.version = self.oldest = 10
            self.objects.clear()
            self.history.clear()

    def _happen(self, kind: str, path: str, meta: dict[str, Any], data: dict[str, str]) -> None:
        with self.changed:
            self.version += 1
            found = {"metadata": {**meta, "resourceVersion": str(self.version)}, "data": data}
            if kind == "DELETED":
                self.objects.pop(path)
            elif kind != "BOOKMARK":
                self.objects[path] = found
            self.history.append((self.version, kind, found))
            self.changed.notify_all()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    fake: FakeApiServer
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        # In the connection's own thread: a handshake must keep nobody waiting.
        try:
            with self.context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)
        except OSError:
            pass  # the client went, or trusts somebody else


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def do_GET(self) -> None:
        fake = self.server.fake
        asked = self._asked()
        if asked is None:
            return
        path, query = asked
        namespace = path.split("/")[4]
        name = query["fieldSelector"].removeprefix("metadata.name=")
        if "watch" in query:
            self._watch(f"{namespace}/{name}", int(query["resourceVersion"]))
            return
        with fake.changed:
            found = fake.objects.get(f"{namespace}/{name}")
            meta = {"resourceVersion": str(fake.version)}
        self._answer(200, {"metadata": meta, "items": [] if found is None else [found]})

    def do_PATCH(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        asked = self._asked()
        if asked is None:
            return
        content = json.loads(body)
        self.server.fake.sent.append(content)
        meta = content["metadata"]
        self.server.fake.put(f"{meta['namespace']}/{meta['name']}", content["data"])
        self._answer(200, content)

    def _asked(self) -> tuple[str, dict[str, str]] | None:
        fake, parts = self.server.fake, urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        fake.requests.append((self.command, parts.path, query))
        refusal = fake.refuse(self.command, parts.path)
        token = self.headers["Authorization"].removeprefix("Bearer ")
        if fake.tokens and token not in fake.tokens:
            refusal = (401, "Unauthorized")
        if refusal is None:
            return parts.path, query
        self._answer(refusal[0], {"kind": "Status", "message": refusal[1], "code": refusal[0]})
        return None

    def _watch(self, path: str, version: int) -> None:
        fake = self.server.fake
        if version < fake.oldest:
            self._answer(410, {"kind": "Status", "message": "too old", "code": 410})
            return
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        while fake.up.is_set():
            with fake.changed:
                if fake.version <= version:
                    fake.changed.wait(1)
                news = [event for event in fake.history if event[0] > version]
                version = max(version, fake.version)  # it may be ahead of a restored server
            for _, kind, found in news:
                meta = found["metadata"]
                if f"{meta['namespace']}/{meta['name']}" == path and fake.up.is_set():
                    line = json.dumps({"type": kind, "object": found}).encode() + b"\n"
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                    self.wfile.flush()
        self.close_connection = True  # in the middle of the body

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
