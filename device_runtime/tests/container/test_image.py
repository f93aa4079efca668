"""The container image: linted, its steps done in a clean folder, and what it starts.

No container engine is needed, and none has built it here.
"""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from device_runtime.tests.container.dockerfile import FILE, Dockerfile
from edgefleet.runtime_archive.builder import build
from edgefleet_runtime.cli import _parser
from tests.runtime_archive.fakes import wheel

ROOT = Path(__file__).parents[3]
KUBERNETES = ("cpu", "cuda", "arm64")
TARGETS = (*KUBERNETES, "iotedge")
STORE = "/var/lib/edgefleet"


@pytest.fixture(scope="module")
def image() -> Dockerfile:
    return Dockerfile()


def test_a_linter_has_nothing_to_say() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint isn't installed")
    done = subprocess.run([hadolint, str(FILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", TARGETS)
def test_nobody_is_root_in_it(image: Dockerfile, target: str) -> None:
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", image.last(target, "USER"))


@pytest.mark.parametrize("target", TARGETS)
def test_the_folder_of_its_store_is_its_users(image: Dockerfile, target: str) -> None:
    user, _, group = image.last(target, "USER").partition(":")
    made = [rest for word, rest in image.steps(target) if word == "RUN" and STORE in rest]
    assert any(f"-o {user} -g {group} -m 0750" in rest for rest in made)


@pytest.mark.parametrize("target", TARGETS)
def test_it_begins_from_a_slim_image_of_a_python_that_we_take(
    image: Dockerfile, target: str
) -> None:
    assert re.fullmatch(r"python:3\.1[1-4]-slim-[a-z]+", image.image(target))


@pytest.mark.parametrize("target", KUBERNETES)
def test_a_pod_needs_no_shell(image: Dockerfile, target: str) -> None:
    assert image.command(target, "ENTRYPOINT") == ["/opt/edgefleet/bin/edgefleet-runtime"]
    assert image.environment(target)["PATH"].startswith("/opt/edgefleet/bin:")
    assert "NVIDIA_VISIBLE_DEVICES" not in image.environment(target)


def test_a_module_starts_the_runtime_with_options_that_it_takes(image: Dockerfile) -> None:
    entry = image.command("iotedge", "ENTRYPOINT")
    words = shlex.split(entry[2].replace('"$@"', "").replace("$IOTEDGE_DEVICEID", "press-7"))
    start = next(n for n, word in enumerate(words) if word.endswith("edgefleet-runtime"))
    given = words[start + 1 :]
    told = _parser(given[0]).parse_args(given)
    assert (told.device, told.channel, str(told.root)) == ("press-7", "iotedge", STORE)
    # As by the base deployment: an operator's `invoke` reaches the server over plain HTTP alone.
    bare = _parser("run").parse_args(["run", "--root", STORE, "--channel", "iotedge"])
    assert told.http == bare.http
    volumes = image.command("iotedge", "VOLUME")
    assert volumes == [STORE, "/run/edgefleet"]
    assert all(folder in entry[2] for folder in volumes)


# ------------------------------------------------------------------------------------- its steps


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies beside the Dockerfile: an archive, with a library as NVIDIA's wheels have it."""
    folder = tmp_path_factory.mktemp("context")
    files = {"nvidia/cudnn/lib/libcudnn.so": ""}
    build(
        f"linux-{platform.machine()}",
        extras=[],
        more=[str(wheel(folder, "nvidia-cudnn", files=files))],
        pythons=[f"3.{sys.version_info.minor}"],
        constraints=ROOT / "constraints.txt",
        output=folder / "archives",
    )
    return folder


def built(image: Dockerfile, target: str, root: Path, context: Path) -> Path:
    """The files of a target, made by its own steps below a folder."""
    tools = root / "tools"
    tools.mkdir(parents=True)
    for name, does in {
        "python3": f'exec {Path(sys.executable).resolve()} "$@"',
        "ldconfig": "exit 0",  # this machine's cache of libraries is its own
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{does}\n", encoding="utf-8")
        (tools / name).chmod(0o755)
    for folder in ("etc/ld.so.conf.d", "tmp"):  # every Debian has them
        (root / folder).mkdir(parents=True)
    subprocess.run(
        ["sh", "-c", image.script(target, root, context)],
        env={"PATH": f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(root)},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return root


@pytest.mark.skipif(os.geteuid() != 0, reason="its steps give folders to another user")
@pytest.mark.parametrize("target", TARGETS)
def test_its_steps_make_a_runtime_that_starts(
    image: Dockerfile, target: str, tmp_path: Path, context: Path
) -> None:
    root = built(image, target, tmp_path / "image", context)
    program = f"{root}/opt/edgefleet/bin/edgefleet-runtime"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(
        [program, "doctor"], env=environment, capture_output=True, text=True, check=False
    )
    assert "kubernetes" in done.stdout, done.stderr
    found = subprocess.run(
        [
            f"{root}/opt/edgefleet/bin/python",
            "-c",
            "import edgefleet_runtime as e; print(e.__file__)",
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(f"{root}/opt/edgefleet/")
    store = Path(f"{root}{STORE}").stat()
    user = image.last(target, "USER").partition(":")[0]
    assert (str(store.st_uid), oct(store.st_mode & 0o777)) == (user, "0o750")
    assert not list(Path(f"{root}/opt/edgefleet").rglob("bin/pip*"))


@pytest.mark.skipif(os.geteuid() != 0, reason="its steps give folders to another user")
def test_libraries_in_wheels_of_nvidia_are_told_to_the_loader(
    image: Dockerfile, tmp_path: Path, context: Path
) -> None:
    root = tmp_path / "image"
    built(image, "cuda", root, context)
    listed = (root / "etc/ld.so.conf.d/edgefleet.conf").read_text("utf-8").splitlines()
    (libraries,) = root.glob("opt/edgefleet/lib/python3.*/site-packages/nvidia/cudnn/lib")
    assert listed == [str(libraries)]
