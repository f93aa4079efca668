"""A registry's lists in pages: followed to their end, and no further than there is one."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable

import pytest

from edgefleet.errors import UnavailableError
from edgefleet_kubernetes.oci_pages import MAX_PAGES, in_pages

FIRST = "https://registry.plant/v2/models/tags/list"


class Pages:
    """Pages of one tag each, by the links that `following` gives for their numbers."""

    def __init__(self, following: Callable[[int], str | None]) -> None:
        self.asked: list[str] = []
        self._following = following

    def __call__(self, url: str) -> tuple[bytes, str]:
        link = self._following(len(self.asked))
        data = json.dumps({"tags": [f"t{len(self.asked)}"]}).encode()
        self.asked.append(url)
        return data, "" if link is None else f'<{link}>; rel="next"'


def tags(ask: Callable[[str], tuple[bytes, str]]) -> list[str]:
    return [*in_pages(ask, FIRST, "tags", str, where="registry.plant/models, tags")]


def test_pages_are_followed_to_the_last() -> None:
    pages = Pages(lambda number: f"/v2/models/tags/list?last=t{number}" if number < 2 else None)
    assert tags(pages) == ["t0", "t1", "t2"]
    assert pages.asked == [FIRST, f"{FIRST}?last=t0", f"{FIRST}?last=t1"]


@pytest.mark.parametrize("links", [[FIRST], ["list?last=a", "list?last=b"]], ids=["self", "ring"])
def test_a_link_that_leads_back_is_an_error(links: list[str]) -> None:
    around = itertools.cycle(links)
    pages = Pages(lambda _: next(around))
    with pytest.raises(UnavailableError, match=r"/models, tags: the .* end"):
        tags(pages)
    assert len(pages.asked) <= 1 + len(links)


def test_ever_more_pages_are_an_error() -> None:
    pages = Pages(lambda number: f"list?last={number}")
    with pytest.raises(UnavailableError, match="end") as caught:
        tags(pages)
    assert not caught.value.retryable
    assert len(pages.asked) == MAX_PAGES


@pytest.mark.parametrize(
    "data",
    [b"<html>", b"[]", b'{"tags": "all"}', b'{"tags": [1]}', b"\xff", b'{"tags":' + b"[" * 100_000],
    ids=["page", "list", "word", "numbers", "no text", "deep"],
)
def test_an_answer_that_is_no_list_is_told_so(data: bytes) -> None:
    with pytest.raises(UnavailableError, match="no list"):
        tags(lambda _: (data, ""))
