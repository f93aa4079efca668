"""The registry of the mock: the real ``docker-registry`` as a child process, or the stand-in.

The real one, distribution/distribution as Debian packs it, listens on loopback without TLS and lets
everybody do all; it has no referrers API. The stand-in, `edgefleet.testing.cloud.oci`, knows more:
tokens, redirects, faults.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, Self

import yaml

from edgefleet.errors import ConfigurationError, UnavailableError
from edgefleet.protocol.digest import hex_of
from edgefleet.testing.cloud.oci import OciRegistry, throttled
from edgefleet.testing.cloud.ports import HeldPort
from edgefleet.testing.cloud.rules import Rules

if TYPE_CHECKING:
    from edgefleet.testing.cloud.front import Journal

PROGRAM = "docker-registry"
MAX_TRIES = 5  # of a port that somebody else takes meanwhile
START_S = 60.0  # until it listens
STOP_S = 10.0  # from SIGTERM to SIGKILL


class Registry(Protocol):
    """A registry on loopback."""

    @property
    def host(self) -> str:
        """Host and port; only of a running one."""

    @property
    def port(self) -> int:
        """That it listens on; 0 of one that never did."""

    def start(self, port: int = 0) -> None:
        """Listen."""

    def stop(self) -> None:
        """Answer nobody any more; may be called twice."""


def installed() -> bool:
    """Whether the real one can be run here."""
    return shutil.which(PROGRAM) is not None


def registry_in(
    folder: Path, *, real: bool, journal: Journal | None = None, rules: Rules | None = None
) -> Registry:
    """A registry that keeps its content in a folder.

    Args:
        folder: for it.
        real: whether to run the real one, which tells the journal nothing and knows no rules.
        journal: where the stand-in writes what was called.
        rules: faults that it injects.
    """
    if real:
        return DockerRegistry(folder)
    return OciRegistry(folder, journal=journal, rules=rules or Rules(throttled))


class DockerRegistry:
    """The real one.

    Args:
        folder: of its content, configuration and log.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._held: HeldPort | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        """That it listens on."""
        return 0 if self._held is None else self._held.number

    def path_of(self, digest: str) -> Path:
        """Where the bytes of a blob lie."""
        name = hex_of(digest)
        blobs = self._folder / "content" / "docker" / "registry" / "v2" / "blobs" / "sha256"
        return blobs / name[:2] / name / "data"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, port: int = 0) -> None:
        """Run it, and wait until it listens.

        Raises:
            ConfigurationError: it isn't installed.
            UnavailableError: it doesn't start; the error tells its log.
        """
        program = shutil.which(PROGRAM)
        if program is None:
            raise ConfigurationError(f"{PROGRAM} is not installed", cure=f"apt install {PROGRAM}")
        for _ in range(MAX_TRIES):
            self._held = HeldPort(port)
            if self._held.taken:  # or whoever listens there would pass for it
                self._held = HeldPort()
            with contextlib.ExitStack() as failing:
                failing.callback(self.stop)
                if self._listens(program):
                    failing.pop_all()
                    return
            port = 0
        log = (self._folder / "log").read_text(errors="replace")[-2000:]
        raise UnavailableError(f"{PROGRAM} doesn't start: {log}", retryable=False)

    def _listens(self, program: str) -> bool:
        (self._folder / "content").mkdir(parents=True, exist_ok=True)
        config = self._folder / "config.yml"
        config.write_text(yaml.safe_dump(self._config()))
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [program, "serve", str(config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": os.environ.get("PATH", ""), "OTEL_TRACES_EXPORTER": "none"},
                start_new_session=True,
            )
        ends = time.monotonic() + START_S
        while self._process.poll() is None and time.monotonic() < ends:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return self._process.poll() is None
            time.sleep(0.02)
        return False

    def _config(self) -> dict[str, object]:
        return {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "storage": {
                "filesystem": {"rootdirectory": str(self._folder / "content")},
                "delete": {"enabled": True},
            },
            "http": {"addr": self.host},
        }

    def stop(self) -> None:
        """End it."""
        if self._held is not None:
            self._held.close()
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
