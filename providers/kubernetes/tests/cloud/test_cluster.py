"""What a cluster's API server answers by itself, and what it carries back from a pod."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

import httpx2
import pytest
from lightkube import ApiError

from edgefleet_kubernetes.cluster import Cluster
from edgefleet_kubernetes.errors import reason_of

if TYPE_CHECKING:
    from edgefleet.interfaces.abilities import Reply
    from edgefleet_kubernetes.clients import Clients

STATUS = {"apiVersion": "v1", "kind": "Status", "code": 503, "reason": "ServiceUnavailable"}


def asked(body: object, code: int = 503) -> Reply:
    """What `Cluster.ask` gives of an answer on the way to a pod."""

    class Answering:
        def http(self, _context: str) -> httpx2.Client:
            transport = httpx2.MockTransport(lambda _: httpx2.Response(code, json=body))
            return httpx2.Client(transport=transport, base_url="https://cluster")

    cluster = Cluster(cast("Clients", Answering()), "factory")
    return cluster.ask("proxy/v2", body=None, headers={}, timeout_s=1.0)


def test_what_the_api_server_refuses_by_itself_is_told_in_its_words() -> None:
    with pytest.raises(ApiError) as caught:
        asked(STATUS)
    assert reason_of(caught.value) == "ServiceUnavailable"


@pytest.mark.parametrize(
    "more",
    [{"code": "none"}, {"message": 5}, {"details": []}, {"apiVersion": []}, {"kind": "Pod"}],
    ids=str,
)
def test_what_only_looks_like_a_refusal_is_the_pods_answer(more: dict[str, Any]) -> None:
    body = {**STATUS, **more}
    reply = asked(body)
    assert (reply.status, json.loads(reply.body)) == (503, body)


def test_a_pod_may_answer_well_with_what_looks_like_a_refusal() -> None:
    assert asked(STATUS, 200).status == 200
