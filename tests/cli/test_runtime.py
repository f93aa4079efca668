"""`edgefleet runtime build`."""

from __future__ import annotations

from pathlib import Path

from tests.cli.conftest import Run, RunJson
from tests.runtime_archive.fakes import runtime_wheels


def test_an_archive_is_made_of_a_folder_of_wheels(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    wheels = str(runtime_wheels(tmp_path / "wheels"))
    given = ["--platform", "linux-aarch64", "--extra", "cpu", "--wheels", wheels]
    made = run_json("runtime", "build", *given, "--output", "out")
    assert Path(made["path"]).parent == tmp_path / "out"
    assert (made["platform"], made["pythons"], made["extras"]) == (
        "linux-aarch64",
        ["3.11"],
        ["cpu"],
    )
    told = run("runtime", "build", *given)
    assert told.stdout.strip() == str(tmp_path / "edgefleet-runtime-0.1.0-linux-aarch64.tar.gz")
    assert made["digest"] in told.stderr


def test_a_missing_wheel_is_told_with_its_cure(run: Run, tmp_path: Path) -> None:
    wheels = runtime_wheels(tmp_path / "wheels")
    given = ["--platform", "linux-x86_64", "--extra", "none", "--wheels", str(wheels)]
    for path in wheels.glob("fast-*"):
        path.unlink()
    told = run("runtime", "build", *given, expect=1).stderr
    assert "there is no wheel of fast" in told
    assert "cure: put its wheel into the folder" in told


def test_the_script_for_devices_names_the_archive_of_each_platform(
    run: Run, run_json: RunJson, tmp_path: Path
) -> None:
    wheels = str(runtime_wheels(tmp_path / "wheels"))
    made = [
        run_json("runtime", "build", "--platform", platform, "--extra", "none", "--wheels", wheels)
        for platform in ("linux-x86_64", "linux-aarch64")
    ]
    (tmp_path / "ca.pem").write_text("-----BEGIN CERTIFICATE-----\n")
    paths = [one["path"] for one in made]
    given = ["--gateway", "https://gateway.example:8443/", "--ca", "ca.pem"]
    script = run("device", "install-script", *paths, *given).stdout
    for name, one in zip(("x86_64", "aarch64"), made, strict=True):
        assert f"digest_{name}={one['digest'].removeprefix('sha256:')}\n" in script
    assert "gateway=https://gateway.example:8443\n" in script
    assert "authorities='-----BEGIN CERTIFICATE-----\n'\n" in script
    twice = run("device", "install-script", paths[0], paths[0], expect=1)
    assert "two archives are for linux-x86_64" in twice.stderr
    assert "no archive of the runtime" in run("device", "install-script", "ca.pem", expect=1).stderr
