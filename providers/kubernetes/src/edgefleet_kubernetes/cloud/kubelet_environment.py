"""What a container's process is told: command, arguments, environment, with the mock's places.

There are no containers in the mock, so that a process sees this machine's files and addresses.
Texts that a manifest gives it are rewritten: a path below a mount becomes the mount's folder,
``0.0.0.0`` the pod's own address, and a Service's or a pod's name its address on this node.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from edgefleet_kubernetes.cloud.kubelet_fields import FieldError, field_of, resource_of
from edgefleet_kubernetes.cloud.kubelet_volumes import contents

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet_kubernetes.cloud.api_objects import Object

_REFERENCE = re.compile(r"\$\$|\$\(([A-Za-z_.-][A-Za-z0-9_.-]*)\)")
_HOST = (
    r"(?<![\w.-])([a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?){1,5})(?![\w.-])"
)
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


class ConfigError(Exception):
    """A container can't be made: ``CreateContainerConfigError`` with this message."""


class Getter(Protocol):
    """Where objects come from."""

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """An object; None where there is none."""


class Image(NamedTuple):
    """What the mock knows of an image: the program that stands for it.

    Attributes:
        entrypoint: run where a container has no command.
        command: added where it has no arguments either.
    """

    entrypoint: tuple[str, ...]
    command: tuple[str, ...] = ()


class Rewriting:
    """Puts the mock's places into texts.

    Args:
        folders: where each mount path is.
        address: of the pod.
        resolve: gives the address of a name in the cluster; None where it is none.
    """

    def __init__(
        self, folders: Mapping[str, Path], address: str, resolve: Callable[[str], str | None]
    ) -> None:
        self._folders, self._address, self._resolve = folders, address, resolve
        longest = sorted((one for one in folders if one != "/"), key=len, reverse=True)
        paths = "|".join(map(re.escape, longest))
        self._paths = re.compile(rf"(?<![\w.-])({paths})(?![\w.-])") if paths else None

    def __call__(self, text: str) -> str:
        """A text with the mock's places in it."""
        if self._paths is not None:
            text = self._paths.sub(lambda found: str(self._folders[found.group(1)]), text)
        text = re.sub(r"(?<![\w.])0\.0\.0\.0(?![\w.])|\[::\]", self._address, text)
        return re.sub(_HOST, self._named, text)

    def _named(self, found: re.Match[str]) -> str:
        return self._resolve(found.group(1)) or found.group(1)


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """A text with ``$(NAME)`` replaced; unknown names stay, ``$$`` is a dollar sign.

    As ``third_party/forked/golang/expansion`` of kubernetes/kubernetes.
    """

    def one(found: re.Match[str]) -> str:
        name = found.group(1)
        return "$" if name is None else variables.get(name, found.group(0))

    return _REFERENCE.sub(one, text)


def environment(
    container: Object,
    pod: Object,
    *,
    objects: Getter,
    services: Mapping[str, str],
    rewrite: Callable[[str], str],
) -> dict[str, str]:
    """What a container's process finds in its environment, from its own manifest.

    Args:
        container: of the pod.
        pod: with ``status.podIP``.
        objects: ConfigMaps and Secrets.
        services: variables of the namespace's Services.
        rewrite: puts the mock's places into a value.

    Raises:
        ConfigError: a key that it needs isn't there.
    """
    found: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        found.update(_all_keys(source, pod, objects))
    for variable in container.get("env") or ():
        if "valueFrom" in variable:
            value = _value_from(variable["valueFrom"], container, pod, objects)
            if value is None:
                continue
        else:
            value = expanded(variable.get("value") or "", {**services, **found})
        found[variable["name"]] = rewrite(value)
    return {**services, **found}


def _all_keys(source: Mapping[str, Any], pod: Object, objects: Getter) -> dict[str, str]:
    key = "configMapRef" if "configMapRef" in source else "secretRef"
    kind = "ConfigMap" if key == "configMapRef" else "Secret"
    reference = source[key]
    found = objects.get(kind, pod["metadata"]["namespace"], reference["name"])
    if found is None:
        if reference.get("optional"):
            return {}
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    prefix = source.get("prefix") or ""
    return {
        prefix + name: value.decode(errors="replace")
        for name, value in contents(found).items()
        if _NAME.match(prefix + name)
    }


def _value_from(
    source: Mapping[str, Any], container: Object, pod: Object, objects: Getter
) -> str | None:
    try:
        if "fieldRef" in source:
            return field_of(pod, source["fieldRef"]["fieldPath"])
        if "resourceFieldRef" in source:
            return resource_of(pod, source["resourceFieldRef"], container)
    except FieldError as error:
        raise ConfigError(str(error)) from error
    key = "configMapKeyRef" if "configMapKeyRef" in source else "secretKeyRef"
    kind = "ConfigMap" if key == "configMapKeyRef" else "Secret"
    reference, namespace = source[key], pod["metadata"]["namespace"]
    found = objects.get(kind, namespace, reference["name"])
    data = {} if found is None else contents(found)
    if reference["key"] in data:
        return data[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    if found is None:
        raise ConfigError(f'{kind.lower()} "{reference["name"]}" not found')
    where = f"{namespace}/{reference['name']}"
    raise ConfigError(f"couldn't find key {reference['key']} in {kind} {where}")


def command(
    container: Object,
    image: Image,
    variables: Mapping[str, str],
    rewrite: Callable[[str], str],
) -> tuple[str, ...]:
    """The words that a container's process is started with.

    As https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    says: a command replaces the image's entrypoint and its arguments.
    """
    given: Sequence[str] = container.get("command") or ()
    args: Sequence[str] = container.get("args") or ()
    words = tuple(given) or image.entrypoint
    rest = tuple(args) or (() if given else image.command)
    own = len(tuple(given))
    return tuple(
        # The image's own words are this machine's already.
        rewrite(expanded(word, variables)) if number < own or number >= len(words) else word
        for number, word in enumerate((*words, *rest))
    )
