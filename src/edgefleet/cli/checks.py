"""The checks of ``edgefleet doctor``. Each yields findings; none raises, whatever is broken."""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import sys
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from edgefleet.errors import EdgeFleetError
from edgefleet.interfaces.amounts import size_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.abilities import Proof
    from edgefleet.interfaces.access import AccessTerm
    from edgefleet.profile import Profile
    from edgefleet.rollout.judgement import GroupStatus

OK, NOTE, WARNING, ERROR = "ok", "note", "warning", "error"
LOW_DISK_BYTES = 1 << 30
RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
"""Two builds that install the same module, so that the second one breaks the first."""

_EXTRAS = {
    "onnx": ("numpy", "onnx"),
    "optimize": ("numpy", "onnx", "onnxruntime"),
    "classical": ("onnxmltools", "skl2onnx", "sklearn"),
    "analysis": ("datasketches", "duckdb", "ibis", "pandas", "pyarrow"),
    "images": ("PIL",),
    "rules": ("cel",),
    "loop": ("cel", "cronsim", "onnxruntime", "pandas", "yaml"),
    "demo": ("matplotlib", "sklearn", "skl2onnx"),
}


class Check(NamedTuple):
    """One finding. ``note`` is neither good nor bad: something optional that isn't there."""

    area: str
    name: str
    state: str
    detail: str
    cure: str | None = None


def check_all(profile: str | None) -> Iterator[Check]:
    """Every check, in the order in which one rests on the others."""
    areas: tuple[tuple[str, Callable[[], Iterator[Check]]], ...] = (
        ("python", _python),
        ("distribution", _distributions),
        ("extra", _extras),
        ("provider", _providers),
        ("profile", _profiles),
        ("accelerator", _accelerators),
        ("fleet", lambda: _fleet(profile)),
    )
    for area, checks in areas:
        try:
            yield from checks()
        except Exception as error:  # noqa: BLE001 - a defect in one area must not hide the others
            yield _failed(area, area, error)


def _failed(area: str, name: str, error: Exception) -> Check:
    if isinstance(error, EdgeFleetError):
        return Check(area, name, ERROR, error.message, error.cure)
    said = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
    return Check(area, name, ERROR, ", ".join(said))


def _python() -> Iterator[Check]:
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Check("python", "python", OK, found)
    if sys.maxsize < 1 << 32:
        cure = "install a 64-bit Python: onnxruntime has no other"
        yield Check("python", "word size", ERROR, "this Python is 32-bit", cure)


def _distributions() -> Iterator[Check]:
    installed = _installed()
    ours = {name: installed[name] for name in sorted(_ours() & installed.keys())}
    wanted = ours.get("edgefleet")
    for name, version in ours.items():
        same = wanted is None or version.split(".")[:2] == wanted.split(".")[:2]
        cure = None if same else f"pip install --upgrade {' '.join(ours)}"
        yield Check("distribution", name, OK if same else WARNING, version, cure)
    for name in sorted(_of_plugins() & installed.keys() - ours.keys()):
        yield Check("distribution", name, OK, installed[name])
    runtimes = [name for name in RUNTIMES if name in installed]
    if len(runtimes) > 1:
        yield Check(
            "distribution",
            " and ".join(runtimes),
            ERROR,
            "both are installed and share one module: the later one broke the earlier",
            f"pip uninstall --yes {' '.join(runtimes)}, then install the one you want",
        )
    for name in runtimes if len(runtimes) == 1 else ():
        yield Check("distribution", name, OK, installed[name])


def _installed() -> dict[str, str]:
    """Version by name, in the form that package names are compared in."""
    found: dict[str, str] = {}
    for one in distributions():
        name = one.metadata["Name"]
        if name:
            found.setdefault(_normal(name), one.version)
    return found


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _ours() -> set[str]:
    """Distributions that are released together, so that their versions go together."""
    from edgefleet.plugins.discovery import KNOWN_DISTRIBUTIONS

    known = (name.partition("[")[0] for name in KNOWN_DISTRIBUTIONS.values())
    return {"edgefleet", "edgefleet-local", "edgefleet-runtime", *known}


def _of_plugins() -> set[str]:
    """Distributions with plugins, in versions of their own."""
    from edgefleet.plugins import discovery

    groups = (discovery.PROVIDERS, discovery.POLICIES, discovery.MOCKS)
    return {_normal(name) for group in groups for name in discovery.distributions(group)}


def _extras() -> Iterator[Check]:
    for extra, modules in _EXTRAS.items():
        missing = [name for name in modules if importlib.util.find_spec(name) is None]
        if missing:
            cure = f"for that: pip install 'edgefleet[{extra}]'"
            yield Check("extra", extra, NOTE, f"not installed: {', '.join(missing)}", cure)
        else:
            yield Check("extra", extra, OK, ", ".join(modules))


def _providers() -> Iterator[Check]:
    from edgefleet.plugins import discovery

    names = discovery.names()
    if not names:
        cure = "start with: pip install 'edgefleet[local]'"
        yield Check("provider", "any", ERROR, "none is installed", cure)
    for name in names:
        try:
            roles = ", ".join(sorted(discovery.provider(name).roles))
        except Exception as error:  # noqa: BLE001 - one of them must not hide the others
            yield _failed("provider", name, error)
        else:
            yield Check("provider", name, OK, f"{discovery.distribution_of(name)}: {roles}")


def _profiles() -> Iterator[Check]:
    from edgefleet.profile import config_file, profile_names

    try:
        path = config_file()
        names = profile_names(path)
    except EdgeFleetError as error:
        yield _failed("profile", "edgefleet.toml", error)
        return
    found = "none: the default profile is the local provider" if path is None else str(path)
    yield Check("profile", "edgefleet.toml", OK, found)
    for name in names:
        yield from _one_profile(name, path)


def _one_profile(name: str, path: Path | None) -> Iterator[Check]:
    from edgefleet.profile import load_profile

    try:
        loaded = load_profile(name, config=path)
        folders = dict(_folders(loaded))
    except EdgeFleetError as error:
        yield _failed("profile", name, error)
        return
    yield Check("profile", name, OK, f"served by {', '.join(loaded.plugins())}")
    for setting, folder in folders.items():
        yield _folder(f"{name}: {setting}", folder)


def _folders(loaded: Profile) -> Iterator[tuple[str, Path]]:
    """Folders of this machine that the settings name; settings that are wrong raise.

    Raises:
        ProfileError: a setting is missing or wrong.
    """
    from pydantic import ValidationError

    from edgefleet.errors import ProfileError
    from edgefleet.plugins import discovery
    from edgefleet.profile import first_problem

    for plugin in loaded.plugins():
        settings_type = discovery.provider(plugin).settings_type
        try:
            settings = settings_type.model_validate(loaded.settings.get(plugin, {}))
        except ValidationError as error:
            msg = f"[profiles.{loaded.name}.{plugin}]: {first_problem(error)}"
            raise ProfileError(msg, cure=f"its keys: edgefleet providers {plugin}") from error
        for name in settings_type.model_fields:
            value = getattr(settings, name)
            if isinstance(value, Path):
                yield f"{plugin}.{name}", loaded.base / value.expanduser()


def _folder(name: str, folder: Path) -> Check:
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(there, os.W_OK if there.is_dir() else os.R_OK):
        return Check(
            "profile", name, ERROR, f"{there} can't be used by this user", "mend its owner"
        )
    free = shutil.disk_usage(there).free
    if free < LOW_DISK_BYTES:
        return Check(
            "profile", name, WARNING, f"{size_text(free)} left at {there}", "free space there"
        )
    return Check("profile", name, OK, f"{folder}, {size_text(free)} free")


def _accelerators() -> Iterator[Check]:
    if importlib.util.find_spec("onnxruntime") is None:
        cure = "to run models here: pip install onnxruntime"
        yield Check("accelerator", "onnxruntime", NOTE, "not installed", cure)
        return
    from edgefleet.cli.accelerators import look

    found = look()
    if "problem" in found:
        cure = "reinstall it: pip install --force-reinstall onnxruntime"
        yield Check("accelerator", "onnxruntime", ERROR, found["problem"], cure)
        return
    for name, usable in found["providers"].items():
        if usable:
            yield Check("accelerator", name, OK, "ran a model")
        else:
            cure = "install its driver and libraries, or do without: models run on the CPU"
            yield Check("accelerator", name, WARNING, "listed, but it can't run a model here", cure)


def _fleet(profile: str | None) -> Iterator[Check]:
    from edgefleet.fleet import connect

    try:
        fleet = connect(profile)
    except EdgeFleetError as error:
        yield _failed("fleet", "connect", error)
        return
    with fleet:
        looks: tuple[tuple[str, Callable[[], str]], ...] = (
            ("state", lambda: f"documents: {sum(1 for _ in fleet.state.keys('fleet/'))}"),
            ("registry", lambda: f"models: {len(fleet.registry.list())}"),
            ("groups", lambda: f"groups: {len(fleet.groups())}"),
        )
        for name, look in looks:
            try:
                yield Check("fleet", name, OK, look())
            except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises
                yield _failed("fleet", name, error)
        yield from _permissions(fleet)
        yield from _receiving(fleet)
        yield from _access(fleet)
        try:
            yield from _devices(fleet.status().groups)
        except Exception as error:  # noqa: BLE001 - likewise
            yield _failed("fleet", "devices", error)


def _permissions(fleet: Fleet) -> Iterator[Check]:
    """What the identity in use may do, of all that the profile's backends need."""
    from edgefleet.interfaces.abilities import CanProve

    profile = fleet.profile
    roles = ("registry", "state", "trainer", "telemetry")
    named = [role for role in roles if getattr(profile, role) or profile.provider]
    for role in (*named, *(f"deployer {name}" for name in profile.deployer_names())):
        try:
            deployer = role.partition(" ")[2]
            backend = fleet.deployers[deployer] if deployer else getattr(fleet, role)
            for proof in backend.proofs() if isinstance(backend, CanProve) else ():
                yield _permission(proof)
        except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises
            yield _failed("permission", role, error)


def _permission(proof: Proof) -> Check:
    name = f"{proof.part}: {proof.action}"
    if not proof.tried:
        return Check("permission", name, NOTE, f"not tried: {proof.problem}")
    if proof.problem is None:
        return Check("permission", name, OK, "allowed")
    cure = f"let the identity in use do {proof.action}, or do without {proof.part}"
    return Check("permission", name, ERROR, proof.problem, cure)


def _receiving(fleet: Fleet) -> Iterator[Check]:
    """Whether telemetry takes what is received for devices that have no access of their own.

    Whoever asks may need none of it, for gateways run elsewhere, as somebody else.
    """
    from edgefleet.capabilities import require
    from edgefleet.interfaces.abilities import CanProve
    from edgefleet.interfaces.inviting import CanInvite
    from edgefleet.interfaces.receiving import CanReceive

    try:
        if not any(isinstance(one, CanInvite) for one in fleet.deployers.values()):
            return
        telemetry = require(fleet.telemetry, CanReceive)
        yield Check("fleet", "receiving", OK, "telemetry takes what gateways receive")
        for proof in telemetry.receiving_proofs() if isinstance(telemetry, CanProve) else ():
            check = _permission(proof)
            if check.state == ERROR:
                cure = f"let gateways, and you if you import sticks, do {proof.action}"
                check = check._replace(state=WARNING, cure=cure)
            yield check
    except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises
        yield _failed("fleet", "receiving", error)


def _access(fleet: Fleet) -> Iterator[Check]:
    """Until when devices may read and write, where somebody has to renew that."""
    from edgefleet.interfaces.access import CanRenewAccess

    for name, deployer in fleet.deployers.items():
        try:
            for term in deployer.access() if isinstance(deployer, CanRenewAccess) else ():
                yield _term(name, term)
        except Exception as error:  # noqa: BLE001 - whatever a vendor's library raises
            yield _failed("access", name, error)


def _term(deployer: str, term: AccessTerm) -> Check:
    now = datetime.now(UTC)
    whose = f"{deployer}/{term.group}" if term.group else f"{deployer}: all devices"
    name, cure = f"{whose}: {term.kind.value}", "edgefleet access renew"
    if term.ends is None:
        return Check("access", name, ERROR, "none is in place: devices wait", cure)
    days = (term.ends - now).total_seconds() / 86_400
    if days <= 0:
        return Check("access", name, ERROR, f"ended {int(-days)} days ago: devices wait", cure)
    state = WARNING if term.is_due(now, term.lasts / 3) else OK
    return Check("access", name, state, f"ends in {int(days)} days", cure if state != OK else None)


def _devices(groups: Iterable[GroupStatus]) -> Iterator[Check]:
    from edgefleet.rollout.judgement import Outcome

    for group in groups:
        failed = [d.device for d in group.devices if d.outcome is Outcome.FAILED]
        pending = [d.device for d in group.devices if d.outcome is Outcome.PENDING]
        state = WARNING if failed or (pending and group.number) else OK
        worst = (failed or pending or [""])[0]
        cure = f"edgefleet why {worst}" if state == WARNING else None
        yield Check("fleet", group.group, state, group.headline, cure)
