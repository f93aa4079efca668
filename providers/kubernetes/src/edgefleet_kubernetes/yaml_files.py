"""Objects as YAML files that people, Kustomize, Flux and Argo CD read. Pure.

Rules kept here:

- A folder has ``kustomization.yaml`` and, below ``objects/``, one object a file: ``kubectl apply -k
  FOLDER`` and ``kubectl apply -f FOLDER/objects`` both take it.
- The same objects give the same bytes, whatever writes them where.
- A text that some reader of YAML takes for something else is quoted.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

OBJECTS = "objects"
KUSTOMIZATION = "kustomization.yaml"
# Letters first: no reader takes that for a number, a date, or the start of something else.
_PLAIN = re.compile(r"[A-Za-z/][A-Za-z0-9/._-]*")
_FIRST = {"Namespace": 0, "ServiceAccount": 1, "ClusterRole": 2, "Role": 2}
_WORKLOADS = frozenset({"DaemonSet", "Service", "PodDisruptionBudget"})
_REST, _LAST = 3, 4
_WORDS = frozenset({"y", "n", "yes", "no", "on", "off", "true", "false", "null"})


class _Dumper(yaml.SafeDumper):
    """Writes no aliases, and quotes whatever isn't a plain word."""

    def ignore_aliases(self, data: object) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    plain = _PLAIN.fullmatch(text) and text.lower() not in _WORDS
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=None if plain else "'")


_Dumper.add_representer(str, _text)


def encoded(document: dict[str, Any]) -> bytes:
    """An object as YAML, keys in their own order."""
    text: str = yaml.dump(
        document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20, indent=2
    )
    return text.encode()


def file_name(document: dict[str, Any]) -> str:
    """Path of an object's file below a folder of manifests; no other object has it.

    ``kubectl apply -f`` takes files in the order of their names, so they begin with a number.
    """
    metadata, kind = document["metadata"], document["kind"]
    rank = _FIRST.get(kind, _LAST if kind in _WORKLOADS else _REST)
    parts = (f"{rank}-{kind.lower()}", metadata.get("namespace"), metadata["name"])
    return f"{OBJECTS}/{'.'.join(part for part in parts if part)}.yaml"


def kustomization(paths: Iterable[str]) -> bytes:
    """The ``kustomization.yaml`` of a folder that has these files, in the order given."""
    return encoded({**no_kustomization(), "resources": [*paths]})


def no_kustomization() -> dict[str, Any]:
    """A Kustomization of nothing."""
    return {"apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization"}
