"""A folder of wheels: what is in it, and whether it is all that a requirement needs on a target.

pip resolves; this checks what pip chose. For another machine than its own, pip reads environment
markers as if that were this one (pypa/pip#11664), so it may leave out what a device needs.
"""

from __future__ import annotations

import hashlib
import zipfile
from email.parser import HeaderParser
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConfigurationError, IntegrityError
from edgefleet.runtime_archive.target import TagOrder, Target, need_packaging

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from packaging.requirements import Requirement
    from packaging.tags import Tag
    from packaging.utils import NormalizedName
    from packaging.version import Version

RUNTIME = "edgefleet-runtime"
MAX_METADATA_BYTES = 4 << 20


class Wheel(NamedTuple):
    """One wheel.

    Attributes:
        path: where it lies.
        name: of its distribution, normalized.
        version: of it.
        tags: what it fits.
    """

    path: Path
    name: NormalizedName
    version: Version
    tags: frozenset[Tag]

    @classmethod
    def at(cls, path: Path) -> Wheel:
        """The wheel in a file.

        Raises:
            IntegrityError: its name isn't one of a wheel.
        """
        from packaging.utils import InvalidWheelFilename, parse_wheel_filename  # noqa: PLC0415

        try:
            name, version, _, tags = parse_wheel_filename(path.name)
        except InvalidWheelFilename as error:
            raise IntegrityError(f"{path} isn't named like a wheel", cure="remove it") from error
        return cls(path, name, version, tags)

    def digest(self) -> str:
        """SHA-256 of the file, in hexadecimal."""
        with self.path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def needs(self) -> list[Requirement]:
        """What it declares to need, with the markers under which.

        Raises:
            IntegrityError: it holds no metadata that can be read.
        """
        from packaging.requirements import InvalidRequirement, Requirement  # noqa: PLC0415

        try:
            with zipfile.ZipFile(self.path) as opened:
                inner = [
                    info
                    for info in opened.infolist()
                    if info.filename.count("/") == 1
                    and info.filename.endswith(".dist-info/METADATA")
                ]
                if len(inner) != 1 or inner[0].file_size > MAX_METADATA_BYTES:
                    raise IntegrityError(f"{self.path} is no wheel", cure="fetch it again")
                text = opened.read(inner[0]).decode()
            found = HeaderParser().parsestr(text).get_all("Requires-Dist", [])
            return [Requirement(str(one)) for one in found]
        except (zipfile.BadZipFile, UnicodeDecodeError, InvalidRequirement, OSError) as error:
            raise IntegrityError(
                f"{self.path} can't be read as a wheel: {error}", cure="fetch it again"
            ) from error


class Closure(NamedTuple):
    """What some requirements come to on a target.

    Attributes:
        wheels: those needed, by name.
        missing: requirements that no wheel meets.
    """

    wheels: dict[str, Wheel]
    missing: tuple[Requirement, ...]


def wheels_in(folder: Path) -> list[Wheel]:
    """The wheels of a folder, by file name.

    Raises:
        ConfigurationError: it isn't there.
        IntegrityError: one isn't named like a wheel.
    """
    need_packaging()
    if not folder.is_dir():
        raise ConfigurationError(f"there is no folder {folder}", cure="name a folder of wheels")
    return [Wheel.at(path) for path in sorted(folder.glob("*.whl"))]


def closure(wheels: Iterable[Wheel], wanted: Sequence[str], target: Target) -> Closure:
    """What of some wheels is needed on a target, and what lacks.

    Args:
        wheels: those to choose from. Of several versions that do, the newest is taken.
        wanted: requirements as pip takes them, such as ``edgefleet-runtime[cpu]``.
        target: where they are to be installed.
    """
    from packaging.requirements import Requirement  # noqa: PLC0415 - the extra
    from packaging.utils import canonicalize_name  # noqa: PLC0415

    order = TagOrder(target)
    fitting: dict[str, list[tuple[Version, int, Wheel]]] = {}
    for wheel in wheels:
        rank = order.of(wheel.tags)
        if rank is not None:
            fitting.setdefault(wheel.name, []).append((wheel.version, -rank, wheel))
    for found in fitting.values():
        found.sort(key=lambda one: one[:2], reverse=True)
    chosen: dict[str, Wheel] = {}
    missing: dict[str, Requirement] = {}
    waiting = [Requirement(one) for one in wanted]
    seen: set[tuple[str, frozenset[str], str]] = set()
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        key = (name, frozenset(need.extras), str(need.specifier))
        if key in seen:
            continue
        seen.add(key)
        have = [one for one in fitting.get(name, ()) if need.specifier.contains(one[0], True)]
        if not have:
            missing[str(need)] = need
            continue
        wheel = chosen.setdefault(name, have[0][2])
        if not need.specifier.contains(wheel.version, True):
            missing[str(need)] = need
            continue
        extras = ("", *need.extras)
        for one in wheel.needs():
            marker = one.marker
            if marker is None or any(
                marker.evaluate({**target.markers(), "extra": extra}) for extra in extras
            ):
                one.marker = None
                waiting.append(one)
    return Closure(dict(sorted(chosen.items())), tuple(missing.values()))


def check_some_target(folder: Path, wanted: str) -> list[Wheel]:
    """The wheels of a folder that is all that a requirement needs, on one kind of device at least.

    Raises:
        ConfigurationError: something lacks on every kind of device.
        IntegrityError: a wheel can't be read.
    """
    from edgefleet.runtime_archive.target import PLATFORMS, PYTHONS  # noqa: PLC0415

    wheels = wheels_in(folder)
    cure = f"fill it with: pip wheel -w {folder} '{wanted}'"
    if not any(wheel.name == RUNTIME for wheel in wheels):
        raise ConfigurationError(f"{folder} holds no wheel of the runtime", cure=cure)
    # Whatever its C library: the folder was filled for devices that somebody knows.
    targets = [Target(one, python, "2.99") for one in PLATFORMS for python in PYTHONS]
    found = [(closure(wheels, [wanted], target), target) for target in targets]
    best, target = min(found, key=lambda one: len(one[0].missing))
    if best.missing:
        raise ConfigurationError(
            f"{folder} lacks {', '.join(map(str, best.missing))} for {target.platform} with "
            f"Python {target.python}",
            cure=cure,
        )
    return wheels
