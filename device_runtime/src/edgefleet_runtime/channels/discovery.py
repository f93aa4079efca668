"""Channels by name, from entry points: one is imported when it is asked for, no other."""

from __future__ import annotations

from importlib.metadata import entry_points

from edgefleet.errors import ConfigurationError, PluginImportError
from edgefleet_runtime.channels.base import Channel

GROUP = "edgefleet_runtime.channels"


def installed_channels() -> tuple[str, ...]:
    """Names of the channels installed here; none is imported."""
    return tuple(sorted({entry.name for entry in entry_points(group=GROUP)}))


def channel_named(name: str) -> type[Channel]:
    """The class of a channel.

    Raises:
        ConfigurationError: none of that name is installed.
        PluginImportError: it is, and fails to import; or several distributions offer one.
    """
    entries = entry_points(group=GROUP, name=name)
    origins = sorted({entry.dist.name for entry in entries if entry.dist is not None})
    if len({entry.value for entry in entries}) > 1:
        raise PluginImportError(
            f"several distributions offer a channel {name!r}: {', '.join(origins)}",
            cure=f"keep one: pip uninstall {' or '.join(origins)}",
        )
    for entry in entries:
        try:
            found = entry.load()
        except Exception as error:
            raise PluginImportError(
                f"channel {name!r} fails to import: {error}",
                cure=f"install what {entry.value.partition(':')[0]} needs",
            ) from error
        if not (isinstance(found, type) and issubclass(found, Channel)):
            raise PluginImportError(
                f"channel {name!r} is no Channel: {entry.value}",
                cure=f"upgrade {' '.join(origins) or 'the distribution that brings it'}",
            )
        return found
    raise ConfigurationError(
        f"no channel {name!r} is installed",
        cure=f"use one of {', '.join(installed_channels()) or 'none'}, or install its distribution",
    )
