"""What a device is like, as far as wheels care: its machine, its C library, its Python."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    from packaging.tags import Tag

PLATFORMS = ("linux-x86_64", "linux-aarch64")
EXTRAS = ("cpu", "drift", "pull", "rules")
"""Of the runtime, on a plain Linux device, where nothing else is said."""
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = "2.31"  # of Debian 11 and Ubuntu 20.04; what is newer takes these wheels too

_LEGACY = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}  # PEP 600
_OLDEST = {"x86_64": 5, "aarch64": 17}  # the first manylinux of each
_GLIBC_TAG = re.compile(r"manylinux_2_(\d+)_")


def need_packaging() -> None:
    """Check that the library which reads wheels' names and needs is here.

    Raises:
        MissingExtraError: it isn't.
    """
    try:
        import packaging  # noqa: F401, PLC0415 - the extra
    except ImportError as error:
        raise MissingExtraError(
            "archives of the runtime need packaging",
            cure="install it with: pip install 'edgefleet[archive]'",
        ) from error


class Target(NamedTuple):
    """One kind of device.

    Attributes:
        platform: one of `PLATFORMS`.
        python: such as ``3.11``; CPython.
        glibc: the oldest that such a device has, such as ``2.31``.
    """

    platform: str
    python: str
    glibc: str = GLIBC

    @classmethod
    def checked(cls, platform: str, python: str, glibc: str) -> Target:
        """A target that exists.

        Raises:
            InvalidInputError: there is none of that platform, Python or C library.
        """
        if platform not in PLATFORMS:
            raise InvalidInputError(
                f"no such platform: {platform!r}", cure=f"name one of {', '.join(PLATFORMS)}"
            )
        if python not in PYTHONS:
            raise InvalidInputError(
                f"the runtime has no Python {python!r}", cure=f"name one of {', '.join(PYTHONS)}"
            )
        if not re.fullmatch(r"2\.\d{1,2}", glibc) or int(glibc[2:]) < _OLDEST["aarch64"]:
            raise InvalidInputError(
                f"no version of glibc that wheels are made for: {glibc!r}",
                cure="name one from 2.17 on; `ldd --version` tells it on a device",
            )
        return cls(platform, python, glibc)

    @property
    def machine(self) -> str:
        """As ``uname -m`` tells it."""
        return self.platform.partition("-")[2]

    @property
    def platforms(self) -> list[str]:
        """Platform tags of the wheels that it takes, the newest first."""
        found = []
        for minor in range(int(self.glibc.partition(".")[2]), _OLDEST[self.machine] - 1, -1):
            found.append(f"manylinux_2_{minor}_{self.machine}")
            if minor in _LEGACY:
                found.append(f"{_LEGACY[minor]}_{self.machine}")
        return [*found, f"linux_{self.machine}"]

    def tags(self) -> list[Tag]:
        """Tags of the wheels that it takes, the best first."""
        from packaging.tags import compatible_tags, cpython_tags  # noqa: PLC0415 - the extra

        version = tuple(int(part) for part in self.python.split("."))
        interpreter = "cp" + self.python.replace(".", "")
        return [
            *cpython_tags(version, abis=[interpreter], platforms=self.platforms),
            *compatible_tags(version, interpreter, self.platforms),
        ]

    def markers(self) -> dict[str, str]:
        """What environment markers see there (PEP 508)."""
        return {
            "implementation_name": "cpython",
            "implementation_version": f"{self.python}.0",
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": f"{self.python}.0",
            "python_version": self.python,
            "sys_platform": "linux",
        }

    def __str__(self) -> str:
        return f"{self.platform}, Python {self.python}, glibc {self.glibc}"


class TagOrder:
    """Which of several wheels fits a target best."""

    def __init__(self, target: Target) -> None:
        self._order = {tag: number for number, tag in enumerate(target.tags())}

    def of(self, tags: frozenset[Tag]) -> int | None:
        """The rank of a wheel, 0 the best; None for one that doesn't fit."""
        return min((self._order[tag] for tag in tags if tag in self._order), default=None)

    def glibc_of(self, tags: frozenset[Tag]) -> int:
        """The minor version of the oldest glibc that a fitting wheel is content with; 0 for any."""
        found = {tag.platform for tag in tags if tag in self._order}
        if found & {"any"} or any(platform.startswith("linux_") for platform in found):
            return 0
        legacy = {name: minor for minor, name in _LEGACY.items()}
        minors = [legacy.get(platform.partition("_")[0], 0) for platform in found]
        minors += [int(one[1]) for one in map(_GLIBC_TAG.match, found) if one]
        return min((minor for minor in minors if minor), default=0)
