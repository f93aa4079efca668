"""One component on a core device of the mock: its install script and its process."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import signal
from typing import TYPE_CHECKING, Any

from edgefleet.protocol.files import write_whole
from edgefleet.testing.cloud import process as children
from edgefleet_aws.cloud import recipes
from edgefleet_aws.cloud.recipes import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_log = logging.getLogger(__name__)

INSTALL_S = 600.0
# From SIGTERM to SIGKILL. The classic nucleus waits 5 s for each process of the component, and sudo
# is one (UnixExec.java at a28341c4); the light one's is systemd's, 90 s.
STOP_S = 10.0
TRIES = 3


class ComponentProcess:
    """A component's version as it is installed and runs.

    Args:
        name: the component's.
        version: the component's.
        lifecycle: of its manifest, variables filled in.
        root: the nucleus's folder.
        environment: for its scripts; the recipe's own variables and the token come on top.

    Attributes:
        token: that it shows to the nucleus's IPC.
        state: as Greengrass names it.
    """

    def __init__(
        self,
        name: str,
        version: str,
        lifecycle: Mapping[str, Any],
        *,
        root: Path,
        environment: Mapping[str, str],
    ) -> None:
        self.name = name
        self.version = version
        self.lifecycle = lifecycle
        self.token = secrets.token_hex(16)
        self.state = "NEW"
        self._work = root / "work" / name
        self._log = log_file(root, name)
        self._environment = {
            **environment,
            **recipes.environment_of(lifecycle),
            "SVCUID": self.token,
        }
        self._process: asyncio.subprocess.Process | None = None
        self._tries = 0

    @property
    def pid(self) -> int | None:
        """Process id; None while none runs."""
        return None if self._process is None else self._process.pid

    async def install(self) -> None:
        """Run its install script, unless the same one of the same version ran to its end before.

        Raises:
            RefusedError: it failed, or took too long.
        """
        self._work.mkdir(parents=True, exist_ok=True)
        found = recipes.script_of(self.lifecycle, "install")
        mark = self._work / ".installed"
        wanted = hashlib.sha256(f"{self.version}\0{found}".encode()).hexdigest()
        if found is not None and not (mark.exists() and mark.read_text() == wanted):
            script, limit = found
            process = await self._shell(script)
            try:
                code = await asyncio.wait_for(process.wait(), limit or INSTALL_S)
            except TimeoutError as error:
                children.send(process, signal.SIGKILL)
                raise RefusedError(f"INSTALL_TIMEOUT: {self.name}") from error
            if code != 0:
                self.state = "ERRORED"
                said = " | ".join(self.log(5))
                raise RefusedError(f"INSTALL_ERROR: {self.name} ended with {code}: {said}")
            write_whole(mark, wanted.encode())
        self.state = "INSTALLED"

    async def start(self) -> None:
        """Run its script; without one it has finished at once."""
        found = recipes.script_of(self.lifecycle, "run")
        if found is None:
            self.state = "FINISHED"
            return
        self._process = await self._shell(found[0])
        self.state = "RUNNING"

    async def mind(self) -> None:
        """Take note of its end, and start it again where it failed, a few times."""
        process = self._process
        if process is None or process.returncode is None:
            return
        self._process = None
        self._tries += 1
        if process.returncode == 0:
            self.state = "FINISHED"
        elif self._tries >= TRIES:
            self.state = "BROKEN"
        else:
            _log.info("%s ended with %s and is started again", self.name, process.returncode)
            await self.start()

    async def end(self, *, cut: bool = False) -> bool:
        """End its process, with ``cut`` at once; no error when there is none.

        Returns:
            False when it didn't end when told to, and was killed.
        """
        process, self._process = self._process, None
        return process is None or await children.end(process, STOP_S, cut=cut)

    def log(self, last: int) -> list[str]:
        """The newest lines that it printed."""
        return children.read_log(self._log, last)

    async def _shell(self, script: str) -> asyncio.subprocess.Process:
        # A recipe's script is shell by Greengrass's own definition.
        return await children.start(
            ("/bin/sh", "-c", script),
            folder=self._work,
            environment=self._environment,
            log=self._log,
        )


def log_file(root: Path, name: str) -> Path:
    """Where a component's output goes."""
    return root / "logs" / f"{name}.log"
