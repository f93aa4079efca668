"""Runs first in a training pod: brings code and data from the registry, and keeps what was left.

Given to Python as text with each run, so it needs nothing but Python 3.9 and its standard library.
What comes are OCI artifacts whose layers carry their file's name, as ORAS writes them; so is what
is kept. What runs in between is `edgefleet.interfaces.training_entry`, one of the files that came.

Rules kept here:

- Only content that hashes to what the manifest names is used; a broken transfer goes on by Range,
  and one that is longer than it names is broken off.
- Nothing of the credentials is in what an error says.
- The registry's credentials go to the registry, never to where it redirects to. That is a place
  with TLS where the registry has it, and is named without its query, which may open the store.
- What is kept appears under its tag when all of it is there, and only if the script ended well.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from http.client import HTTPResponse
    from typing import BinaryIO

T = TypeVar("T")

ORDER = "EDGEFLEET_RUN"  # variable: what this run is, as JSON
AUTH = "EDGEFLEET_REGISTRY_AUTH"  # variable: a docker config.json
WORK = "EDGEFLEET_WORK"  # variable: an empty folder; a temporary one otherwise
TITLE = "org.opencontainers.image.title"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
EMPTY = b"{}"
EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
OUTPUTS_TYPE = "application/vnd.edgefleet.run.outputs.v1"
FILE_TYPE = "application/octet-stream"
CHUNK = 1 << 20
MAX_TOKEN = 1 << 20  # bytes of a token service's answer
TRIES = 6
TIMEOUT_S = 60.0
LONGEST_WAIT_S = 300.0  # of a Retry-After that is honoured
_CHALLENGE = re.compile(r'(\w+)="([^"]*)"')
_SECRET = re.compile(r"[\x21-\x7e]+")
_DOCKER_HUB = {"docker.io", "index.docker.io", "registry-1.docker.io"}


class RefusedError(Exception):
    """What asking again won't change."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to other hosts without the credentials."""

    def redirect_request(  # noqa: PLR0917 - as urllib calls it
        self,
        req: urllib.request.Request,
        fp: Any,  # noqa: ANN401 - urllib's
        code: int,
        msg: str,
        headers: Any,  # noqa: ANN401 - urllib's
        newurl: str,
    ) -> urllib.request.Request | None:
        if _place(newurl)[0] not in ("https", _place(req.full_url)[0]):
            raise RefusedError("the registry redirects away from TLS")
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None:
            new.method = req.get_method()  # older Pythons make a GET of everything
        if new is not None and _place(newurl) != _place(req.full_url):
            new.headers.pop("Authorization", None)
            new.unredirected_hdrs.pop("Authorization", None)
        return new


def _place(url: str) -> tuple[str, str]:
    parts = urllib.parse.urlsplit(url)
    return parts.scheme, parts.netloc


class Registry:
    """One repository of an OCI registry.

    Args:
        base: its address, as ``https://HOST/v2/REPOSITORY``.
        config: a docker ``config.json``; empty for none.
        wait: between two tries, by its seconds.

    Raises:
        RefusedError: the ``config.json`` is none.
    """

    def __init__(
        self, base: str, config: str = "", wait: Callable[[float], None] = time.sleep
    ) -> None:
        self._base = base.rstrip("/") + "/"
        self._basic = _basic(config, self._base) if config else ""
        self._authorization = f"Basic {self._basic}" if self._basic else ""
        self._opener = urllib.request.build_opener(_Redirects())
        self._wait = wait

    def _ask(
        self, method: str, url: str, headers: dict[str, str], body: bytes | BinaryIO | None = None
    ) -> HTTPResponse:
        for renewed in (False, True):
            request = urllib.request.Request(  # noqa: S310 - the address of the run's registry
                urllib.parse.urljoin(self._base, url), data=body, headers=headers, method=method
            )
            if self._authorization and _place(request.full_url) == _place(self._base):
                request.add_header("Authorization", self._authorization)
            try:
                answer: HTTPResponse = self._opener.open(request, timeout=TIMEOUT_S)
            except urllib.error.HTTPError as error:
                if error.code != 401 or renewed:
                    raise
                self._renew(error.headers.get("WWW-Authenticate") or "")
                if body is not None and not isinstance(body, bytes):
                    body.seek(0)
            else:
                return answer
        raise AssertionError("the second answer is returned or raised")

    def _renew(self, challenge: str) -> None:
        kind, _, rest = challenge.partition(" ")
        told = dict(_CHALLENGE.findall(rest))
        if kind.lower() != "bearer" or "realm" not in told:
            raise RefusedError(f"the registry wants {kind or 'another identity'}")
        realm = told.pop("realm")
        if urllib.parse.urlsplit(realm).scheme not in ("https", _place(self._base)[0]):
            raise RefusedError("the registry's token service has no TLS")
        query = {name: told[name] for name in ("service", "scope") if name in told}
        mark = "&" if urllib.parse.urlsplit(realm).query else "?"
        request = urllib.request.Request(f"{realm}{mark}{urllib.parse.urlencode(query)}")  # noqa: S310
        if self._basic:
            request.add_header("Authorization", f"Basic {self._basic}")
        with self._opener.open(request, timeout=TIMEOUT_S) as answer:
            answered = answer.read(MAX_TOKEN)
        try:
            tokens = json.loads(answered)
            token = str(tokens.get("token") or tokens["access_token"])
        except (ValueError, LookupError, AttributeError):
            token = ""
        if not _SECRET.fullmatch(token):
            raise RefusedError("the registry's token service answered without a token")
        self._authorization = f"Bearer {token}"

    def _again(self, work: Callable[[], T]) -> T:
        for tried in range(1, TRIES + 1):
            try:
                return work()
            except urllib.error.HTTPError as error:
                moved = error.code == 403 and _place(str(error.url)) != _place(self._base)
                mended = moved or error.code in (408, 429, 500, 502, 503, 504)  # addresses end
                if tried == TRIES or not mended:
                    told = error.read(500).decode("utf-8", "replace")
                    where = str(error.url).partition("?")[0]
                    raise RefusedError(f"{error.code} {where}: {told}") from error
                asked = str(error.headers.get("Retry-After") or "")
                told_s = float(asked) if asked.isascii() and asked.isdigit() else 2.0**tried
                self._wait(min(told_s, LONGEST_WAIT_S))
            except (OSError, EOFError, http.client.HTTPException) as error:
                if tried == TRIES:
                    raise RefusedError(f"the registry can't be reached: {error}") from error
                self._wait(2.0**tried)
        raise AssertionError("the last try returned or raised")

    def manifest(self, digest: str) -> dict[str, Any]:
        """A manifest by its digest."""

        def ask() -> bytes:
            with self._ask("GET", f"manifests/{digest}", {"Accept": MANIFEST}) as answer:
                return bytes(answer.read(8 << 20))

        text = self._again(ask)
        if f"sha256:{hashlib.sha256(text).hexdigest()}" != digest:
            raise RefusedError(f"manifest {digest} has other content")
        found: dict[str, Any] = json.loads(text)
        return found

    def fetch(self, layer: dict[str, Any], to: Path) -> None:
        """A blob into a file that appears when it is whole."""
        to.parent.mkdir(parents=True, exist_ok=True)
        part = to.with_name(f".{to.name}.part")
        part.unlink(missing_ok=True)

        def go_on() -> None:
            there = part.stat().st_size if part.exists() else 0
            if there == layer["size"]:
                part.touch()
                return
            given = {"Range": f"bytes={there}-"} if there else {}
            with (
                self._ask("GET", f"blobs/{layer['digest']}", given) as answer,
                part.open("ab" if answer.status == 206 else "wb") as target,
            ):
                left = layer["size"] - (there if answer.status == 206 else 0)
                while data := answer.read(CHUNK):
                    left -= len(data)
                    if left < 0:
                        raise RefusedError(f"blob {layer['digest']} is longer than it should be")
                    target.write(data)
            if part.stat().st_size < layer["size"]:
                raise EOFError("the connection broke off")

        self._again(go_on)
        if digest_of(part) != layer["digest"]:
            raise RefusedError(f"blob {layer['digest']} has other content")
        part.replace(to)

    def push(self, digest: str, size: int, file: Path | None = None) -> None:
        """A blob from a file, or `EMPTY`; nothing is sent when it is there."""

        def send() -> None:
            try:
                with self._ask("HEAD", f"blobs/{digest}", {}):
                    return
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
            with self._ask("POST", "blobs/uploads/", {"Content-Length": "0"}, b"") as begun:
                place = urllib.parse.urljoin(begun.url, begun.headers["Location"])
            mark = "&" if urllib.parse.urlsplit(place).query else "?"
            headers = {"Content-Length": str(size), "Content-Type": FILE_TYPE}
            where = f"{place}{mark}digest={urllib.parse.quote(digest)}"
            if file is None:
                self._ask("PUT", where, headers, EMPTY).close()
            else:
                with file.open("rb") as content:
                    self._ask("PUT", where, headers, content).close()

        self._again(send)

    def tag(self, name: str, manifest: dict[str, Any]) -> None:
        """Put a manifest under a tag."""
        text = json.dumps(manifest).encode()
        headers = {"Content-Type": MANIFEST}
        self._again(lambda: self._ask("PUT", f"manifests/{name}", headers, text).close())


def _basic(config: str, base: str) -> str:
    """What authenticates with a repository by a docker config.json; empty for nobody.

    Of several entries the one with the longest path counts, as in `edgefleet.protocol.oci`.
    """
    try:
        auths = json.loads(config).get("auths") or {}
        best = max(auths, key=lambda key: _fit(key, base), default="")
        if not _fit(best, base):
            return ""
        entry = auths[best]
        pair = f"{entry.get('username') or ''}:{entry.get('password') or ''}".encode()
        if entry.get("auth"):
            pair = base64.b64decode(entry["auth"], validate=True)
    except (ValueError, TypeError, AttributeError):
        # Nothing of the cause goes on: it may repeat what it couldn't read.
        raise RefusedError("the registry's credentials are in no file of docker's form") from None
    return "" if pair.startswith(b":") else base64.b64encode(pair.rstrip(b"\0")).decode()


def _fit(key: str, base: str) -> int:
    """How well an entry fits a repository: its path's length plus 1; 0 for another's."""
    parts = urllib.parse.urlsplit(base)
    host, _, path = key.rsplit("://", maxsplit=1)[-1].rstrip("/").partition("/")
    if path in ("v1", "v2"):
        path = ""
    same = host == parts.netloc or {host, parts.netloc} <= _DOCKER_HUB
    below = not path or parts.path.startswith(f"/v2/{path}/")
    return 1 + len(path) if same and below else 0


def digest_of(file: Path) -> str:
    """The digest of a file's content."""
    hasher = hashlib.sha256()
    with file.open("rb") as content:
        while data := content.read(CHUNK):
            hasher.update(data)
    return f"sha256:{hasher.hexdigest()}"


def bring(registry: Registry, digest: str, folder: Path) -> None:
    """The files of an artifact, into a folder."""
    for layer in registry.manifest(digest)["layers"]:
        title = str((layer.get("annotations") or {}).get(TITLE) or "")
        parts = title.split("/")
        if not title or title.startswith("/") or {"", ".", ".."} & set(parts):
            raise RefusedError(f"the artifact holds a file named {title!r}")
        registry.fetch(layer, folder / title)


def keep(registry: Registry, folder: Path, tag: str) -> None:
    """The files of a folder as an artifact under a tag."""
    layers = []
    for file in _files(folder):
        size, digest = file.stat().st_size, digest_of(file)
        registry.push(digest, size, file)
        title = file.relative_to(folder).as_posix()
        layers.append(
            {
                "mediaType": FILE_TYPE,
                "digest": digest,
                "size": size,
                "annotations": {TITLE: title},
            }
        )
    empty = f"sha256:{hashlib.sha256(EMPTY).hexdigest()}"
    registry.push(empty, len(EMPTY))
    nothing = {"mediaType": EMPTY_TYPE, "digest": empty, "size": len(EMPTY)}
    manifest = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "artifactType": OUTPUTS_TYPE,
        "config": nothing,
        "layers": layers or [nothing],
    }
    registry.tag(tag, manifest)


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def main() -> int:
    """Run what the order names; gives the exit status."""
    order = json.loads(os.environ[ORDER])
    work = Path(os.environ.get(WORK) or tempfile.mkdtemp(prefix="edgefleet-"))
    output = work / "output"
    try:
        registry = Registry(order["store"], os.environ.pop(AUTH, ""))
        bring(registry, order["code"], work / "code")
        if order["data"] is not None:
            bring(registry, order["data"], work / "data")
        command = [sys.executable, str(work / "code" / order["entry"]), *order["arguments"]]
        command += ["--output", str(output), "--work", str(work / "run")]
        if order["data"] is not None:
            command += ["--data", str(work / "data")]
        if order["checkpoints"] is not None:
            Path(order["checkpoints"]).mkdir(parents=True, exist_ok=True)
            command += ["--checkpoints", order["checkpoints"]]
        status = _run(command)
        first = os.environ.get(order["rank"], "0") == "0"
        if status == 0 and first:
            keep(registry, output, order["outputs"])
    except (RefusedError, OSError) as error:
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    return status


def _run(command: list[str]) -> int:
    stop = {signal.SIGTERM}  # how a pod is told to stop: not between start and handler
    signal.pthread_sigmask(signal.SIG_BLOCK, stop)
    entry = subprocess.Popen(command, preexec_fn=_hear)  # noqa: PLW1509 - there is one thread
    signal.signal(signal.SIGTERM, lambda *_: entry.terminate())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, stop)
    status = entry.wait()
    return 128 - status if status < 0 else status


def _hear() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


if __name__ == "__main__":
    sys.exit(main())
