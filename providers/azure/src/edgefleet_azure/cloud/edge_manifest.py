"""What edgeAgent makes of its desired properties: modules to run, or why it refuses them. Pure.

Rules kept here, each in ``mock_rules.md``:

- Schema versions 1.0 and 1.1 are understood; another gives status 412, as a manifest without
  configuration gives 417, and one that is malformed 400.
- ``createOptions`` is JSON as text, in up to eight properties of 512 bytes or more that are put
  together: ``createOptions``, ``createOptions01``, ….
- Without a word on it a module runs, is always restarted, and its image is pulled when it is made.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

SCHEMAS = frozenset({"1.0", "1.1"})
OK, MALFORMED, UNKNOWN_SCHEMA, NO_CONFIGURATION, FAILED = 200, 400, 412, 417, 500
RESTARTS = ("never", "on-failure", "on-unhealthy", "always")
PULLS = ("on-create", "never")
_PARTS = ("createOptions", *(f"createOptions{number:02}" for number in range(1, 8)))


class ManifestError(Exception):
    """edgeAgent refuses a configuration.

    Attributes:
        code: that it reports.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ModuleSpec(NamedTuple):
    """A module as it is to be. Two that are equal are the same container.

    Attributes:
        image: that it runs.
        options: of the container, as Docker's API has them.
        variables: of its environment.
        status: ``running`` or ``stopped``.
        restart: one of `RESTARTS`.
        pull: one of `PULLS`.
    """

    image: str
    options: dict[str, Any]
    variables: dict[str, str]
    status: str = "running"
    restart: str = "always"
    pull: str = "on-create"

    def command(self, program: Sequence[str]) -> tuple[str, ...]:
        """What runs, given the image's own program without arguments."""
        entry = self.options.get("Entrypoint")
        return (*(program if entry is None else entry), *(self.options.get("Cmd") or ()))

    @property
    def binds(self) -> dict[str, str]:
        """Folders of the host, by the place where the container sees them."""
        host = self.options.get("HostConfig") or {}
        pairs = [one.split(":") for one in host.get("Binds") or ()]
        found = {parts[1]: parts[0] for parts in pairs}
        for mount in host.get("Mounts") or ():
            found[mount["Target"]] = mount["Source"]
        return found


def modules_of(desired: Mapping[str, Any]) -> dict[str, ModuleSpec]:
    """The modules beside edgeAgent and edgeHub, by name.

    Raises:
        ManifestError: the configuration is not carried out.
    """
    if not any(not key.startswith("$") for key in desired):
        raise ManifestError(NO_CONFIGURATION, "the device has no deployment configuration")
    schema = desired.get("schemaVersion")
    if schema not in SCHEMAS:
        raise ManifestError(UNKNOWN_SCHEMA, f"schema version {schema!r} is not supported")
    if (desired.get("runtime") or {}).get("type") != "docker":
        raise ManifestError(MALFORMED, "runtime.type is not docker")
    system = desired.get("systemModules") or {}
    if not {"edgeAgent", "edgeHub"} <= system.keys():
        raise ManifestError(MALFORMED, "systemModules lacks edgeAgent or edgeHub")
    modules = desired.get("modules") or {}
    return {name: _module(name, value) for name, value in modules.items()}


def _module(name: str, value: Any) -> ModuleSpec:  # noqa: ANN401 - JSON
    try:
        settings = value["settings"]
        parts = "".join(settings.get(part) or "" for part in _PARTS)
        options = json.loads(parts) if parts else {}
        variables = dict(one.partition("=")[::2] for one in options.get("Env") or ())
        given = {key: str(one["value"]) for key, one in (value.get("env") or {}).items()}
        spec = ModuleSpec(
            image=settings["image"],
            options=options,
            variables={**variables, **given},
            status=value.get("status", "running"),
            restart=value.get("restartPolicy", "always"),
            pull=value.get("imagePullPolicy", "on-create"),
        )
        spec.binds.keys()  # both read here, where what makes no sense is told
        spec.command(())
        usable = bool(spec.image) and value.get("type") == "docker"
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(MALFORMED, f"module {name} makes no sense: {error!r}") from error
    if not usable or spec.status not in {"running", "stopped"}:
        raise ManifestError(MALFORMED, f"module {name} has no image, type or status of use")
    if spec.restart not in RESTARTS or spec.pull not in PULLS:
        raise ManifestError(MALFORMED, f"module {name}: {spec.restart!r} or {spec.pull!r}")
    return spec
