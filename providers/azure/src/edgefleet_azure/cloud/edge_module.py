"""One module on a device of the mock: a child process in place of its container.

There is no container: the image says which program runs, folders that the deployment binds lie on
the device's disk, and paths in arguments and environment are put there. What is bound below
``/run`` or ``/tmp`` is gone when the power goes.

Restarts follow ``RestartPolicyManager.cs`` of Azure/iotedge: the pause doubles from ten seconds to
five minutes, after `MAX_RESTARTS` the module has failed, and one that ran for ten minutes starts to
count anew.
"""

from __future__ import annotations

import datetime as dt
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud import process as children

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Mapping, Sequence

    from edgefleet_azure.cloud.edge_manifest import ModuleSpec

STOP_S = 10.0  # Docker's, from SIGTERM to SIGKILL
COOL_OFF_S, LONGEST_S = 10.0, 300.0
MAX_RESTARTS = 20
HEALTHY_S = 600.0


class EdgeModule:
    """A module as it is made and runs; lives on one event loop.

    Args:
        name: the module's.
        spec: what the deployment says.
        program: of its image, before the arguments.
        environment: that edgeAgent gives to every module; the program's folder comes first in its
            ``PATH``, as in a container.
        disk: the device's.
        volatile: a folder that the power takes along; its path is short.
        log: of its output.
        cool_off_s: the first pause before a restart.
        clock: monotonic seconds.

    Attributes:
        status: as edgeAgent reports it.
        restarts: since it was made, or last ran well.
        killed: whether it didn't end when it was told to.
    """

    def __init__(
        self,
        name: str,
        spec: ModuleSpec,
        *,
        program: Sequence[str],
        environment: Mapping[str, str],
        disk: Path,
        volatile: Path,
        log: Path,
        cool_off_s: float = COOL_OFF_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self.spec = name, spec
        self.status = "stopped"
        self.restarts = 0
        self.killed = False
        self._program = tuple(program)
        path = f"{Path(program[0]).parent}:{environment.get('PATH', os.defpath)}"
        self._environment = {**environment, "PATH": path}
        self._disk, self._volatile, self._log = disk, volatile, log
        self._cool_off_s, self._clock = cool_off_s, clock
        self._process: asyncio.subprocess.Process | None = None
        self._due = self._began = 0.0
        self._exit_code = 0
        self._times: dict[str, str] = {}

    @property
    def pid(self) -> int | None:
        """Process id; None while none runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Run it, where it is to run."""
        if self.spec.status != "running":
            return
        folders = {inside: self._placed(host) for inside, host in self.spec.binds.items()}
        for folder in folders.values():
            folder.mkdir(parents=True, exist_ok=True)

        def mapped(text: str) -> str:
            for inside, folder in sorted(folders.items(), key=lambda one: -len(one[0])):
                text = text.replace(inside, str(folder))
            return text

        work = self._volatile / f"work-{self.name}"
        work.mkdir(parents=True, exist_ok=True)
        own = {key: mapped(value) for key, value in self.spec.variables.items()}
        self._process = await children.start(
            tuple(map(mapped, self.spec.command(self._program))),
            folder=work,
            environment={**self._environment, **own},
            log=self._log,
        )
        self._began = self._clock()
        self._times["lastStartTimeUtc"] = _now()
        self.status = "running"

    async def mind(self) -> None:
        """Take note of its end, and start it again when that is due."""
        process = self._process
        if process is not None and process.returncode is not None:
            self._process = None
            self._exit_code = process.returncode
            self._times["lastExitTimeUtc"] = _now()
            if self._clock() - self._began > HEALTHY_S:
                self.restarts = 0
            self._ended()
        elif self.status == "backoff" and self._clock() >= self._due:
            self.restarts += 1
            self._times["lastRestartTimeUtc"] = _now()
            await self.start()

    def _ended(self) -> None:
        wanted = self.spec.restart == "always" or (
            self.spec.restart != "never" and self._exit_code != 0
        )
        if not wanted:
            self.status = "failed" if self._exit_code else "stopped"
        elif self.restarts >= MAX_RESTARTS:
            self.status = "failed"
        else:
            self.status = "backoff"
            self._due = self._clock() + min(self._cool_off_s * 2**self.restarts, LONGEST_S)

    async def end(self, *, cut: bool = False) -> None:
        """End it; with ``cut`` at once. No error when it doesn't run."""
        process, self._process = self._process, None
        self.status = "stopped"
        if process is not None and not await children.end(process, STOP_S, cut=cut):
            self.killed = True

    def log(self, last: int) -> list[str]:
        """The newest lines that it printed."""
        return children.read_log(self._log, last)

    def reported(self) -> dict[str, Any]:
        """As edgeAgent reports it."""
        return {
            "type": "docker",
            "status": self.spec.status,
            "restartPolicy": self.spec.restart,
            "imagePullPolicy": self.spec.pull,
            "settings": {"image": self.spec.image},
            "runtimeStatus": self.status,
            "exitCode": self._exit_code,
            "restartCount": self.restarts,
            **self._times,
        }

    def _placed(self, host: str) -> Path:
        gone = host.startswith(("/run/", "/var/run/", "/tmp/"))  # noqa: S108 - the device's own
        return (self._volatile if gone else self._disk) / host.strip("/")


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat().replace("+00:00", "Z")
