"""What the operator's deployment tells a device, in the configuration of `COMPONENT`.

That component is empty: only its configuration matters, so that a new pointer never touches the
runtime's own component, which a nucleus would restart for it.
"""

from __future__ import annotations

import msgspec

from edgefleet.errors import DocumentError
from edgefleet.protocol.typed import convert

COMPONENT = "edgefleet.Release"
SHADOW = "edgefleet"
"""Name of the shadow that holds the device's report."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The configuration of `COMPONENT`.

    Attributes:
        pointer: the pointer's document; empty before the first.
        bucket: that holds the fleet's blobs and takes its segments.
        prefix: below which everything of the fleet lies there.
        region: of the bucket.
        endpoint: of an S3 store that isn't AWS's own; empty for AWS.
        hot_topic: on which alarms and health events go out; ``{thing}`` stands for the device.
    """

    pointer: str = ""
    bucket: str = ""
    prefix: str = ""
    region: str = ""
    endpoint: str = ""
    hot_topic: str = ""


def read_settings(configuration: object) -> Settings:
    """The settings in a component's configuration; keys that are unknown here are passed over.

    Raises:
        DocumentError: a value is of a wrong type.
    """
    try:
        return convert(configuration, Settings)
    except msgspec.ValidationError as error:
        raise DocumentError(
            f"the configuration of {COMPONENT} makes no sense: {error}",
            cure="publish to the group again with edgefleet",
        ) from error
