"""Lists that a registry gives in pages, each with a link to the next (RFC 8288).

distribution-spec 1.1, "Listing Tags" and "Listing Referrers". A list that leads back to where it
was, or that has more than `MAX_PAGES`, is an error: whoever follows it would never come to an end.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urljoin

from edgefleet.errors import UnavailableError
from edgefleet.protocol.typed import UNREADABLE, convert, decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MAX_PAGES = 10_000  # registries put 100 to 1,000 on each
_T = TypeVar("_T")
_NEXT = re.compile(r'<([^>]+)>\s*;\s*rel="?next"?')


def in_pages(
    ask: Callable[[str], tuple[bytes, str]], url: str, field: str, kind: type[_T], *, where: str
) -> Iterator[_T]:
    """What the pages of a list hold, in order.

    Args:
        ask: gets a page by its URL, and its header ``Link``, which may be empty.
        url: of the first page.
        field: of each page, that has what the list is of.
        kind: type of what it is of.
        where: names the list in errors.

    Raises:
        UnavailableError: the list doesn't end, or is none.
    """
    seen: set[str] = set()
    following: str | None = url
    while following is not None:
        if following in seen or len(seen) == MAX_PAGES:
            raise UnavailableError(f"{where}: the registry's list doesn't end", retryable=False)
        seen.add(following)
        data, links = ask(following)
        yield from held(data, field, kind, where=where)
        link = _NEXT.search(links)
        following = None if link is None else urljoin(following, link[1])


def held(data: bytes, field: str, kind: type[_T], *, where: str) -> list[_T]:
    """The list that a registry's answer has in a field; arguments and errors as of `in_pages`."""
    kinds = list.__class_getitem__(kind)  # list[kind], for which a type checker wants a type
    try:
        found: list[_T] = convert(decoder(dict[str, Any]).decode(data).get(field) or [], kinds)
    except UNREADABLE as error:
        told = f"{where}: the registry's answer is no list"
        raise UnavailableError(told, retryable=False) from error
    return found
