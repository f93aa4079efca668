"""Makes the archive that a device installs the runtime from, with no index and no compiler.

Rules kept here:

- the same wheels make the same bytes;
- the archive appears whole or not at all, whatever ends the process;
- every wheel is checked against what the others need on the target, not only by pip.
"""

from __future__ import annotations

import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import ConfigurationError, InvalidInputError
from edgefleet.interfaces.progress import Status
from edgefleet.protocol.digest import digest_of_file
from edgefleet.protocol.documents import encode
from edgefleet.runtime_archive import manifest as m
from edgefleet.runtime_archive.fetching import build_ours, download
from edgefleet.runtime_archive.packing import Member, pack_tar
from edgefleet.runtime_archive.target import EXTRAS, GLIBC, TagOrder, Target, need_packaging
from edgefleet.runtime_archive.wheelhouse import RUNTIME, Wheel, closure, wheels_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PYTHON = "3.11"
ROUNDS = 8  # of asking pip for what it left out; each finds something, or it ends

_HERE = Path(__file__).parent


class Built(NamedTuple):
    """An archive that was made.

    Attributes:
        path: where it lies.
        digest: of its bytes.
        size: in bytes.
        manifest: what it says of itself.
    """

    path: Path
    digest: str
    size: int
    manifest: m.Manifest

    def facts(self) -> dict[str, object]:
        """As JSON has it."""
        return {
            "path": str(self.path),
            "digest": self.digest,
            "size": self.size,
            "version": self.manifest.runtime,
            "platform": self.manifest.platform,
            "pythons": list(self.manifest.pythons),
            "glibc": self.manifest.glibc,
            "extras": list(self.manifest.extras),
            "more": list(self.manifest.more),
            "wheels": [wheel.file for wheel in self.manifest.wheels],
        }


def build(
    platform: str,
    *,
    extras: Sequence[str] = EXTRAS,
    more: Sequence[str] = (),
    pythons: Sequence[str] = (PYTHON,),
    glibc: str = GLIBC,
    wheels: Path | None = None,
    constraints: Path | None = None,
    output: Path = Path(),
) -> Built:
    """Make the archive of the runtime for one platform.

    Args:
        platform: ``linux-x86_64`` or ``linux-aarch64``.
        extras: of the runtime.
        more: further requirements, such as one build of onnxruntime for a board, as pip takes them.
        pythons: CPythons of the devices; the archive has wheels for each.
        glibc: the oldest C library of the devices; newer ones take the same wheels.
        wheels: folder of wheels, pip's among them; no index is asked then.
        constraints: file of versions to keep to, as pip has it.
        output: folder that the archive is put in, as
            ``edgefleet-runtime-<version>-<platform>.tar.gz``.

    Raises:
        ConfigurationError: there is no wheel of something for the platform.
        InvalidInputError: no such platform, Python or C library.
        UnavailableError: pip's index can't be reached.
    """
    need_packaging()
    if not pythons:
        raise InvalidInputError("an archive is for one Python at least", cure="--python 3.11")
    # In their own order: the archive's bytes don't depend on how they were given.
    targets = [
        Target.checked(platform, one, glibc)
        for one in sorted(
            set(pythons), key=lambda text: [int(n) for n in text.split(".") if n.isdecimal()]
        )
    ]
    extras, more = sorted(set(extras)), sorted(set(more))
    output = output.absolute()  # pip takes our own wheels by address, and that has no relative form
    output.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix=".edgefleet-runtime-", dir=output) as folder,
        Status(f"the runtime for {platform}: our own wheels") as status,
    ):
        scratch = Path(folder)
        source = _Source(wheels, constraints, {} if wheels else build_ours(scratch / "ours"))
        found = {}
        for target in targets:
            status.update(f"wheels for {target}")
            found[target] = _wheels(source, target, extras, more, scratch / target.python)
        status.update("packing")
        runtime = {str(each.wheels[RUNTIME].version) for each in found.values()}
        if len(runtime) != 1:
            raise ConfigurationError(
                f"no one version of the runtime is for every Python: {', '.join(sorted(runtime))}",
                cure="make an archive for each Python",
            )
        (version,) = runtime
        about = _manifest(version, platform, found, extras, more)
        part = scratch / "archive"
        pack_tar(_members(about, found), part)
        built = Built(
            output / f"{RUNTIME}-{version}-{platform}.tar.gz",
            *digest_of_file(part),
            about,
        )
        part.replace(built.path)
    return built


class _Source(NamedTuple):
    """Where wheels come from."""

    folder: Path | None
    constraints: Path | None
    ours: Mapping[str, Path]

    def wanted(self, extras: Sequence[str]) -> list[str]:
        """The runtime, as pip takes it."""
        runtime = f"{RUNTIME}[{','.join(extras)}]" if extras else RUNTIME
        given = {name: f" @ {path.as_uri()}" for name, path in self.ours.items()}
        return [
            runtime + given.get(RUNTIME, ""),
            *(name + uri for name, uri in given.items() if name != RUNTIME),
            "pip",
        ]

    @property
    def folders(self) -> list[Path]:
        return [] if self.folder is None else [self.folder]


class _Found(NamedTuple):
    """What one target installs."""

    wheels: dict[str, Wheel]
    installer: Wheel


def _wheels(
    source: _Source, target: Target, extras: Sequence[str], more: Sequence[str], to: Path
) -> _Found:
    """The wheels of a target, each needed by another, none missing."""
    runtime = f"{RUNTIME}[{','.join(extras)}]" if extras else RUNTIME
    left_out: list[str] = []
    for number in range(ROUNDS):
        folder = to / str(number)  # what an earlier round took may not go with what it left out
        download(
            [*source.wanted(extras), *more, *left_out],
            target,
            folder,
            given=source.folders,
            only_given=source.folder is not None,
            constraints=source.constraints,
        )
        wheels = wheels_in(folder)
        have = closure(wheels, [runtime, *map(_bare, more)], target)
        new = [str(one) for one in have.missing if str(one) not in left_out]
        if not have.missing:
            (installer,) = [wheel for wheel in wheels if wheel.name == "pip"]
            return _Found(have.wheels, installer)
        if not new:
            break
        left_out += new
    raise ConfigurationError(
        f"there is no wheel of {', '.join(left_out)} for {target}",
        cure="leave out the extra that needs it, or build the wheel and add it with --with FILE",
    )


def _bare(requirement: str) -> str:
    """A requirement without where it comes from: a path of a wheel as its name and version."""
    path = Path(requirement.partition("[")[0])
    if path.suffix == ".whl":
        wheel = Wheel.at(path)
        extras = requirement[len(str(path)) :] if "[" in requirement else ""
        return f"{wheel.name}{extras}=={wheel.version}"
    return requirement.partition(" @ ")[0]


def _manifest(
    version: str,
    platform: str,
    found: Mapping[Target, _Found],
    extras: Sequence[str],
    more: Sequence[str],
) -> m.Manifest:
    files: dict[str, m.WheelFile] = {}
    for target, each in found.items():
        for wheel in each.wheels.values():
            name = wheel.path.name
            before = files[name].pythons if name in files else ()
            files[name] = m.WheelFile(
                file=name,
                digest=f"sha256:{wheel.digest()}",
                size=wheel.path.stat().st_size,
                pythons=(*before, target.python),
            )
    glibc = max(
        TagOrder(target).glibc_of(wheel.tags)
        for target, each in found.items()
        for wheel in each.wheels.values()
    )
    return m.Manifest(
        runtime=version,
        platform="linux-x86_64" if platform == "linux-x86_64" else "linux-aarch64",
        pythons=tuple(target.python for target in found),
        glibc=f"2.{max(glibc, 17)}",
        extras=tuple(extras),
        more=tuple(map(_bare, more)),
        # Of the oldest Python, which newer ones of pip refuse.
        installer=next(iter(found.values())).installer.path.name,
        unpacked_bytes=max(
            sum(_unpacked(wheel) for wheel in each.wheels.values()) for each in found.values()
        ),
        wheels=tuple(files[name] for name in sorted(files)),
    )


def _unpacked(wheel: Wheel) -> int:
    with zipfile.ZipFile(wheel.path) as opened:
        return sum(info.file_size for info in opened.infolist())


def lock_of(found: Mapping[Target, _Found]) -> str:
    """``requirements.lock``: every wheel by version and digest, for the Pythons that take it."""
    pins: dict[tuple[str, str], dict[str, set[str]]] = {}
    for target, each in found.items():
        for wheel in each.wheels.values():
            pin = pins.setdefault(
                (wheel.name, str(wheel.version)), {"pythons": set(), "sha256": set()}
            )
            pin["pythons"].add(target.python)
            pin["sha256"].add(wheel.digest())
    lines = ["# What install.sh installs, all of it and nothing else."]
    for (name, version), pin in sorted(pins.items()):
        marker = ""
        if len(pin["pythons"]) < len(found):
            marker = " ; " + " or ".join(
                f'python_version == "{one}"' for one in sorted(pin["pythons"])
            )
        hashes = "".join(f" \\\n    --hash=sha256:{one}" for one in sorted(pin["sha256"]))
        lines.append(f"{name}=={version}{marker}{hashes}")
    return "\n".join(lines) + "\n"


def _members(about: m.Manifest, found: Mapping[Target, _Found]) -> list[Member]:
    wheels = {
        wheel.path.name: wheel.path
        for each in found.values()
        for wheel in (*each.wheels.values(), each.installer)
        if wheel is not each.installer or wheel.path.name == about.installer
    }
    return [
        Member(m.NAME, encode(about)),  # first: whoever wants it reads no further
        Member("requirements.lock", lock_of(found).encode()),
        Member("device_check.py", _HERE / "device_check.py"),
        Member("install.sh", _HERE / "install.sh", executable=True),
        *(Member(f"wheels/{name}", wheels[name]) for name in sorted(wheels)),
    ]
