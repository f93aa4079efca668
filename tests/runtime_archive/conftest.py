from __future__ import annotations

import shutil
import sys
import tarfile
from pathlib import Path

import pytest

from edgefleet.runtime_archive.builder import Built, build
from edgefleet.runtime_archive.target import PLATFORMS
from tests.runtime_archive.fakes import runtime_wheels

ROOT = Path(__file__).parents[2]
PYTHON = f"3.{sys.version_info.minor}"


@pytest.fixture(scope="session")
def real(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The archive of this checkout for this machine, with the versions of constraints.txt."""
    return build(
        _platform(),
        extras=["cpu", "pull"],
        pythons=[PYTHON],
        constraints=ROOT / "constraints.txt",
        output=tmp_path_factory.mktemp("archive"),
    )


@pytest.fixture(scope="session")
def small(real: Built, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """An archive that installs in a second: a runtime that does nothing, and the real pip."""
    folder = tmp_path_factory.mktemp("small")
    wheels = runtime_wheels(folder / "wheels")
    with tarfile.open(real.path) as archive:
        installer = archive.extractfile(f"wheels/{real.manifest.installer}")
        assert installer is not None
        (wheels / "pip-1.0-py3-none-any.whl").unlink()
        with (wheels / real.manifest.installer).open("wb") as to:
            shutil.copyfileobj(installer, to)
    return build(_platform(), extras=[], pythons=[PYTHON], wheels=wheels, output=folder)


def _platform() -> str:
    import platform

    found = f"{sys.platform}-{platform.machine()}"
    if found not in PLATFORMS:
        pytest.skip(f"there is no archive for {found}")
    return found
