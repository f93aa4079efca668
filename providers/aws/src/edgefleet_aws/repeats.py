"""Whether a call to AWS that boto3 repeated may have been done at an earlier try.

boto3 tells how often it tried, and not why: what was throttled was not done.
"""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError

_MAYBE_DONE = "edgefleet_maybe_done"


def note_tries(client: Any, operation: str) -> None:  # noqa: ANN401 - botocore has no types
    """Have the errors of an operation's later tries say what became of the earlier ones.

    Args:
        client: of boto3's.
        operation: such as ``DeleteObject``.
    """
    service = client.meta.service_model.service_id.hyphenize()
    client.meta.events.register(f"needs-retry.{service}.{operation}", _note)


def maybe_done_before(error: Exception) -> bool:
    """Whether a call of an operation of `note_tries` may have been done before it was refused."""
    return isinstance(error, ClientError) and _MAYBE_DONE in error.response["ResponseMetadata"]


def _note(
    request_dict: dict[str, Any],
    response: tuple[Any, dict[str, Any]] | None,
    caught_exception: Exception | None,
    **_: object,
) -> None:
    context = request_dict["context"]
    if response is None:
        if not isinstance(caught_exception, ConnectTimeoutError | EndpointConnectionError):
            context[_MAYBE_DONE] = True
        return
    told = response[1]
    if _MAYBE_DONE in context:
        told["ResponseMetadata"][_MAYBE_DONE] = True
    code = told.get("Error", {}).get("Code")
    if told["ResponseMetadata"]["HTTPStatusCode"] >= 500 and code != "SlowDown":
        context[_MAYBE_DONE] = True
