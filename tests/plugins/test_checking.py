"""A plugin that isn't as it should be is named, with what is wrong, where it is taken in."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import edgefleet as ef
from edgefleet.errors import PluginImportError, ProfileError
from edgefleet.plugins import discovery
from edgefleet.testing.mock import mock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.conftest import Install

PLUGIN = """
    from edgefleet.errors import ProfileError
    from edgefleet.interfaces.state import StateStore
    from edgefleet.plugins.hooks import hookimpl
    from edgefleet.plugins.provider import Provider, ProviderSettings, Role
    from edgefleet_template.plugin import TemplateProvider

    class Acme(Provider):
        name = "acme"
        roles = frozenset({{Role.STATE}})
        settings_type = ProviderSettings

        def state(self, settings, context):
            return TemplateProvider().state(settings, context)

        {body}

    @hookimpl
    def edgefleet_provider():
        return Acme()
"""
"""A sound provider of a state store, but for what is put into its body."""


@pytest.mark.parametrize(
    "body, said",
    [
        ("name = 'acmee'", "calls itself 'acmee': Acme.name is to be its entry point's name"),
        ("roles = ('state',)", "has no roles: Acme.roles is to be a frozenset of Role"),
        ("roles = frozenset({'state'})", "has no roles: Acme.roles is to be a frozenset of Role"),
        ("roles = frozenset()", "has no roles: Acme.roles is to be a frozenset of Role"),
        ("roles = frozenset(Role)", "has the role deployer, but Acme has no method deployer"),
        ("settings_type = dict", "has a settings_type that is no ProviderSettings"),
        ("settings_type = property(lambda _: 1 / 0)", "its settings_type: ZeroDivisionError"),
    ],
)
def test_a_provider_that_breaks_its_contract_is_told_what(
    install: Install, body: str, said: str
) -> None:
    install("acme", PLUGIN.format(body=body))
    with pytest.raises(PluginImportError) as caught:
        discovery.provider("acme")
    assert "provider 'acme' (acme-plugin 1.2) " in caught.value.message
    assert said in caught.value.message
    assert caught.value.cure == "upgrade acme-plugin"


def built(folder: Path) -> object:
    config = folder / "edgefleet.toml"
    config.write_text('[profiles.default]\nprovider = "acme"\n')
    with ef.connect("default", config=config) as fleet:
        return fleet.state


FACTORY = """def state(self, settings, context):
            {body}"""


@pytest.mark.parametrize(
    "body, said",
    [
        ("import acme_sdk", "can't build its state: ModuleNotFoundError: No module named"),
        ("return StateStore()", "can't build its state: TypeError: Can't instantiate abstract"),
        ("return None", "gives no state, but NoneType"),
        (
            "return TemplateProvider().telemetry(settings, context)",
            "can't build its state: AttributeError",
        ),
    ],
    ids=["library missing", "abstract", "nothing", "its own mistake"],
)
def test_a_service_that_cannot_be_built_names_the_plugin(
    install: Install, tmp_path: Path, body: str, said: str
) -> None:
    install("acme", PLUGIN.format(body=FACTORY.format(body=body)))
    with pytest.raises(PluginImportError) as caught:
        built(tmp_path)
    assert "provider 'acme' (acme-plugin 1.2) " in caught.value.message
    assert said in caught.value.message
    assert "upgrade acme-plugin" in str(caught.value.cure)


SERVICE = """def {role}(self, settings, context):
            from edgefleet_template import deployer, telemetry
            from pathlib import Path
            made = {made}
            return made"""
DEPLOYER = "deployer.MailboxDeployer(Path('x'), name='main')"


@pytest.mark.parametrize(
    "made, role, said",
    [
        ("telemetry.MailboxTelemetry(Path('x'))", "state", "gives no state, but Mailbox"),
        (DEPLOYER, "deployer", "named 'main': MailboxDeployer.name is to be Context.name"),
        (f"{DEPLOYER}; made.provider = None", "deployer", "names no provider: set MailboxDep"),
    ],
)
def test_a_service_that_breaks_its_contract_is_told_what(
    install: Install, tmp_path: Path, made: str, role: str, said: str
) -> None:
    body = SERVICE.format(made=made, role=role)
    install("acme", PLUGIN.format(body=f"{body}\n\n        roles = frozenset({{Role('{role}')}})"))
    config = tmp_path / "edgefleet.toml"
    config.write_text('[profiles.default]\nprovider = "acme"\n')
    with (
        ef.connect("default", config=config) as fleet,
        pytest.raises(PluginImportError, match=said),
    ):
        _ = fleet.state if role == "state" else fleet.deployers


def test_what_a_factory_raises_on_purpose_goes_on(install: Install, tmp_path: Path) -> None:
    raising = FACTORY.format(body="raise ProfileError('no token', cure='set ACME_TOKEN')")
    install("acme", PLUGIN.format(body=raising))
    with pytest.raises(ProfileError, match="no token"):
        built(tmp_path)


def test_of_two_plugins_with_one_name_neither_is_chosen(install: Install) -> None:
    install("acme", PLUGIN.format(body=""))
    assert discovery.provider("acme").name == "acme"
    discovery.provider.cache_clear()
    install("acme", PLUGIN.format(body=""), by="elsewhere")
    both = "acme-plugin 1.2 and elsewhere-plugin 1.2"
    assert discovery.distribution_of("acme") == both
    with pytest.raises(PluginImportError, match="several distributions offer a prov") as caught:
        discovery.provider("acme")
    assert caught.value.cure == "keep one: pip uninstall acme-plugin or elsewhere-plugin"


@pytest.mark.parametrize(
    "source, said",
    [
        ("Cloud = 5", "mock cloud 'acme' (acme-plugin 1.2) is no MockCloud, but 5"),
        (
            "from edgefleet.testing.mock import MockCloud\nclass Cloud(MockCloud): ...",
            "lacks what a MockCloud needs: add_device, environment, kill_device, seen, settings",
        ),
    ],
)
def test_a_mock_that_is_none_is_told_so(install: Install, source: str, said: str) -> None:
    install("acme", source, group=discovery.MOCKS)
    with pytest.raises(PluginImportError) as caught, mock("acme"):
        pass
    assert said in caught.value.message
    assert caught.value.cure == "upgrade acme-plugin"
