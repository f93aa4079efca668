"""Service accounts in the mock of Google Cloud, and what they may do.

A binding gives permissions on a resource, or on what lies below a folder of a bucket's objects: the
one condition that the mock knows
(https://cloud.google.com/storage/docs/access-control/iam#conditions).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

EVERYTHING = "*"


class Binding(NamedTuple):
    """Permissions somewhere.

    Attributes:
        resource: full name; an object's lies below its bucket's. ``*`` is everything.
        permissions: that it gives; ``*`` is every one.
        below: start of the names of objects that it is for; None for all.
    """

    resource: str
    permissions: tuple[str, ...]
    below: str | None = None

    def gives(self, permission: str, resource: str) -> bool:
        """Whether it gives a permission on a resource."""
        if EVERYTHING not in self.permissions and permission not in self.permissions:
            return False
        if self.below is not None:
            return resource.startswith(self.below)
        return self.resource == EVERYTHING or f"{resource}/".startswith(f"{self.resource}/")


@dataclass
class Account:
    """A service account.

    Attributes:
        email: of it.
        bindings: what it may.
        asked: permissions that its requests needed so far, given or not.
        public_key: PEM that its key files' signatures are checked with; empty without one.
    """

    email: str
    bindings: list[Binding] = field(default_factory=list)
    asked: set[str] = field(default_factory=set)
    public_key: str = ""

    def may(self, permission: str, resource: str) -> bool:
        """Whether it may."""
        self.asked.add(permission)
        return self.has(permission, resource)

    def has(self, permission: str, resource: str) -> bool:
        """Whether it may; asking isn't noted."""
        return any(binding.gives(permission, resource) for binding in self.bindings)
