"""A core device's disk: what its nucleus remembers, and where components' files lie.

What the nucleus remembers survives a power cut: it is written whole, or not at all.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.protocol.files import write_whole
from edgefleet_aws.cloud import recipes
from edgefleet_aws.cloud.artifacts import fetch_artifacts
from edgefleet_aws.cloud.recipes import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from edgefleet_aws.cloud.components import Component
    from edgefleet_aws.cloud.recipes import Manifest


class Memory(NamedTuple):
    """What a nucleus knows after a power cut.

    Attributes:
        configuration: of each component, by its name.
        installed: name -> version.
        done: ids of deployments that were carried out, well or not.
    """

    configuration: dict[str, dict[str, Any]]
    installed: dict[str, str]
    done: list[str]


class Disk:
    """One device's.

    Args:
        root: folder of its own, kept over power cuts; made when it is needed.
        thing: the device's name.
    """

    def __init__(self, root: Path, thing: str) -> None:
        self.root = root
        self._thing = thing

    def load(self) -> Memory | None:
        """What was saved last; None before the first time."""
        try:
            return Memory(**json.loads((self.root / "nucleus.json").read_bytes()))
        except FileNotFoundError:
            return None

    def save(self, memory: Memory) -> None:
        """Keep it."""
        write_whole(self.root / "nucleus.json", json.dumps(memory._asdict()).encode())

    def fetch(
        self, component: Component, manifest: Manifest, read: Callable[[str], bytes | None]
    ) -> None:
        """Get the component's artifacts that aren't there yet; errors as of `fetch_artifacts`."""
        fetch_artifacts(
            component,
            manifest,
            folder=self._folder("artifacts", component),
            unpacked=self._folder("artifacts-unarchived", component),
            read=read,
        )

    def filled(
        self,
        component: Component,
        lifecycle: Mapping[str, Any],
        configuration: Mapping[str, Any],
        kind: Kind,
    ) -> dict[str, Any]:
        """A component's lifecycle with its variables filled in.

        https://docs.aws.amazon.com/greengrass/v2/developerguide/component-recipe-reference.html
        """
        values = {
            "artifacts:path": str(self._folder("artifacts", component)),
            "artifacts:decompressedPath": str(self._folder("artifacts-unarchived", component)),
            "work:path": str(self._folder("work", component)),
            "kernel:rootPath": str(self.root),
            "iot:thingName": self._thing,
        }

        def value_of(name: str) -> str | None:
            space, _, path = name.partition(":")
            if space != "configuration":
                return values.get(name)
            if kind is Kind.LITE:  # no interpolation of component configuration there
                return None
            found: Any = configuration
            for key in path.strip("/").split("/"):
                found = found.get(key) if isinstance(found, dict) else None
            return found if isinstance(found, str) else json.dumps(found)

        return recipes.filled(lifecycle, value_of)

    def _folder(self, kind: str, component: Component) -> Path:
        if kind == "work":
            return self.root / kind / component.name
        return self.root / "packages" / kind / component.name / component.version
