"""The options by which ``run`` and ``once`` know their fleet, and the settings they come to."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import InvalidInputError
from edgefleet_runtime.commands.common import pairs

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from edgefleet_runtime.channels.base import Channel

LABELS_VARIABLE = "EDGEFLEET_LABELS"


def add_fleet(parser: argparse.ArgumentParser) -> None:
    """Declare folder, device, channel and caps."""
    parser.add_argument(
        "--root",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of this runtime's own, on a persistent disk: models, telemetry, state",
    )
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="the device's name in its fleet (default: what the channel finds)",
    )
    parser.add_argument(
        "--channel",
        required=True,
        metavar="NAME",
        help="how pointers come; see doctor for those here",
    )
    parser.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="an option of the channel; may be given several times",
    )
    parser.add_argument("--fleet", metavar="UUID", help="take pointers of this fleet only")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a fact about the device in place of the one detected, such as target=jetson-orin; "
        f"{LABELS_VARIABLE} may hold some too, as a JSON object",
    )
    parser.add_argument(
        "--store-max-bytes",
        type=int,
        metavar="N",
        help="cap of models on the disk (default 8 GiB)",
    )
    parser.add_argument(
        "--spool-max-bytes",
        type=int,
        metavar="N",
        help="cap of unsent telemetry on the disk (default 512 MiB)",
    )
    parser.add_argument(
        "--memory-max-bytes",
        type=int,
        metavar="N",
        help="cap of models in memory, by estimate (default: none)",
    )
    parser.add_argument(
        "--fetch-max-bytes-per-s",
        type=int,
        metavar="N",
        help="bandwidth that fetching may take (default: all)",
    )
    parser.add_argument(
        "--metered",
        metavar="yes|no|FILE",
        help="whether the link costs money by what goes over it; the policy says what goes then. A "
        "file says yes or no and may change; one that is missing means yes (default: no)",
    )
    parser.add_argument(
        "--external",
        metavar="URL",
        help="let an inference server that already runs at http://HOST:PORT run the models: "
        "Triton, or any of Open Inference Protocol v2",
    )
    parser.add_argument(
        "--external-repository",
        type=Path,
        metavar="DIR",
        help="folder that this server loads models from, by explicit model control",
    )
    parser.add_argument(
        "--external-model",
        metavar="NAME",
        help="without such a folder: the model of this server to use",
    )
    parser.add_argument(
        "--alarm-folder",
        type=Path,
        metavar="DIR",
        help="existing folder in which alarms may write files (default: none)",
    )
    parser.add_argument(
        "--alarm-host",
        action="append",
        default=[],
        metavar="HOST",
        help="a host at which alarms may reach webhooks and brokers, beside those of this "
        "machine's local networks; may be given several times",
    )
    parser.add_argument(
        "--alarm-action",
        action="append",
        default=[],
        metavar="NAME=MODULE:FUNCTION",
        help="what alarms may run by that name; may be given several times",
    )


def fleet_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """Settings of `edgefleet_runtime.config.NodeConfig` from those options."""
    options = pairs(arguments.option, "-o")
    given = {
        "fleet": arguments.fleet or _channel(arguments.channel).fleet_of(options),
        "store_max_bytes": arguments.store_max_bytes,
        "spool_max_bytes": arguments.spool_max_bytes,
        "memory_max_bytes": arguments.memory_max_bytes,
        "fetch_max_bytes_per_s": arguments.fetch_max_bytes_per_s,
        "metered": arguments.metered and _metered(arguments.metered),
        "external": arguments.external,
        "external_repository": arguments.external_repository,
        "external_model": arguments.external_model,
    }
    return {
        **{name: value for name, value in given.items() if value is not None},
        "root": arguments.root.absolute(),
        "device": arguments.device or _own_device(arguments.channel, options),
        "channel": arguments.channel,
        "channel_options": options,
        "actions": {
            "folder": arguments.alarm_folder and arguments.alarm_folder.absolute(),
            "hosts": tuple(arguments.alarm_host),
            "registered": pairs(arguments.alarm_action, "--alarm-action"),
        },
        "labels": {**_given_labels(), **pairs(arguments.label, "--label")},
    }


def _metered(given: str) -> str:
    from edgefleet_runtime.sync.when import ALWAYS

    return given if given in ALWAYS else str(Path(given).absolute())


def _channel(name: str) -> type[Channel]:
    from edgefleet_runtime.channels.discovery import channel_named

    return channel_named(name)


def _own_device(channel: str, options: Mapping[str, str]) -> str:
    """The device's name as its agent or its identity tells it."""
    found = _channel(channel).device_of(options)
    if found is None:
        raise InvalidInputError(
            f"the channel {channel} finds no name of this device here",
            cure="give it with --device NAME",
        )
    return found


def _given_labels() -> dict[str, str]:
    """Labels from the machine's own environment: the recipe of a fleet is the same for all."""
    text = os.environ.get(LABELS_VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not (isinstance(found, dict) and all(isinstance(one, str) for one in found.values())):
        raise InvalidInputError(
            f"{LABELS_VARIABLE} is no JSON object of texts",
            cure="""write it like '{"target": "jetson-orin"}'""",
        )
    return found
