from __future__ import annotations

from pathlib import Path

import pytest

from edgefleet.protocol.labels import MAX_REPORTED_CHARACTERS
from edgefleet.protocol.target import find_target
from edgefleet_runtime.report import host


def test_this_machine_has_labels_that_fit() -> None:
    labels = host.labels()
    assert {"arch", "os"} <= labels.keys()
    assert all(0 < len(value) <= MAX_REPORTED_CHARACTERS for value in labels.values())


@pytest.mark.parametrize(
    "arch,board,gpu,providers,target",
    [
        ("x86_64", "", False, (), "x86-cpu"),
        ("x86_64", "", True, (), "x86-cpu"),
        ("x86_64", "", True, ("CUDAExecutionProvider",), "nvidia-gpu"),
        ("aarch64", "Raspberry Pi 4 Model B Rev 1.5", False, (), "raspberry-pi-4"),
        ("aarch64", "Raspberry Pi 5 Model B Rev 1.0", False, (), "raspberry-pi-5"),
        ("aarch64", "NVIDIA Jetson Orin Nano Developer Kit", False, (), "jetson-orin-nano"),
        ("aarch64", "NVIDIA Orin NX Developer Kit", False, (), "jetson-orin-nx"),
        ("aarch64", "NVIDIA Jetson AGX Orin Developer Kit", False, (), "jetson-agx-orin"),
        ("aarch64", "an Orin on a carrier of its own", False, (), "jetson-orin"),
        ("aarch64", "NVIDIA Jetson Xavier NX Developer Kit", False, (), "jetson-xavier-nx"),
        ("aarch64", "NVIDIA Jetson AGX Xavier Developer Kit", False, (), "jetson-agx-xavier"),
        ("aarch64", "NVIDIA Jetson Nano Developer Kit", False, (), "jetson-nano"),
        ("aarch64", "Google i.MX8MQ Phanbell", False, (), "coral-dev-board"),
        ("aarch64", "some other board", False, (), ""),
    ],
)
def test_the_target_is_guessed_from_what_is_known(
    arch: str, board: str, *, gpu: bool, providers: tuple[str, ...], target: str
) -> None:
    assert host.guess_target(arch, board, gpu=gpu, providers=providers) == target
    if target:
        find_target(target)


def test_facts_are_read_from_the_system(tmp_path: Path) -> None:
    for name, text in {
        "proc/device-tree/model": "Raspberry Pi 5 Model B Rev 1.0\0",
        "proc/cpuinfo": "processor : 0\nmodel name : Cortex-A76\n",
        "proc/meminfo": "MemTotal:        8245768 kB\n",
        "etc/os-release": 'NAME=x\nPRETTY_NAME="Debian GNU/Linux 13"\n',
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    labels = host.labels(root=tmp_path)
    assert labels["board"] == "Raspberry Pi 5 Model B Rev 1.0"
    assert labels["cpu"] == "Cortex-A76"
    assert labels["memory"] == "7.9 GiB"
    assert labels["os"] == "Debian GNU/Linux 13"
    assert labels["target"] == "raspberry-pi-5"


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert "memory" not in host.labels(root=tmp_path)
    assert host.rss_bytes(tmp_path) is None
    assert host.disk_free_bytes(tmp_path / "absent") is None


def test_this_process_has_memory_and_a_disk(tmp_path: Path) -> None:
    assert (host.rss_bytes() or 0) > 1 << 20
    assert (host.disk_free_bytes(tmp_path) or 0) > 0
