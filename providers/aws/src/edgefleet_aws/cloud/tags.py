"""Tags of thing groups, which moto takes and forgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from moto.iot.models import iot_backends

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.packages import ACCOUNT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_TAGS = 50  # of one resource; AWS's general limit


class Tags:
    """Tags by the ARN of what has them.

    Args:
        region: of the thing groups.
    """

    def __init__(self, region: str) -> None:
        self._region = region
        self._found: dict[str, dict[str, str]] = {}

    def clear(self) -> None:
        """Forget them all."""
        self._found.clear()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """All of them."""
        return self._found

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have these."""
        self._found.update(kept)

    def operations(self) -> dict[str, Any]:
        """The service's operations on tags."""
        return {"ListTagsForResource": self._list, "TagResource": self._tag}

    def created(self, name: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Note the tags that a new thing group is made with; one that is there keeps its own."""
        arn = f"arn:aws:iot:{self._region}:{ACCOUNT}:thinggroup/{name}"
        if arn not in iot_backends[ACCOUNT][self._region].thing_groups:
            self._found[arn] = {one["Key"]: one.get("Value", "") for one in tags}

    def _of(self, request: Mapping[str, Any]) -> dict[str, str]:
        arn = request["resourceArn"]
        if arn not in iot_backends[ACCOUNT][self._region].thing_groups:
            raise Fault("ResourceNotFoundException", f"no resource {arn}", 404)
        return self._found.setdefault(arn, {})

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        return {"tags": [{"Key": key, "Value": one} for key, one in self._of(request).items()]}

    def _tag(self, request: Mapping[str, Any]) -> None:
        there = self._of(request)
        there |= {one["Key"]: one.get("Value", "") for one in request["tags"]}
        if len(there) > MAX_TAGS:
            raise Fault("LimitExceededException", f"more than {MAX_TAGS} tags", 410)
