"""The conformance kit: pytest classes that a plugin's tests subclass, one a role.

``state``, ``state_service``, ``blobs``, ``registry``, ``trainer``, ``training_service``,
``automation``, ``deployer``, ``inviting``, ``upgrading``, ``receipts``, ``telemetry``,
``receiving``, ``device_channel`` and ``fleet`` hold the suites, `gaps` the words for what a plugin
can't do, `samples` what the suites are fed with.

Subclass a suite, name the subclass ``Test…``, give it the fixtures that its docstring lists::

    class TestState(StateStoreConformance):
        @pytest.fixture
        def state(self, tmp_path: Path) -> StateStore:
            return MyStateStore(tmp_path)
"""

import pytest

_MODULES = (
    "state", "state_service", "blobs", "versions", "registry", "trainer", "training_service",
    "automation", "deliveries", "deployer", "inviting", "upgrading", "receipts", "telemetry",
    "receiving", "channel_fixtures", "channel_coming", "channel_going", "device_channel", "devices",
    "fleet_fixtures", "fleet_pointers", "fleet_edits", "fleet",
)  # fmt: skip

# Before any suite is imported, so that its assertions explain themselves as a test file's do.
pytest.register_assert_rewrite(*(f"{__name__}.{module}" for module in _MODULES))
