"""The script that brings the runtime to a plain Linux device, and starts it there as a service."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import hex_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.gateway import Archive

_HERE = Path(__file__).parent
_ABOUT = """\
#!/bin/sh
# Installs the EdgeFleet runtime on this machine and starts it as a service: see --help.
# Read it before you run it as root. It verifies the archive by the SHA-256 below.
set -eu
umask 022
"""


def install_script(
    version: str,
    archives: Mapping[str, Archive],
    *,
    gateway: str = "",
    authorities: str = "",
) -> str:
    """The script, for any POSIX shell.

    Args:
        version: of the runtime.
        archives: by platform; a device of another one is told that there is none.
        gateway: ``https://HOST:PORT`` that devices fetch the archive from and enrol at, where they
            aren't told another.
        authorities: certificates that the gateway's own is verified against, PEM. Without them the
            script takes a pin of the gateway's public key, or believes what the system believes.

    Raises:
        InvalidInputError: there is no archive.
    """
    if not archives:
        raise InvalidInputError(
            "the script installs nothing: there is no archive of the runtime",
            cure="make one with: edgefleet runtime build --platform linux-x86_64",
        )
    digests = {name: hex_of(archive.digest) for name, archive in archives.items()}
    values = {
        "version": version,
        "digest_x86_64": digests.get("linux-x86_64", ""),
        "digest_aarch64": digests.get("linux-aarch64", ""),
        "gateway": gateway.rstrip("/"),
        "authorities": authorities,
    }
    lines = [f"{name}={shlex.quote(value)}\n" for name, value in values.items()]
    launcher = (_HERE / "launcher.sh").read_text("utf-8")
    body = (_HERE / "device_install.sh").read_text("utf-8")
    return _ABOUT + "".join(lines) + body.replace("@LAUNCHER@\n", launcher)
