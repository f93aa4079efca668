"""Plugins are found by metadata, imported one at a time, and harm only who asks for them."""

from __future__ import annotations

import importlib.metadata
import os
import sys
from importlib.metadata import EntryPoints
from typing import TYPE_CHECKING

import pytest

import edgefleet as ef
from edgefleet.errors import PluginImportError, ProviderNotFoundError
from edgefleet.plugins import discovery
from edgefleet.protocol.target import BUILTIN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import Install

BROKEN = "import a_library_that_is_not_installed\n"

SOUND = """
    from edgefleet.plugins.hooks import hookimpl
    from edgefleet_template.plugin import TemplateProvider

    class Provider(TemplateProvider):
        name = "sound"

    @hookimpl
    def edgefleet_provider():
        return Provider()
"""


def test_a_plugin_is_named_without_being_imported(install: Install) -> None:
    install("broken", BROKEN)
    assert "broken" in discovery.names()
    assert discovery.distribution_of("broken") == "broken-plugin 1.2"
    assert not any(module.startswith("plugin_of_broken") for module in sys.modules)


def test_an_installed_provider_is_given(install: Install) -> None:
    install("sound", SOUND)
    assert discovery.provider("sound").name == "sound"


def test_a_broken_plugin_names_its_distribution_and_what_failed(install: Install) -> None:
    install("broken", BROKEN)
    with pytest.raises(PluginImportError) as caught:
        discovery.provider("broken")
    assert "'broken' (broken-plugin 1.2) fails to import" in str(caught.value)
    assert "a_library_that_is_not_installed" in str(caught.value)
    assert "cure: reinstall or upgrade broken-plugin" in str(caught.value)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)
    assert isinstance(caught.value, ImportError)


def test_a_broken_plugin_harms_only_who_asks_for_it(install: Install, tmp_path: Path) -> None:
    install("broken", BROKEN)
    config = tmp_path / "edgefleet.toml"
    config.write_text('[profiles.well]\nprovider = "local"\n[profiles.ill]\nprovider = "broken"\n')
    with ef.connect("well", config=config) as fleet:
        assert fleet.registry.list() == ()
    with pytest.raises(PluginImportError):
        ef.connect("ill", config=config)


GIVES = """
    from edgefleet.plugins.hooks import hookimpl

    @hookimpl
    def edgefleet_provider():
        return {given}
"""


@pytest.mark.parametrize(
    "source, said",
    [
        ("", "gives no Provider from its edgefleet_provider hook"),
        (GIVES.format(given="'no provider'"), "gives no Provider from its edgefleet_provider hook"),
        (GIVES.format(given="1 / 0"), "fails in its edgefleet_provider hook: ZeroDivisionError"),
    ],
    ids=["no hook", "no Provider", "a failing hook"],
)
def test_a_plugin_that_gives_no_provider_is_told_so(
    install: Install, source: str, said: str
) -> None:
    install("empty", source)
    with pytest.raises(PluginImportError, match=said) as caught:
        discovery.provider("empty")
    assert "cure: upgrade empty-plugin" in str(caught.value)


def test_a_hook_of_the_wrong_shape_is_the_plugins_fault(install: Install) -> None:
    install(
        "askew",
        """
        from edgefleet.plugins.hooks import hookimpl

        @hookimpl
        def edgefleet_provider(settings):
            return None
        """,
    )
    with pytest.raises(PluginImportError, match="askew-plugin"):
        discovery.provider("askew")


@pytest.mark.parametrize(
    "name, cure",
    [("gateway", "pip install 'edgefleet-gateway'"), ("unheard-of", "installed: ")],
)
def test_a_provider_that_is_not_installed_names_the_cure(
    name: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "entry_points", lambda group: EntryPoints())
    discovery.provider.cache_clear()
    with pytest.raises(ProviderNotFoundError) as caught:
        discovery.provider(name)
    assert f"no provider {name!r} is installed" in str(caught.value)
    assert cure in str(caught.value)
    assert isinstance(caught.value, LookupError)


def test_a_mock_that_is_not_installed_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "entry_points", lambda group: EntryPoints())
    with pytest.raises(ProviderNotFoundError, match=r"pip install 'edgefleet-gateway\[mock\]'"):
        discovery.load("gateway", discovery.MOCKS)


def test_connecting_without_the_local_provider_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(discovery, "entry_points", lambda group: EntryPoints())
    discovery.provider.cache_clear()
    with pytest.raises(ProviderNotFoundError, match=r"pip install 'edgefleet\[local\]'"):
        ef.connect()
    assert not (tmp_path / ".edgefleet").exists()


def test_a_plugin_adds_and_replaces_hardware_targets(install: Install) -> None:
    install(
        "targets",
        """
        from edgefleet.plugins.hooks import hookimpl
        from edgefleet.protocol.target import HardwareTarget

        @hookimpl
        def edgefleet_hardware_targets():
            return [
                HardwareTarget(name="hailo-8", about="", arch="aarch64", precisions=("int8",)),
                HardwareTarget(name="x86-cpu", about="ours", arch="x86_64", precisions=("fp32",)),
            ]
        """,
    )
    targets = {
        target.name: target
        for target in discovery.hardware_targets(((discovery.PROVIDERS, "targets"),))
    }
    assert targets.keys() == {target.name for target in BUILTIN} | {"hailo-8"}
    assert targets["x86-cpu"].about == "ours"
    assert {t.name for t in discovery.hardware_targets()} == {t.name for t in BUILTIN}


TARGETS = """
    from edgefleet.plugins.hooks import hookimpl
    from edgefleet.protocol.target import HardwareTarget

    @hookimpl
    def edgefleet_hardware_targets():
        return [HardwareTarget(name="hailo-8", about="", arch="any", precisions=("int8",))]
"""
RAISES = """
    from edgefleet.plugins.hooks import hookimpl

    @hookimpl
    def edgefleet_hardware_targets():
        raise ValueError("no licence")
"""


def test_usable_targets_leave_out_plugins_that_are_broken_and_say_so(
    install: Install, caplog: pytest.LogCaptureFixture
) -> None:
    install("targets", TARGETS)
    install("broken", BROKEN)
    install("raises", RAISES)
    names = ("targets", "broken", "raises", "unheard-of")
    listeners = tuple((discovery.PROVIDERS, name) for name in names)
    with pytest.raises(PluginImportError):
        discovery.hardware_targets(listeners)
    found = [target.name for target in discovery.usable_targets(listeners)]
    assert found == [*(target.name for target in BUILTIN), "hailo-8"]
    said = [record.getMessage() for record in caplog.records]
    assert ["plugin broken" in said[0], "plugin raises: no licence" in said[1]] == [True, True]
    assert len(said) == 2  # that one isn't installed is no news


def test_a_plugin_s_replacement_outlives_the_plugins_after_it(install: Install) -> None:
    install("ours", TARGETS.replace("hailo-8", "x86-cpu"))
    install("targets", TARGETS)
    listeners = tuple((discovery.PROVIDERS, name) for name in ("ours", "targets"))
    found = {target.name: target for target in discovery.usable_targets(listeners)}
    assert found["x86-cpu"].precisions == ("int8",)


def test_metadata_is_read_once_while_nothing_is_installed(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("sound", SOUND)
    assert "sound" in discovery.names()
    monkeypatch.setattr(importlib.metadata, "entry_points", None)  # whoever reads again fails
    assert "sound" in discovery.names()
    monkeypatch.undo()
    assert "sound" not in discovery.names(), "it lies no more in a folder of sys.path"


def test_what_is_installed_meanwhile_is_found(install: Install, tmp_path: Path) -> None:
    install("sound", SOUND)
    assert "sound" in discovery.names()
    changed = (tmp_path / "site").stat().st_mtime_ns
    install("another", SOUND)
    os.utime(tmp_path / "site", ns=(changed, changed + 10**6))  # were it but a tick later
    assert {"sound", "another"} <= set(discovery.names())
