"""pip, asked for the wheels of another machine; and our own distributions, built where they lie."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from edgefleet.errors import ConfigurationError, MissingExtraError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.runtime_archive.target import Target

OURS = ("edgefleet", "edgefleet-runtime")

_NO_WHEEL = re.compile(r"No matching distribution found for ([^\n(]+)")
_UNAVAILABLE = re.compile(r"available for your environment:\s+([^\n]+)")
_CONFLICT = re.compile(r"ERROR: (Cannot install .*)")
_NO_INDEX = re.compile(
    r"NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError|"
    r"Failed to establish a new connection|Name or service not known|"
    r"Temporary failure in name resolution|Connection (?:refused|reset)"
)


def download(
    wanted: Sequence[str],
    target: Target,
    to: Path,
    *,
    given: Sequence[Path],
    only_given: bool,
    constraints: Path | None = None,
) -> None:
    """Put the wheels that some requirements need on a target in a folder.

    Args:
        wanted: the requirements.
        target: where they are to be installed.
        to: the folder.
        given: folders of wheels to take beside those of pip's index.
        only_given: take those only, and ask no index.
        constraints: file of versions to keep to, as pip has it.

    Raises:
        ConfigurationError: there is no wheel of something for the target.
        UnavailableError: the index can't be reached.
        MissingExtraError: there is no pip here.
    """
    command = ["download", "--progress-bar=off", "--only-binary=:all:", "--dest", str(to)]
    command += ["--implementation", "cp", "--python-version", target.python]
    command += [word for tag in target.platforms for word in ("--platform", tag)]
    command += [word for folder in given for word in ("-f", str(folder.absolute()))]
    if constraints is not None:
        command += ["-c", str(constraints)]
    _pip(command + list(wanted), about=str(target), indexed=not only_given)


def build_ours(to: Path) -> dict[str, Path]:
    """Wheels of those of our distributions that are installed from a checkout, by name.

    The others come from where everything comes from.

    Raises:
        ConfigurationError: one can't be built.
    """
    found = {}
    for name in OURS:
        source = _checkout(name)
        if source is None:
            continue
        folder = to / name
        command = ["wheel", "--no-deps", "-w", str(folder), str(source)]
        if find_spec("hatchling") is not None:
            command.insert(1, "--no-build-isolation")
        _pip(command, about=f"the wheel of {name} from {source}", indexed=True)
        (found[name],) = folder.glob("*.whl")
    return found


def _checkout(name: str) -> Path | None:
    try:
        text = metadata.distribution(name).read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    told = json.loads(text) if text else {}
    if not told.get("dir_info", {}).get("editable"):
        return None
    return Path(url2pathname(urlsplit(told["url"]).path))


def _pip(arguments: Sequence[str], *, about: str, indexed: bool) -> None:
    if find_spec("pip") is None:
        raise MissingExtraError(
            "wheels are chosen by pip, which this Python lacks",
            cure="install it with: pip install 'edgefleet[archive]', or: python -m ensurepip",
        )
    environment = {**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    options: list[str] = []
    if not indexed:
        options = ["--no-index"]
        environment = {k: v for k, v in environment.items() if not k.startswith("PIP_")}
        environment["PIP_CONFIG_FILE"] = os.devnull
    command = [sys.executable, "-m", "pip", arguments[0], *options, *arguments[1:]]
    done = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    if done.returncode:
        raise _refused(done.stdout + done.stderr, about, indexed=indexed)


def _refused(output: str, about: str, *, indexed: bool) -> ConfigurationError | UnavailableError:
    """What pip said, as an error that names the cure."""
    if indexed and _NO_INDEX.search(output):
        return UnavailableError(
            f"pip can't reach its index: {_last(output)}",
            cure="try again, or fill a folder with wheels where there is a network and give it "
            "with --wheels",
        )
    if missing := _UNAVAILABLE.search(output) or _NO_WHEEL.search(output):
        cure = (
            "leave out the extra that needs it, name a newer --glibc or another --python, or "
            "build the wheel and add it with --with FILE"
        )
        if not indexed:
            cure = f"put its wheel into the folder, or {cure}"
        return ConfigurationError(
            f"there is no wheel of {missing[1].strip()} for {about}", cure=cure
        )
    if conflict := _CONFLICT.search(output):
        return ConfigurationError(
            f"{conflict[1]}, for {about}", cure="leave out one of the extras, or a constraint"
        )
    return ConfigurationError(f"pip failed for {about}: {_last(output)}")


def _last(output: str) -> str:
    lines = [line for line in output.splitlines() if line.startswith("ERROR")]
    return (lines or output.splitlines() or ["it said nothing"])[-1].removeprefix("ERROR: ")[:500]
