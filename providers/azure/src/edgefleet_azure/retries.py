"""When a call to Azure is repeated, and after how long: one rule for each of its libraries.

Rules kept here:

- Waits are those of `PAUSES`, ``Retry-After`` is honoured as `edgefleet.interfaces.retrying` says.
- A call that may not be done twice (POST, PATCH) is repeated only when it was refused undone: 429,
  or an answer with ``Retry-After``. Who deletes a blob by its tag looks whether it was done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from azure.core.exceptions import ServiceRequestError
from azure.core.pipeline.policies import RetryPolicy
from azure.storage.blob import LocationMode
from urllib3.util import Retry

from edgefleet.interfaces.retrying import PASSING, Pauses

if TYPE_CHECKING:
    from azure.core.pipeline import PipelineRequest, PipelineResponse
    from azure.core.pipeline.policies import RequestHistory

PAUSES = Pauses(first_s=0.5, most_s=20.0, longest_told_s=120.0)
_MAYBE_DONE = "edgefleet_maybe_done"


class Retries(RetryPolicy[Any, Any]):
    """For libraries on azure-core.

    Args:
        attempts: tries of each call, the first included.
    """

    def __init__(self, attempts: int) -> None:
        again = attempts - 1
        super().__init__(
            retry_total=again, retry_connect=again, retry_read=again, retry_status=again
        )

    def get_backoff_time(self, settings: dict[str, Any]) -> float:
        return PAUSES.backoff_s(len(settings["history"]))

    def is_retry(self, settings: dict[str, Any], response: PipelineResponse[Any, Any]) -> bool:
        if PAUSES.is_too_long(self.get_retry_after(response)):
            return False
        return super().is_retry(settings, response)


class BlobRetries(Retries):
    """For azure-storage-blob, whose own rule knows neither 429 nor ``Retry-After``.

    It speaks of a second location with its rule, which is told that there is none.
    """

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Send a request until it is answered, or no try is left."""
        for option in ("hosts", "location_mode", "retry_hook", "retry_to_secondary"):
            request.context.options.pop(option, None)
        response = super().send(request)
        response.http_response.location_mode = LocationMode.PRIMARY
        if any(_maybe_done(tried) for tried in response.context.get("history", ())):
            setattr(response.http_response, _MAYBE_DONE, True)
        return response


def maybe_done_before(error: Exception) -> bool:
    """Whether a call to storage was repeated that may have been done at an earlier try."""
    return hasattr(getattr(error, "response", None), _MAYBE_DONE)


def _maybe_done(tried: RequestHistory[Any, Any]) -> bool:
    if tried.http_response is None:
        return not isinstance(tried.error, ServiceRequestError)  # whose connection never stood
    answer = tried.http_response
    return answer.status_code != 429 and "Retry-After" not in answer.headers


class HubRetries(Retry):
    """For azure-iot-hub, which is on requests and urllib3."""

    @classmethod
    def of(cls, attempts: int) -> HubRetries:
        """With so many tries, the first included."""
        return cls(
            total=attempts - 1,
            status_forcelist=PASSING,
            backoff_max=PAUSES.most_s,
            raise_on_status=False,
        )

    def get_backoff_time(self) -> float:
        return PAUSES.backoff_s(len(self.history))

    def is_retry(self, method: str, status_code: int, has_retry_after: bool = False) -> bool:  # noqa: FBT001, FBT002 - urllib3's
        return status_code == 429 or super().is_retry(method, status_code, has_retry_after)
