"""Actions that are registered on the device by name; a policy can run these and no other code.

By entry point::

    [project.entry-points."edgefleet_runtime.actions"]
    stop-line = "plant.machines:stop_line"

or by ``--alarm-action stop-line=plant.machines:stop_line``. The function is called with the alarm's
`edgefleet.protocol.event.Alarm`, on a thread of the actions, once each time that the alarm begins.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

from edgefleet.errors import AccessDeniedError, ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet.protocol.event import Alarm

    Registered = Callable[[Alarm], object]

GROUP = "edgefleet_runtime.actions"


def registered_action(name: str, given: Mapping[str, str]) -> Registered:
    """The action of that name.

    Args:
        name: as the policy has it.
        given: ``MODULE:FUNCTION`` by name, in place of entry points of the same name.

    Raises:
        AccessDeniedError: none of that name is registered here.
        ConfigurationError: it can't be imported.
    """
    try:
        if name in given:
            module, _, function = given[name].partition(":")
            found = getattr(importlib.import_module(module), function)
        else:
            entries = tuple(entry_points(group=GROUP, name=name))
            if not entries:
                raise AccessDeniedError(
                    f"no action {name!r} is registered on this device",
                    cure=f"start the runtime with --alarm-action {name}=MODULE:FUNCTION",
                )
            found = entries[0].load()
    except (ImportError, AttributeError, ValueError) as error:
        msg = f"the action {name!r} can't be imported: {error}"
        raise ConfigurationError(msg, cure="mend what it is registered as") from error
    if not callable(found):
        msg = f"the action {name!r} is registered as something that can't be called"
        raise ConfigurationError(msg, cure="register a function")
    action: Registered = found
    return action
