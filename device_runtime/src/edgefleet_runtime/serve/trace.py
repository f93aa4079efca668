"""W3C Trace Context: which trace a request belongs to. Pure.

https://www.w3.org/TR/trace-context/. Rules kept here:

- A header that isn't valid is as good as none (4.3, step 3); no request fails for it.
- No span is recorded here, so none is invented: what came is what goes on (4.3, "pass through").
- Of a version that isn't known yet, the part that every version has is read, and called version 00.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet_runtime.serve.messages import Response

HEADER = "traceparent"
_PARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})"
    rb"-(?P<fields>(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2})(?P<more>-.*)?"
)


def trace_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The ``traceparent`` of a request with these headers, as version 00 writes it."""
    given = headers.get(b"traceparent")
    if given is None:
        return None
    found = _PARENT.fullmatch(given.strip(b" \t"))
    if found is None or (found["version"] == b"00" and found["more"] is not None):
        return None
    return f"00-{found['fields'].decode()}"


def traced(response: Response, trace: str | None) -> Response:
    """The answer, which names the request's trace if there is one."""
    if trace is not None:
        response.headers = (*response.headers, (HEADER, trace))
    return response
