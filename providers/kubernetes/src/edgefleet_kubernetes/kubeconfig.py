"""Which clusters there are, and as whom they are called: files that kubectl reads, or a pod's own.

Rules kept here (https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/):

- The profile's file, else every file of ``KUBECONFIG``, else ``~/.kube/config``, else the service
  account of the pod that this runs in.
- Of several files, the first that names something wins. Paths in a file are relative to it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from edgefleet.errors import ProfileError

if TYPE_CHECKING:
    from lightkube import KubeConfig

VARIABLE = "KUBECONFIG"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_LISTS = ("clusters", "contexts", "users")
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
_CURE = "check it: kubectl config view"


def load_kubeconfig(given: Path | None) -> KubeConfig:
    """What the profile's file says, or what kubectl would find.

    Args:
        given: the profile's file; None for the usual places.

    Raises:
        ProfileError: there is no such file, or it can't be read.
    """
    from lightkube import KubeConfig  # noqa: PLC0415 - slow to import

    files = [given] if given is not None else _usual()
    if not files:
        if (ACCOUNT / "token").exists() and "KUBERNETES_SERVICE_HOST" in os.environ:
            return KubeConfig.from_service_account(ACCOUNT)
        raise ProfileError(
            "there is no kubeconfig, and this runs in no pod",
            cure=f"set `kubeconfig` in the profile's table [… .kubernetes], or {VARIABLE}",
        )
    documents = [(_read(path), path) for path in files]
    try:
        merged = merge(documents)
        return KubeConfig.from_dict(merged, fname=files[0])
    except (KeyError, TypeError, ValueError) as error:
        raise ProfileError(f"{files[0]} is no kubeconfig: {error}", cure=_CURE) from error


def merge(documents: list[tuple[dict[str, Any], Path]]) -> dict[str, Any]:
    """One kubeconfig of several, each with its file."""
    merged: dict[str, Any] = {name: [] for name in _LISTS}
    for document, path in documents:
        if document.get("current-context"):
            merged.setdefault("current-context", document["current-context"])
        for name in _LISTS:
            known = {one["name"] for one in merged[name]}
            for one in document.get(name) or ():
                if one["name"] not in known:
                    merged[name].append(_rooted(one, name.removesuffix("s"), path))
    return merged


def _usual() -> list[Path]:
    named = [Path(one) for one in os.environ.get(VARIABLE, "").split(os.pathsep) if one]
    if named:
        found = [path for path in named if path.is_file()]
        if not found:
            raise ProfileError(f"{VARIABLE} names no file that exists", cure=f"set {VARIABLE}")
        return found
    usual = Path("~/.kube/config").expanduser()
    return [usual] if usual.is_file() else []


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_bytes())
    except (OSError, yaml.YAMLError) as error:
        raise ProfileError(f"can't read the kubeconfig {path}: {error}", cure=_CURE) from error
    if not isinstance(found, dict):
        raise ProfileError(f"{path} is no kubeconfig", cure=_CURE)
    return found


def _rooted(named: dict[str, Any], kind: str, path: Path) -> dict[str, Any]:
    """An entry whose paths don't depend on where it stands."""
    inner = dict(named.get(kind) or {})
    for name in _PATHS:
        if inner.get(name):
            inner[name] = str(path.parent.absolute() / inner[name])
    return {**named, kind: inner}
