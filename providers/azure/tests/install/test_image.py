"""The image of the runtime's module: whose it runs as, and what it starts."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from edgefleet_runtime.cli import _parser

FILE = Path(__file__).parents[2] / "module" / "Dockerfile"


def instructions() -> list[tuple[str, str]]:
    """Instruction and arguments of each step, in order, of the image that is kept."""
    text = FILE.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    steps = [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]
    last = max(n for n, (word, _) in enumerate(steps) if word == "FROM")
    return steps[last:]


def test_nobody_is_root_in_it() -> None:
    users = [what for word, what in instructions() if word == "USER"]
    assert users
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", users[-1])


def test_it_starts_the_runtime_with_options_that_the_runtime_takes() -> None:
    (entry,) = (json.loads(what) for word, what in instructions() if word == "ENTRYPOINT")
    words = shlex.split(entry[2].replace('"$@"', "").replace("$IOTEDGE_DEVICEID", "press-7"))
    start = next(n for n, word in enumerate(words) if word.endswith("edgefleet-runtime"))
    given = words[start + 1 :]
    told = _parser(given[0]).parse_args(given)
    assert (told.device, told.channel, str(told.root)) == (
        "press-7",
        "iotedge",
        "/var/lib/edgefleet",
    )


def test_what_it_writes_to_lies_in_volumes() -> None:
    (volumes,) = (json.loads(what) for word, what in instructions() if word == "VOLUME")
    (entry,) = (what for word, what in instructions() if word == "ENTRYPOINT")
    assert volumes == ["/var/lib/edgefleet", "/run/edgefleet"]
    assert all(folder in entry for folder in volumes)
