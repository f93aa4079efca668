"""Machines with a network of their own each: Linux namespaces, joined by links that can fail.

One namespace is the hub, where gateways run; each machine is linked with it alone, so that what is
done to one link harms no other. Nothing of the host's own network is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Self

ADDRESS = "10.213.0.1"
"""Of the hub, from every machine."""
_PREFIX = "edgefleet-test-"


class Network:
    """A hub, and machines by number from 1; use it as a context.

    Args:
        machines: how many.
    """

    def __init__(self, machines: int) -> None:
        self._mark = f"{_PREFIX}{os.getpid()}"
        self._machines = range(1, machines + 1)
        self._made: list[str] = []

    def __enter__(self) -> Self:
        _sweep()
        try:
            self._make(self.hub)
            _ip("-n", self.hub, "addr", "add", f"{ADDRESS}/32", "dev", "lo")
            for number in self._machines:
                self._link(number)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def hub(self) -> str:
        """Name of the namespace where gateways run."""
        return f"{self._mark}-hub"

    def machine(self, number: int) -> str:
        """Name of a machine's namespace."""
        return f"{self._mark}-{number}"

    def inside(self, namespace: str) -> tuple[str, ...]:
        """Words that a command is run by in a namespace; the process stays the same."""
        return ("ip", "netns", "exec", namespace)

    def cut(self, number: int) -> None:
        """Take a machine's link away."""
        _ip("-n", self.hub, "link", "set", _port(number), "down")

    def mend(self, number: int) -> None:
        """Give it back."""
        _ip("-n", self.hub, "link", "set", _port(number), "up")

    def shape(self, number: int, *words: str) -> None:
        """Have what goes to a machine pass a queueing discipline of ``tc``, instead of another."""
        device = ("dev", _port(number), "root")
        _run("tc", "-n", self.hub, "qdisc", "replace", *device, *words)

    def dropped(self, number: int) -> int:
        """Packets that the discipline before a machine has lost."""
        words = ("tc", "-n", self.hub, "-s", "qdisc", "show", "dev", _port(number))
        said = _run(*words).split("dropped ", 1)[1]
        return int(said.split(",", 1)[0])

    def close(self) -> None:
        """Take everything away; links go with the namespaces that they end in."""
        for namespace in reversed(self._made):
            _delete(namespace)
        self._made.clear()

    def _make(self, namespace: str) -> None:
        _ip("netns", "add", namespace)
        self._made.append(namespace)
        _ip("-n", namespace, "link", "set", "lo", "up")

    def _link(self, number: int) -> None:
        port, there, near = _port(number), self.machine(number), f"10.213.{number}.1"
        self._make(there)
        pair = ("type", "veth", "peer", "name", "eth0", "netns", there)
        _ip("-n", self.hub, "link", "add", port, *pair)
        _ip("-n", self.hub, "addr", "add", f"{near}/24", "dev", port)
        _ip("-n", there, "addr", "add", f"10.213.{number}.2/24", "dev", "eth0")
        _ip("-n", self.hub, "link", "set", port, "up")
        _ip("-n", there, "link", "set", "eth0", "up")
        _ip("-n", there, "route", "add", "default", "via", near)


def lacking() -> str | None:
    """Why this machine has no such networks; None where it has."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "network namespaces want Linux and its administrator"
    if shutil.which("ip") is None or shutil.which("tc") is None:
        return "there are no ip and tc (iproute2)"
    try:
        with Network(1) as network:
            network.shape(1, "tbf", "rate", "1mbit", "burst", "32kbit", "latency", "400ms")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this machine makes no network namespaces: {_said(error)}"
    return None


def lacking_netem() -> str | None:
    """Why links can't be delayed here; None where they can."""
    try:
        with Network(1) as network:
            network.shape(1, "netem", "delay", "1ms")
    except (OSError, subprocess.CalledProcessError) as error:
        return f"this kernel has no netem: {_said(error)}"
    return None


def _sweep() -> None:
    """Take away what processes left that were killed."""
    for line in _run("ip", "netns", "list").splitlines():
        name = line.partition(" ")[0]
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if name.startswith(_PREFIX) and not Path("/proc", owner).exists():
            _delete(name)


def _delete(namespace: str) -> None:
    subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)


def _port(number: int) -> str:
    return f"port{number}"


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True).stdout


def _said(error: OSError | subprocess.CalledProcessError) -> str:
    told = error.stderr if isinstance(error, subprocess.CalledProcessError) else str(error)
    return " ".join(str(told).split())[:200]
