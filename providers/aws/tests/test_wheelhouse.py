"""The runtime as a self-contained archive, installed and run by a device that has none of it."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import ConfigurationError
from edgefleet.testing.kit.samples import Content
from edgefleet.testing.waiting import eventually
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.wheelhouse import NEEDS, archive

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet_aws.clients import Clients
    from edgefleet_aws.mock import AwsMock
    from edgefleet_aws.settings import AwsSettings

ROOT = Path(__file__).parents[3]
TIMEOUT_S = 300.0


def run(*command: object, cwd: Path = ROOT) -> None:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wheels of this checkout and of all that it needs, in the versions of constraints.txt."""
    folder = tmp_path_factory.mktemp("wheels")
    for source in (ROOT, ROOT / "device_runtime"):
        run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder, cwd=source)
    pip = [sys.executable, "-m", "pip", "wheel", "--disable-pip-version-check"]
    options = ["--only-binary=:all:", "-c", ROOT / "constraints.txt", "-f", folder]
    run(*pip, *options, "-w", folder, NEEDS)
    return folder


@pytest.fixture
def deployer(
    cloud: AwsMock, clients: Clients, settings: AwsSettings, wheels: Path
) -> Iterator[GreengrassDeployer]:
    store = S3StateStore(clients, settings)
    told = settings.model_copy(update={"runtime_wheels": Path(wheels.name)})
    yield GreengrassDeployer(clients, told, state=lambda: store, base=wheels.parent)
    cloud.fleet.remove()


def test_a_device_without_the_runtime_installs_and_runs_it(
    deployer: GreengrassDeployer,
    cloud: AwsMock,
    settings: AwsSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    venv.create(tmp_path / "python", with_pip=True)
    monkeypatch.setenv("PATH", f"{tmp_path / 'python' / 'bin'}:/usr/bin:/bin")
    deployer.install()
    cloud.fleet.greengrass.devices.role_alias = Names(settings).devices
    deployer.enroll("cam-1", group="line-3")
    cloud.fleet.power_on("cam-1", {})
    nucleus = cloud.fleet.greengrass.site.nucleus("cam-1")
    assert nucleus.state[Names(settings).runtime] == "RUNNING", nucleus.log(Names(settings).runtime)
    report = eventually(
        lambda: deployer.device("cam-1").report,
        lambda: nucleus.log(Names(settings).runtime),
        timeout_s=TIMEOUT_S,
    )
    assert report.health.pid == nucleus.process_id(Names(settings).runtime)
    assert deployer.invoke("cam-1", "/v2/health/live").status == 200


def test_the_same_wheels_make_the_same_archive(wheels: Path) -> None:
    with archive(wheels) as one, archive(wheels) as other:
        assert one.name == other.name
        assert Content.of(one.path.read_bytes()) == Content.of(other.path.read_bytes())


def test_a_folder_without_the_runtime_is_refused_with_what_fills_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught, archive(tmp_path):
        pass
    assert f"pip wheel -w {tmp_path}" in str(caught.value)
