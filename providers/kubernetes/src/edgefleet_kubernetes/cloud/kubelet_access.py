"""What the API server has from nodes: logs of pods, and what pods answer to requests."""

from __future__ import annotations

import http.client
from collections import deque
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from edgefleet_kubernetes.cloud.api_calls import Passed
from edgefleet_kubernetes.cloud.api_status import Refused, bad_request
from edgefleet_kubernetes.cloud.node_logs import stamp

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from edgefleet_kubernetes.cloud.api_calls import ApiCall, Target
    from edgefleet_kubernetes.cloud.api_objects import Object
    from edgefleet_kubernetes.cloud.node_cluster import Cluster

_BY_TIME = frozenset({"sinceSeconds", "sinceTime", "timestamps"})
PROXIED = ("create", "delete", "get", "patch", "update")
"""Verbs of requests that are passed on to pods."""
MOST_BYTES = 64 << 20  # of a request's body, and of an answer
PROXY_S = 60.0
_OWN = ("authorization", "connection", "content-length", "host", "transfer-encoding")
"""Headers that are not passed on: apiserver's ``proxy.NewUpgradeAwareHandler`` drops them."""


class PodAccess:
    """Answers requests that are passed on to a pod's node.

    Args:
        nodes: of the cluster.
    """

    def __init__(self, nodes: Cluster) -> None:
        self._nodes = nodes

    def log(self, call: ApiCall, target: Target) -> Iterator[bytes]:
        """What a container has printed, and prints where it is followed.

        Raises:
            Refused: it hasn't begun, or times of lines are asked for while it is followed.
        """
        query = call.query
        where = target.namespace, target.name, query.get("container", "")
        chosen = sorted(_BY_TIME & {key for key in query if query[key] != "false"})
        limit = query.get("limitBytes")
        parts: Iterable[bytes]
        if call.flag("follow"):
            if chosen:
                raise bad_request(f"the mock follows no log by times of lines: {', '.join(chosen)}")
            parts = self._nodes.follow_log(*where)
        else:
            previous = call.flag("previous")
            if chosen:
                lines = self._nodes.timed_log(*where, previous=previous)
                parts = _by_time(lines, query, stamped=call.flag("timestamps"))
            else:
                parts = self._nodes.log(*where, previous=previous)
            if "tailLines" in query:
                parts = _last(parts, int(query["tailLines"]))
        return iter(parts) if limit is None else _first(parts, int(limit))

    def proxy(self, call: ApiCall, target: Target) -> Passed:
        """What a pod answers to a request; the name may say the port: ``POD:8080``.

        Raises:
            Refused: there is no such pod (404), or nobody answers (503).
        """
        name, _, port = target.name.partition(":")
        pod = self._nodes.pod(target.namespace, name)
        host = (pod.get("status") or {}).get("podIP")
        number = int(port) if port.isdecimal() else _first_port(pod)
        if not host or not self._nodes.answers(pod):
            raise _unreachable(f"dial tcp {host or name}:{number}: connect: no route to host")
        query = f"?{urlencode(call.query)}" if call.query else ""
        headers = {key: value for key, value in call.headers.items() if key not in _OWN}
        body = call.body(MOST_BYTES)
        connection = http.client.HTTPConnection(host, number, timeout=PROXY_S)
        try:
            path = (target.rest or "/") + query
            connection.request(call.method, path, body=body or None, headers=headers)
            answer = connection.getresponse()
            data = answer.read(MOST_BYTES)
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(f"dial tcp {host}:{number}: {error}") from error
        finally:
            connection.close()
        given = [(key, value) for key, value in answer.getheaders() if key.lower() not in _OWN]
        return Passed(answer.status, given, data)


def _by_time(
    lines: Iterable[tuple[datetime, bytes]], query: Mapping[str, str], *, stamped: bool
) -> Iterator[bytes]:
    """Lines since some time, each behind its own where that is asked for."""
    since = datetime.min.replace(tzinfo=UTC)
    if "sinceSeconds" in query:
        since = datetime.now(UTC) - timedelta(seconds=int(query["sinceSeconds"]))
    elif "sinceTime" in query:
        since = datetime.fromisoformat(query["sinceTime"])
    for when, line in lines:
        if when >= since:
            yield stamp(when) + line if stamped else line


def _first_port(pod: Object) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            found: int = port["containerPort"]
            return found
    return 80


def _unreachable(why: str) -> Refused:
    return Refused(503, "ServiceUnavailable", f"error trying to reach service: {why}")


def _last(parts: Iterable[bytes], lines: int) -> Iterator[bytes]:
    """The last lines of a text."""
    kept: deque[bytes] = deque(maxlen=max(0, lines))
    rest = b""
    for part in parts:
        *whole, rest = (rest + part).split(b"\n")
        kept.extend(line + b"\n" for line in whole)
    if rest:
        kept.append(rest)
    yield from kept


def _first(parts: Iterable[bytes], limit: int) -> Iterator[bytes]:
    """The first bytes of a text."""
    for part in parts:
        if len(part) >= limit:
            yield part[:limit]
            return
        limit -= len(part)
        yield part
