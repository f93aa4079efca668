"""Hot events posted to a server: as many at once as it takes, and none that holds up the others.

What a server refuses for what it is, it would refuse for ever, and all that come after it would
wait. So a batch that it refuses is halved until the event is found that it doesn't take, which is
dropped.
"""

from __future__ import annotations

import http.client
import logging
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from edgefleet.errors import UnavailableError
from edgefleet_runtime.store.http import TIMEOUT_S, cause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgefleet.errors import EdgeFleetError

_log = logging.getLogger(__name__)


def batches(
    events: Sequence[bytes], *, max_bytes: int, most: int | None = None
) -> list[list[bytes]]:
    """Encoded events in batches; one that is longer is alone in its own.

    Args:
        events: in order.
        max_bytes: of a batch, with a byte between two events.
        most: events of a batch; None for any number.
    """
    found: list[list[bytes]] = []
    room = 0
    for data in events:
        if not found or len(data) + 1 > room or len(found[-1]) == most:
            found.append([])
            room = max_bytes
        found[-1].append(data)
        room -= len(data) + 1
    return found


class Posts:
    """Posts batches to one address.

    Args:
        opener: sends requests; it should follow no redirect.
        request: of a batch.
        malformed: statuses of answers that refuse a batch for what it is.
        refused: what another refusal means, by the answer and where it came from.
    """

    def __init__(
        self,
        opener: urllib.request.OpenerDirector,
        request: Callable[[Sequence[bytes]], urllib.request.Request],
        *,
        malformed: frozenset[int],
        refused: Callable[[urllib.error.HTTPError, str], EdgeFleetError],
    ) -> None:
        self._opener, self._request = opener, request
        self._malformed, self._refused = malformed, refused

    def post(self, batch: Sequence[bytes], where: str) -> None:
        """Have a batch taken, but for what the server will never take; ``where`` is for errors.

        Raises:
            EdgeFleetError: it is to be sent again; some of it may have been taken.
        """
        request = self._request(batch)
        try:
            with self._opener.open(request, timeout=TIMEOUT_S):
                return
        except urllib.error.HTTPError as error:
            with error:
                if error.code not in self._malformed:
                    raise self._refused(error, where) from error
        except (OSError, http.client.HTTPException) as error:
            said = f"events can't be sent to {where}: {cause_of(error)}"
            raise UnavailableError(said) from error
        if len(batch) == 1:
            _log.warning("a hot event of %d bytes is dropped: %s refuses it", len(batch[0]), where)
            return
        self.post(batch[: len(batch) // 2], where)
        self.post(batch[len(batch) // 2 :], where)
