"""A Linux machine as the install script sees it: our tools, but for what needs root."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

OFFLINE = {
    "PIP_NO_INDEX": "1",
    f"PIP_INDEX_{'URL'}": "https://198.51.100.1/",  # TEST-NET-2: nothing is there
}
USER = pwd.getpwuid(os.getuid()).pw_name


def without_a_network() -> list[str]:
    """What to put before a command so that it has no network at all; nothing where we may not."""
    for words in (["unshare", "--net"], ["unshare", "--map-root-user", "--net"]):
        if shutil.which("unshare") and not subprocess.run([*words, "true"], check=False).returncode:
            return words
    return []


class Machine:
    """A folder with a machine's state, its unit, and tools that do as if root used them.

    Args:
        root: the folder.
        python: what its python3 is.
    """

    def __init__(self, root: Path, python: Path) -> None:
        self.root, self.state = root, root / "state"
        self.unit = root / "edgefleet-runtime.service"
        self.tools = root / "tools"
        self.systemctl = root / "systemctl.log"
        self.tools.mkdir(parents=True)
        self.tool("id", 'case "$1" in -u) echo 0 ;; -gn) exec /usr/bin/id -gn ;; esac')
        self.tool("runuser", '[ "$1 $3" = "-u --" ] || exit 9\nshift 3\nexec "$@"')
        self.tool("systemctl", f'echo "$@" >>{shlex.quote(str(self.systemctl))}')
        self.tool("python3", f'exec {shlex.quote(str(python))} "$@"')
        self.tool("sudo", 'exec "$@"')
        self.systemctl.touch()

    def tool(self, name: str, does: str) -> None:
        """Put a program in place of the machine's."""
        path = self.tools / name
        path.write_text(f"#!/bin/sh\n{does}\n")
        path.chmod(0o755)

    def run(
        self,
        script: str,
        *arguments: str,
        token: str = "",
        expect: int = 0,
        shell: str = "sh",
        before: Sequence[str] = (),
    ) -> str:
        """What a script says on standard error, or prints where it says nothing."""
        path = self.root / "install.sh"
        path.write_text(script)
        return self.do([*before, shell, str(path), *arguments], token=token, expect=expect)

    def do(self, command: Sequence[str], *, token: str = "", expect: int = 0) -> str:
        """What a command says, with this machine's tools, and no index within reach."""
        done = subprocess.run(
            command,
            input=token,
            env=self.surroundings,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    @property
    def surroundings(self) -> dict[str, str]:
        """What a command on this machine has in its environment."""
        return {"PATH": f"{self.tools}:/usr/bin:/bin", "TMPDIR": str(self.root), **OFFLINE}

    def install(
        self, script: str, *arguments: str, token: str = "", expect: int = 0, network: bool = True
    ) -> str:
        """Run a script as it is meant to be, with its folders below ours."""
        cut = [] if network else without_a_network()
        given = [*self.places, *arguments]
        return self.run(script, *given, token=token, expect=expect, before=cut)

    @property
    def places(self) -> list[str]:
        """Options of a script that put everything below our folder."""
        folders = ["--state", str(self.state), "--prefix", str(self.root / "opt")]
        return [*folders, "--unit", str(self.unit), "--user", USER]

    def settings(self, key: str) -> list[str]:
        """Values of a key of the unit, in order."""
        lines = self.unit.read_text().splitlines()
        return [line.partition("=")[2] for line in lines if line.startswith(f"{key}=")]

    def command(self) -> list[str]:
        """The words of the unit's command line."""
        (line,) = self.settings("ExecStart")
        return shlex.split(line)

    def environment(self) -> dict[str, str]:
        """What the unit sets."""
        pairs = [value.partition("=") for value in self.settings("Environment")]
        return {name: value for name, _, value in pairs}
