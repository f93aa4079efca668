"""Images on a node: pulled from a registry of known names, or not, with the kubelet's words.

Reasons and messages are those of ``pkg/kubelet/images/image_manager.go`` of kubernetes/kubernetes
and of containerd. Who pulls with a secret isn't looked at.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.kubelet_environment import Image

PULL, BACK_OFF, NEVER = "ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"


class Missing(NamedTuple):
    """An image that isn't there.

    Attributes:
        reason: of the container's waiting.
        message: of it.
        wait_s: until it is worth another try.
    """

    reason: str
    message: str
    wait_s: float


class NodeImages:
    """The images of one node.

    Args:
        registry: every image that can be pulled; may change.
        backoff_s: the first pause after a pull that failed; it doubles.
        longest_s: the longest pause.
        reachable: whether the registry can be reached.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        registry: Mapping[str, Image],
        *,
        backoff_s: float,
        longest_s: float,
        reachable: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._registry, self._reachable, self._clock = registry, reachable, clock
        self._backoff_s, self._longest_s = backoff_s, longest_s
        self._here: dict[str, Image] = {}
        self._waits: dict[tuple[str, str], tuple[float, float]] = {}

    def names(self) -> list[str]:
        """Images that are on the node."""
        return sorted(self._here)

    def get(
        self, container: Object, uid: str, tell: Callable[[str, str, bool], None]
    ) -> Image | Missing:
        """A container's image, pulled where that is to be.

        Args:
            container: whose image it is.
            uid: of the pod: pauses are a pod's own.
            tell: of an Event: reason, message, whether it warns.
        """
        name, policy = str(container["image"]), str(container["imagePullPolicy"])
        if name in self._here and policy != "Always":
            tell("Pulled", f'Container image "{name}" already present on machine', False)
            return self._here[name]
        if policy == "Never":
            message = f'Container image "{name}" is not present with pull policy of Never'
            tell(NEVER, message, True)
            tell("Failed", f"Error: {NEVER}", True)
            return Missing(NEVER, message, self._longest_s)
        due, pause = self._waits.get((uid, name), (0.0, 0.0))
        now = self._clock()
        if now < due:
            message = f'Back-off pulling image "{name}"'
            tell("BackOff", message, False)
            tell("Failed", f"Error: {BACK_OFF}", True)
            return Missing(BACK_OFF, message, due - now)
        return self._pull(name, uid, pause, tell)

    def _pull(
        self, name: str, uid: str, pause: float, tell: Callable[[str, str, bool], None]
    ) -> Image | Missing:
        tell("Pulling", f'Pulling image "{name}"', False)
        if self._reachable() and name in self._registry:
            self._waits.pop((uid, name), None)
            self._here[name] = self._registry[name]
            tell("Pulled", f'Successfully pulled image "{name}"', False)
            return self._here[name]
        start = f'failed to pull and unpack image "{name}": failed to resolve reference "{name}"'
        why = (
            f"code = NotFound desc = {start}: {name}: not found"
            if self._reachable()
            else f"code = Unavailable desc = {start}: failed to do request: network is unreachable"
        )
        message = f"rpc error: {why}"
        tell("Failed", f'Failed to pull image "{name}": {message}', True)
        tell("Failed", f"Error: {PULL}", True)
        pause = min(max(pause * 2, self._backoff_s), self._longest_s)
        self._waits[uid, name] = (self._clock() + pause, pause)
        return Missing(PULL, message, 0.0)
