"""What of a folder of wheels a device needs, and what lacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet.errors import ConfigurationError, IntegrityError, InvalidInputError
from edgefleet.runtime_archive.target import TagOrder, Target
from edgefleet.runtime_archive.wheelhouse import Wheel, check_some_target, closure, wheels_in
from tests.runtime_archive.fakes import runtime_wheels, wheel

X86 = Target("linux-x86_64", "3.11", "2.31")
ARM = Target("linux-aarch64", "3.12", "2.31")


def chosen(folder: Path, target: Target, wanted: str = "edgefleet-runtime[cpu]") -> list[str]:
    found = closure(wheels_in(folder), [wanted], target)
    assert not found.missing
    return [one.path.name for one in found.wheels.values()]


def test_each_machine_and_python_gets_its_own_wheels(tmp_path: Path) -> None:
    runtime_wheels(tmp_path)
    assert chosen(tmp_path, X86) == [
        "edgefleet-0.1.0-py3-none-any.whl",
        "edgefleet_runtime-0.1.0-py3-none-any.whl",
        "engine-3.0-cp39-abi3-manylinux_2_17_x86_64.whl",
        "fast-1.2-cp311-cp311-manylinux_2_28_x86_64.whl",
        "only_intel-1.0-py3-none-any.whl",
        "zstd_backport-1.0-py3-none-any.whl",
    ]
    assert chosen(tmp_path, ARM) == [
        "edgefleet-0.1.0-py3-none-any.whl",
        "edgefleet_runtime-0.1.0-py3-none-any.whl",
        "engine-3.0-cp39-abi3-manylinux_2_17_aarch64.whl",
        "fast-1.2-cp312-cp312-manylinux_2_28_aarch64.whl",
        "only_arm-1.0-py3-none-any.whl",
    ]
    without = chosen(tmp_path, X86, "edgefleet-runtime")
    assert not any(name.startswith("engine") for name in without)


def test_of_several_versions_the_newest_that_is_asked_for_is_taken(tmp_path: Path) -> None:
    for version in ("0.9", "1.10", "1.9", "2.0"):
        wheel(tmp_path, "tool", version)
    wheel(tmp_path, "user", needs=["tool>=1,<2"])
    assert "tool-1.10-py3-none-any.whl" in chosen(tmp_path, X86, "user")


def test_of_several_builds_the_best_is_taken(tmp_path: Path) -> None:
    for tag in ("py3-none-any", "cp311-cp311-manylinux_2_17_x86_64", "cp311-abi3-linux_x86_64"):
        wheel(tmp_path, "tool", tag=tag)
    wheel(tmp_path, "tool", tag="cp311-cp311-manylinux_2_35_x86_64")
    assert chosen(tmp_path, X86, "tool") == ["tool-1.0-cp311-cp311-manylinux_2_17_x86_64.whl"]


def test_what_lacks_is_named(tmp_path: Path) -> None:
    wheel(tmp_path, "user", needs=["tool>=2", "other[fast]"])
    wheel(tmp_path, "tool", "1.0")
    wheel(tmp_path, "other", needs=["gone; extra == 'fast'"])
    found = closure(wheels_in(tmp_path), ["user"], X86)
    assert sorted(map(str, found.missing)) == ["gone", "tool>=2"]


@pytest.mark.parametrize(
    "tag, glibc",
    [
        ("py3-none-any", 0),
        ("cp311-cp311-manylinux_2_27_x86_64.manylinux_2_28_x86_64", 27),
        ("cp311-cp311-manylinux2014_x86_64.manylinux_2_17_x86_64", 17),
        ("cp311-cp311-manylinux1_x86_64.manylinux_2_28_x86_64", 5),
        ("cp311-cp311-linux_x86_64", 0),
    ],
)
def test_the_oldest_c_library_of_a_wheel_is_told(tmp_path: Path, tag: str, glibc: int) -> None:
    order = TagOrder(X86)
    tags = Wheel.at(wheel(tmp_path, "tool", tag=tag)).tags
    assert order.of(tags) is not None
    assert order.glibc_of(tags) == glibc


@pytest.mark.parametrize(
    "platform, python, glibc, names",
    [
        ("linux-armv7l", "3.11", "2.31", "linux-x86_64, linux-aarch64"),
        ("linux-x86_64", "2.7", "2.31", "3.11, 3.12"),
        ("linux-x86_64", "3.11", "musl", "ldd --version"),
        ("linux-x86_64", "3.11", "2.5", "2.17"),
    ],
)
def test_a_target_that_there_is_not_is_refused(
    platform: str, python: str, glibc: str, names: str
) -> None:
    with pytest.raises(InvalidInputError, match="cure") as caught:
        Target.checked(platform, python, glibc)
    assert names in str(caught.value)


def test_what_is_no_wheel_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="no folder"):
        wheels_in(tmp_path / "gone")
    bad = tmp_path / "tool-1.0-py3-none-any.whl"
    bad.write_bytes(b"no zip")
    with pytest.raises(IntegrityError, match="fetch it again"):
        closure(wheels_in(tmp_path), ["tool"], X86)
    bad.rename(tmp_path / "tool.whl")
    with pytest.raises(IntegrityError, match=r"tool\.whl"):
        wheels_in(tmp_path)


def test_a_folder_for_some_device_is_told_from_one_for_none(tmp_path: Path) -> None:
    runtime_wheels(tmp_path)
    assert len(check_some_target(tmp_path, "edgefleet-runtime[cpu]")) > 10
    for engine in tmp_path.glob("engine-*"):
        engine.unlink()
    with pytest.raises(ConfigurationError, match="lacks engine") as caught:
        check_some_target(tmp_path, "edgefleet-runtime[cpu]")
    assert f"pip wheel -w {tmp_path} 'edgefleet-runtime[cpu]'" in str(caught.value)
