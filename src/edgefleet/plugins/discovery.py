"""Find plugins by entry point. Names come from metadata; one is imported when asked for.

Groups: ``edgefleet.providers`` (modules with hook implementations, one of them a provider),
``edgefleet.policies`` (the same without a provider) and ``edgefleet.mocks``. `edgefleet.cli.lazy`
finds ``edgefleet.commands``.
"""

from __future__ import annotations

import logging
from functools import cache
from typing import TYPE_CHECKING, Any

import pluggy

from edgefleet.errors import EdgeFleetError, PluginImportError, ProviderNotFoundError
from edgefleet.interfaces.service import Service
from edgefleet.plugins.checking import problem_of, problem_of_service
from edgefleet.plugins.entries import entry_points
from edgefleet.plugins.hooks import PROJECT, Hooks
from edgefleet.plugins.provider import Provider
from edgefleet.protocol.target import BUILTIN, HardwareTarget

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata import EntryPoint

    from edgefleet.plugins.provider import Context, Role

PROVIDERS = "edgefleet.providers"
MOCKS = "edgefleet.mocks"
POLICIES = "edgefleet.policies"
_WHAT = {PROVIDERS: "provider", MOCKS: "mock cloud", POLICIES: "policy"}
_REINSTALL = "reinstall or upgrade {}; what it lacks: pip check"
_LOG = logging.getLogger(__name__)

KNOWN_DISTRIBUTIONS = {
    "local": "edgefleet[local]",
    "gateway": "edgefleet-gateway",
    "aws": "edgefleet-aws",
    "azure": "edgefleet-azure",
    "kubernetes": "edgefleet-kubernetes",
    "gcp": "edgefleet-gcp",
}
"""Where a provider comes from, to name the cure when it isn't installed."""


def names(group: str = PROVIDERS) -> tuple[str, ...]:
    """Names of the installed plugins, without importing any."""
    return tuple(sorted({entry.name for entry in entry_points(group=group)}))


def distributions(group: str = PROVIDERS) -> tuple[str, ...]:
    """Names of the distributions that plugins come from."""
    return tuple(sorted({e.dist.name for e in entry_points(group=group) if e.dist is not None}))


def distribution_of(name: str, group: str = PROVIDERS) -> str | None:
    """Distribution and version that a plugin comes from; all of them where several offer it."""
    return " and ".join(_origins(_entries(name, group))) or None


def _entries(name: str, group: str) -> list[EntryPoint]:
    return [entry for entry in entry_points(group=group) if entry.name == name]


def _origins(entries: list[EntryPoint]) -> list[str]:
    found = {f"{e.dist.name} {e.dist.version}" for e in entries if e.dist is not None}
    return sorted(found)


def load(name: str, group: str = PROVIDERS) -> Any:  # noqa: ANN401 - whatever the entry point names
    """Import one plugin.

    Raises:
        ProviderNotFoundError: none of that name is installed.
        PluginImportError: it fails to import, or several distributions offer one of that name:
            which came first would be chance.
    """
    found = _entries(name, group)
    what = _WHAT[group]
    if not found:
        there = ", ".join(names(group)) or "none"
        distribution = KNOWN_DISTRIBUTIONS.get(name)
        if group == MOCKS and distribution is not None:
            distribution += "[mock]"
        hint = f"install it with: pip install '{distribution}'; " if distribution else ""
        msg = f"no {what} {name!r} is installed"
        raise ProviderNotFoundError(msg, cure=f"{hint}installed: {there}")
    origins = _origins(found)
    if len({entry.value for entry in found}) > 1:
        msg = f"several distributions offer a {what} {name!r}: {', '.join(origins)}"
        cure = f"keep one: pip uninstall {' or '.join(origin.split()[0] for origin in origins)}"
        raise PluginImportError(msg, cure=cure, provider=name)
    try:
        return found[0].load()
    except Exception as error:  # a plugin may fail in any way; it harms only who asked for it
        origin = distribution_of(name, group) or found[0].value
        msg = f"{what} {name!r} ({origin}) fails to import: {type(error).__name__}: {error}"
        cure = _REINSTALL.format(origin.split()[0])
        raise PluginImportError(msg, cure=cure, provider=name) from error


def _manager() -> pluggy.PluginManager:
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    return manager


def _register(manager: pluggy.PluginManager, name: str, group: str = PROVIDERS) -> None:
    module = load(name, group)
    try:
        manager.register(module, name=f"{group}:{name}")
    except pluggy.PluginValidationError as error:
        raise unusable(name, f"has a hook of the wrong shape: {error}", group) from error


def unusable(
    name: str, what: str, group: str = PROVIDERS, *, cure: str = "upgrade {}"
) -> PluginImportError:
    """The error of a plugin that breaks a rule; ``{}`` in the cure is its distribution."""
    origin = distribution_of(name, group) or name
    msg = f"{_WHAT[group]} {name!r} ({origin}) {what}"
    return PluginImportError(msg, cure=cure.format(origin.split()[0]), provider=name)


@cache
def provider(name: str) -> Provider:
    """The provider of an installed plugin.

    Raises:
        ProviderNotFoundError: none of that name is installed.
        PluginImportError: it fails to import, or gives no provider.
    """
    manager = _manager()
    _register(manager, name)
    try:
        offered = manager.hook.edgefleet_provider()
    except Exception as error:  # a plugin may fail in any way; it harms only who asked for it
        what = f"fails in its edgefleet_provider hook: {type(error).__name__}: {error}"
        raise unusable(name, what) from error
    if len(offered) != 1 or not isinstance(offered[0], Provider):
        raise unusable(name, "gives no Provider from its edgefleet_provider hook")
    found: Provider = offered[0]
    problem = problem_of(found, name)
    if problem is not None:
        raise unusable(name, problem)
    return found


def service_of(found: Provider, role: Role, settings: object, context: Context) -> Service:
    """Have a provider build a service. What its own code does wrong there is told as that.

    Raises:
        PluginImportError: a library that it needs is missing, or what it gives is no service of
            that role.
        Exception: whatever else its factory raises.
    """
    factory: Callable[[object, Context], object] = getattr(found, role.value)
    try:
        service = factory(settings, context)
    except EdgeFleetError:
        raise
    except (AttributeError, ImportError, TypeError) as error:
        what = f"can't build its {role.value}: {type(error).__name__}: {error}"
        raise unusable(found.name, what, cure=_REINSTALL) from error
    if not isinstance(service, Service):
        raise unusable(found.name, f"gives no {role.value}, but {type(service).__name__}")
    problem = problem_of_service(service, role, context)
    if problem is not None:
        raise unusable(found.name, problem)
    return service


Listener = tuple[str, str]
"""A plugin that hears of deployments: its entry-point group and its name."""


def manager_of(listeners: tuple[Listener, ...]) -> pluggy.PluginManager:
    """A plugin manager with these plugins registered, to notify them."""
    manager = _manager()
    for group, name in listeners:
        _register(manager, name, group)
    return manager


def hardware_targets(listeners: tuple[Listener, ...] = ()) -> tuple[HardwareTarget, ...]:
    """Built-in targets and those that the named plugins add or replace."""
    return _with_builtin(_added(listeners))


def usable_targets(listeners: tuple[Listener, ...] = ()) -> tuple[HardwareTarget, ...]:
    """As `hardware_targets`, without those of plugins that can't be used.

    For what needs no plugin of the profile otherwise: a broken one is logged and left out, one that
    isn't installed is left out.
    """
    found: list[HardwareTarget] = []
    for listener in listeners:
        try:
            found += _added((listener,))
        except ProviderNotFoundError:
            continue
        except Exception as error:  # noqa: BLE001 - a plugin may fail in any way
            _LOG.warning("no hardware targets from plugin %s: %s", listener[1], error)
    return _with_builtin(found)


def _added(listeners: tuple[Listener, ...]) -> list[HardwareTarget]:
    lists = manager_of(listeners).hook.edgefleet_hardware_targets()
    return [target for added in lists for target in added]


def _with_builtin(added: list[HardwareTarget]) -> tuple[HardwareTarget, ...]:
    return tuple({target.name: target for target in (*BUILTIN, *added)}.values())


def notify_deployed(listeners: tuple[Listener, ...], deployment: object, actor: str) -> None:
    """Tell plugins of a deployment that has happened; one that raises is only logged."""
    manager = manager_of(listeners)
    for implementation in manager.hook.edgefleet_after_deploy.get_hookimpls():
        try:
            manager.subset_hook_caller(
                "edgefleet_after_deploy",
                [p for p in manager.get_plugins() if p is not implementation.plugin],
            )(deployment=deployment, actor=actor)
        except Exception:  # noqa: BLE001 - the deployment has happened, whatever a plugin does
            name = implementation.plugin_name.rpartition(":")[2]
            _LOG.exception("plugin %s failed after a deployment", name)
