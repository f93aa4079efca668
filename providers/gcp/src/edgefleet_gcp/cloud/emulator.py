"""The emulator of Cloud Storage from PyPI: it keeps objects, and believes whatever it is told.

It checks no token, no permission and no precondition, knows no pages of listings, and takes chunks
of any size: what stands in front of it does (`storage`, `sessions`).
"""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from gcp_storage_emulator.server import create_server

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

HOST = "127.0.0.1"


class Answer(NamedTuple):
    """What it answered; names of headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> dict[str, Any]:
        """The body, a JSON object."""
        found: dict[str, Any] = json.loads(self.body)
        return found


class Emulator:
    """The emulator, on a port of its own that only this process is told.

    Args:
        folder: that it keeps objects in.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._server = create_server(HOST, 0, in_memory=False, data_dir=str(folder))
        self._port = 0

    def start(self) -> None:
        """Listen on loopback."""
        self._server.start()
        # It says nowhere else which port it was given.
        self._port = self._server._api._httpd.server_address[1]  # noqa: SLF001

    def stop(self) -> None:
        """Stop listening."""
        self._server.stop()

    def call(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Ask it.

        Args:
            method: of HTTP.
            path: percent-encoded.
            query: parameters.
            body: of the request.
            headers: of the request.
        """
        connection = http.client.HTTPConnection(HOST, self._port)
        try:
            target = f"{path}?{urlencode(query)}" if query else path
            connection.request(method, target, body, dict(headers or {}))
            answer = connection.getresponse()
            told = {name.lower(): value for name, value in answer.getheaders()}
            return Answer(answer.status, told, answer.read())
        finally:
            connection.close()

    def create_bucket(self, bucket: str) -> None:
        """Have a bucket; no error where it is there."""
        if self.call("GET", f"/storage/v1/b/{bucket}").status == 404:
            made = {"name": bucket}
            headers = {"Content-Type": "application/json"}
            self.call("POST", "/storage/v1/b", body=json.dumps(made).encode(), headers=headers)

    def delete_bucket(self, bucket: str) -> None:
        """Delete a bucket with what is in it."""
        for item in self.listing(bucket).get("items", ()):
            self.call("DELETE", _object_path(bucket, item["name"]))
        self.call("DELETE", f"/storage/v1/b/{bucket}")

    def has_bucket(self, bucket: str) -> bool:
        """Whether a bucket is there."""
        return self.call("GET", f"/storage/v1/b/{quote(bucket, safe='')}").status == 200

    def resource(self, bucket: str, name: str) -> dict[str, Any] | None:
        """An object's resource; None where there is none."""
        answer = self.call("GET", _object_path(bucket, name))
        return answer.json() if answer.status == 200 else None

    def content(self, bucket: str, name: str) -> Answer:
        """An object's bytes."""
        return self.call("GET", _object_path(bucket, name), {"alt": "media"})

    def delete(self, bucket: str, name: str) -> None:
        """Delete an object."""
        self.call("DELETE", _object_path(bucket, name))

    def listing(self, bucket: str, **query: str) -> dict[str, Any]:
        """A listing of all, without pages."""
        return self.call("GET", f"/storage/v1/b/{quote(bucket, safe='')}/o", query).json()

    def store(
        self, bucket: str, name: str, data: bytes, metadata: Mapping[str, Any], kind: str
    ) -> dict[str, Any]:
        """Store an object, whatever is there, and give its resource."""
        path = f"/upload/storage/v1/b/{quote(bucket, safe='')}/o"
        begun = self.call(
            "POST",
            path,
            {"uploadType": "resumable", "name": name},
            body=json.dumps(dict(metadata)).encode(),
            headers={"Content-Type": "application/json", "X-Upload-Content-Type": kind},
        )
        at = urlsplit(begun.headers["location"])
        done = self.call("PUT", f"{at.path}?{at.query}", body=data, headers={"Content-Type": kind})
        return done.json()


def _object_path(bucket: str, name: str) -> str:
    return f"/storage/v1/b/{quote(bucket, safe='')}/o/{quote(name, safe='')}"
