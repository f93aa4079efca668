"""What tests of the registry share: a state store in memory, and a registry over any host."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

from edgefleet.errors import ConflictError
from edgefleet.interfaces.state import StateStore, Stored
from edgefleet_kubernetes.registry import KubernetesRegistry
from edgefleet_kubernetes.settings import KubernetesSettings

NAME = "plant/models"


class MemoryState(StateStore):
    """Documents in memory, with compare-and-swap for any number of threads."""

    provider: ClassVar[str] = "memory"  # type: ignore[misc]

    def __init__(self) -> None:
        self._documents: dict[str, Stored] = {}
        self._lock = threading.Lock()
        self._writes = 0

    def _read(self, key: str) -> Stored | None:
        return self._documents.get(key)

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        with self._lock:
            self._check(key, expect)
            self._writes += 1
            self._documents[key] = Stored(data=data, tag=str(self._writes))
            return str(self._writes)

    def _delete(self, key: str, expect: str) -> None:
        with self._lock:
            self._check(key, expect)
            del self._documents[key]

    def _keys(self, prefix: str) -> Iterator[str]:
        yield from sorted(key for key in list(self._documents) if key.startswith(prefix))

    def _check(self, key: str, expect: str | None) -> None:
        held = self._documents.get(key)
        if (None if held is None else held.tag) != expect:
            raise ConflictError(key)


class Operator:
    """Makes registries as an operator on this machine does, and closes them."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self._made: list[KubernetesRegistry] = []

    def registry(
        self, host: str, state: StateStore | None = None, **settings: Any
    ) -> KubernetesRegistry:
        """A registry of the repository `NAME` at a host."""
        told = {"registry": f"oci://{host}/{NAME}", "max_attempts": 2, **settings}
        made = KubernetesRegistry(
            KubernetesSettings.model_validate({"prefix": "plant", **told}),
            state=lambda: state or MemoryState(),
            base=self.base,
        )
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.close()


def credentials(path: Path, host: str, **entry: str) -> Path:
    """A file of docker's form with one entry."""
    path.write_text(json.dumps({"auths": {host: entry}}))
    return path
