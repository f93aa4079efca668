"""`edgefleet model …`: versions in a registry."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgefleet.protocol.layout import BundleLayout
from tests.cli.conftest import Run, RunJson


def test_a_bare_onnx_file_becomes_a_version_of_one_variant(
    run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    pushed = run_json("model", "push", "tiny", str(onnx_file()), "--label", "line=3")
    assert (pushed["name"], pushed["version"], pushed["labels"]) == ("tiny", "1", {"line": "3"})
    assert [variant["name"] for variant in pushed["variants"]] == ["fp32"]
    assert run_json("model", "push", "tiny", str(onnx_file()))["version"] == "1"
    assert run_json("model", "push", "tiny", str(onnx_file(seed=1)))["version"] == "2"


def test_a_version_may_be_named_but_not_given_to_other_bytes(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    path = str(onnx_file())
    assert run_json("model", "push", "tiny", path, "--version", "v7")["version"] == "v7"
    other = str(onnx_file(seed=1))
    said = run("model", "push", "tiny", other, "--version", "v7", expect=4).stderr
    assert "tiny:v7 exists already" in said


def test_a_pulled_bundle_can_be_pushed_again(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    pushed = run_json("model", "push", "tiny", str(onnx_file()))
    run("model", "pull", "tiny:1", "out")
    assert BundleLayout(tmp_path / "out").digest == pushed["digest"]
    again = run_json("model", "push", "copy", "out")
    assert again["digest"] == pushed["digest"]
    run("model", "pull", "tiny:1", "one", "--variant", "fp32")
    assert (
        "no variant 'int8'"
        in run("model", "pull", "tiny", "two", "--variant", "int8", expect=1).stderr
    )


def test_versions_are_listed_approved_rejected_and_named(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    assert "no models yet" in run("model", "list").stdout
    for seed in (0, 1):
        run("model", "push", "tiny", str(onnx_file(seed=seed)))
    assert [model["name"] for model in run_json("model", "list")["models"]] == ["tiny"]
    assert [v["version"] for v in run_json("model", "list", "tiny")["versions"]] == ["1", "2"]
    approval = run_json("model", "approve", "tiny:1", "--reason", "measured")["approval"]
    assert (approval["state"], approval["by"]) == ("approved", "tester")
    assert run_json("model", "reject", "tiny:2")["approval"]["state"] == "rejected"
    run("model", "alias", "tiny:1", "production")
    assert run_json("model", "show", "tiny:production")["version"] == "1"
    text = run("model", "show", "tiny:production").stdout
    assert "approved by tester" in text
    assert "aliases   production" in text
    table = run("model", "list", "tiny").stdout.splitlines()
    assert [line.split()[0] for line in table[2:]] == ["tiny:1", "tiny:2"]


def test_a_version_with_an_alias_is_not_deleted(
    run: Run, run_json: RunJson, onnx_file: Callable[..., Path]
) -> None:
    run("model", "push", "tiny", str(onnx_file()))
    run("model", "push", "tiny", str(onnx_file(seed=1)))
    run("model", "alias", "tiny:1", "production")
    assert "move the alias" in run("model", "delete", "tiny:1", expect=4).stderr
    assert run_json("model", "delete", "tiny:2", "--yes") == {"deleted": "tiny:2"}
    assert [v["version"] for v in run_json("model", "list", "tiny")["versions"]] == ["1"]


def test_what_is_not_there_is_said_with_what_is(
    run: Run, onnx_file: Callable[..., Path], tmp_path: Path
) -> None:
    run("model", "push", "tiny", str(onnx_file()))
    assert "models there are: tiny" in run("model", "show", "huge", expect=3).stderr
    assert "versions there are: 1" in run("model", "show", "tiny:9", expect=3).stderr
    assert "models there are: tiny" in run("model", "list", "huge", expect=3).stderr
    assert "no model at" in run("model", "push", "tiny", "nothing.onnx", expect=1).stderr
    (tmp_path / "poem.onnx").write_text("roses are red")
    assert "poem.onnx" in run("model", "push", "tiny", "poem.onnx", expect=1).stderr
