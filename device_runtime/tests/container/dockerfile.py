"""Reads a Dockerfile as a builder does: stages, instructions, what a target is made of.

Only what ours says is understood; anything else is an error, so that a test can't pass over it.
"""

from __future__ import annotations

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

FILE = Path(__file__).parents[2] / "container" / "Dockerfile"
_KNOWN = frozenset(
    "ARG CMD COPY ENTRYPOINT ENV FROM LABEL RUN STOPSIGNAL USER VOLUME".split()  # noqa: SIM905
)


@dataclass
class Stage:
    """One ``FROM`` and what follows it.

    Attributes:
        name: after ``AS``.
        base: an earlier stage, or an image.
        steps: instruction and arguments of each, in order.
    """

    name: str
    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)


class Dockerfile:
    """A Dockerfile, read."""

    def __init__(self, path: Path = FILE) -> None:
        self.arguments: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
        current: Stage | None = None
        for line in "\n".join(lines).replace("\\\n", " ").splitlines():
            if not line.strip():
                continue
            word, _, rest = line.partition(" ")
            assert word in _KNOWN, line
            if word == "FROM":
                found = re.fullmatch(r"(\S+) AS (\S+)", rest)
                assert found is not None, line
                current = self.stages[found[2]] = Stage(found[2], self._expanded(found[1]))
            elif current is None:
                assert word == "ARG", line
                name, _, value = rest.partition("=")
                self.arguments[name] = value
            else:
                current.steps.append((word, rest.strip()))

    def steps(self, target: str) -> list[tuple[str, str]]:
        """What a target's image is made of, from its image on."""
        stage = self.stages[target]
        before = self.steps(stage.base) if stage.base in self.stages else []
        return before + stage.steps

    def image(self, target: str) -> str:
        """The image that a target begins from."""
        base = self.stages[target].base
        return self.image(base) if base in self.stages else base

    def last(self, target: str, word: str) -> str:
        """The arguments that count of an instruction: its last one's."""
        return [rest for what, rest in self.steps(target) if what == word][-1]

    def command(self, target: str, word: str) -> list[str]:
        """Those of ``ENTRYPOINT``, ``CMD`` or ``VOLUME``, which are JSON."""
        found = json.loads(self.last(target, word))
        assert isinstance(found, list)
        return found

    def environment(self, target: str) -> dict[str, str]:
        """Variables that a target sets."""
        pairs = [
            pair for word, rest in self.steps(target) if word == "ENV" for pair in shlex.split(rest)
        ]
        return dict(pair.split("=", 1) for pair in pairs)

    def script(self, target: str, root: Path, context: Path) -> str:
        """A shell script that does what a builder does to files, below a folder.

        Absolute paths are those below ``root``; the files beside the Dockerfile are in ``context``.
        """
        lines = ["set -eu"]
        done: set[str] = set()
        self._add(target, root, context, lines, done)
        return "\n".join(lines)

    def _add(
        self, target: str, root: Path, context: Path, lines: list[str], done: set[str]
    ) -> None:
        stage = self.stages[target]
        if stage.base in self.stages:
            self._add(stage.base, root, context, lines, done)
        for word, rest in stage.steps:
            if word == "RUN":
                lines.append(_moved(rest, root))
            elif word == "COPY" and rest.startswith("--from="):
                other, source, to = re.fullmatch(r"--from=(\S+) (\S+) (\S+)", rest).groups()  # type: ignore[union-attr]
                assert source == to, "all stages share one folder here"
                if other not in done:
                    done.add(other)
                    self._add(other, root, context, lines, done)
            elif word == "COPY":
                source, to = rest.split()
                lines.append(f"cp -R {context}/{source} {_moved(to, root)}")

    def _expanded(self, text: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda found: self.arguments[found[1]], text)


def _moved(text: str, root: Path) -> str:
    """A command whose absolute paths lie below a folder."""
    return re.sub(r"(?<![\w/*.])/(?=opt/|archives|tmp/|var/|run/|etc/)", f"{root}/", text)
