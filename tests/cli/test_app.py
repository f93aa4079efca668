"""The table of commands, exit codes, and how a command ends."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgefleet import errors
from edgefleet.cli.app import SECTIONS, cli
from edgefleet.cli.errors import EXIT_CODES, exit_code
from edgefleet.cli.lazy import LazyGroup

COMMAND = [sys.executable, "-m", "edgefleet.cli"]
HEAVY = ("numpy", "onnx", "onnxruntime", "pandas", "pyarrow", "pydantic", "rich", "pluggy")
FACTLESS = {
    "access",
    "bundle",
    "completion",
    "dataset",
    "device",
    "device install-script",
    "devices up",
    "gateway",
    "gateway serve",
    "group",
    "loop",
    "mock",
    "model",
    "policy",
    "runtime",
}
"""Commands that print no facts of their own."""


def commands(
    group: click.Group | None = None, above: str = ""
) -> Iterator[tuple[str, click.Command]]:
    group = group or cli
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{above}{name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{above}{name} ")


def test_help_imports_no_library_that_takes_time() -> None:
    code = (
        "import sys\nfrom edgefleet.cli.app import cli\n"
        "try: cli.main(['--help'])\nexcept SystemExit: pass\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    assert all(name in done.stdout for section in SECTIONS.values() for name in section)


def test_the_table_says_of_each_command_what_the_command_says_of_itself() -> None:
    assert isinstance(cli, LazyGroup)
    context = click.Context(cli)
    for name, entry in cli.entries.items():
        command = cli.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str(limit=200) == entry.about


@pytest.mark.parametrize("path", [path for path, _ in commands()])
def test_every_command_takes_the_shared_options_and_prints_facts_as_json(path: str) -> None:
    command = dict(commands())[path]
    names = {name for param in command.params for name in param.opts}
    assert {"--profile", "--verbose"} <= names
    assert ("--json" in names) == (path not in FACTLESS)
    result = CliRunner().invoke(cli, [*path.split(), "--help"])
    assert result.exit_code == 0
    assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    "arguments", [["--profile", "nowhere", "status"], ["status", "--profile", "nowhere"]]
)
def test_a_profile_may_be_named_before_or_after_the_command(arguments: list[str]) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 1
    assert "error: no profile 'nowhere'" in result.stderr
    assert "cure: write one with: edgefleet init" in result.stderr


def test_the_environment_names_a_profile_where_the_command_line_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("EDGEFLEET_PROFILE", "elsewhere")
    assert "no profile 'elsewhere'" in CliRunner().invoke(cli, ["status"]).stderr


def test_a_wrong_command_line_shows_where_to_read_on_and_exits_with_2() -> None:
    result = CliRunner().invoke(cli, ["deploy", "digits"])
    assert result.exit_code == 2
    assert "error: Missing option '--to'" in result.stderr
    assert "cure: edgefleet deploy --help" in result.stderr
    assert not result.stdout


@pytest.mark.parametrize(
    "typed, meant", [("depoly", "'deploy'"), ("modle", "'model'"), ("gatway", "'gateway'")]
)
def test_a_mistyped_command_is_answered_with_the_one_meant(typed: str, meant: str) -> None:
    result = CliRunner().invoke(cli, [typed])
    assert result.exit_code == 2
    assert f"error: No such command '{typed}'. Did you mean {meant}" in result.stderr
    assert "Did you mean" not in CliRunner().invoke(cli, ["xyzzy"]).stderr
    assert "Did you mean" not in CliRunner().invoke(cli, ["--xyzzy"]).stderr


def test_no_command_at_all_shows_the_help() -> None:
    for arguments in ([], ["model"], ["device"]):
        result = CliRunner().invoke(cli, arguments)
        assert result.exit_code == 0
        assert result.stdout.startswith("Usage: ")


@pytest.mark.parametrize(
    "error, code",
    [
        (errors.InvalidModelError("x"), 1),
        (errors.ProfileError("x"), 1),
        (errors.UnsupportedError("x"), 1),
        (click.UsageError("x"), 2),
        (errors.NotFoundError("x"), 3),
        (errors.AmbiguousReferenceError("x"), 3),
        (errors.ProviderNotFoundError("x"), 3),
        (errors.ConflictError("x"), 4),
        (errors.AlreadyExistsError("x"), 4),
        (errors.ApprovalRequiredError("x"), 4),
        (errors.AccessDeniedError("x"), 4),
        (PermissionError(13, "Permission denied", "/srv/fleet"), 4),
        (FileNotFoundError(2, "No such file or directory", "/srv/fleet"), 1),
        (errors.UnavailableError("x"), 5),
        (errors.ThrottledError("x"), 5),
        (errors.WaitTimeoutError("x"), 5),
        (errors.DeploymentFailedError("x"), 6),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_error_has_its_documented_exit_code(error: BaseException, code: int) -> None:
    assert exit_code(error) == code
    assert code in EXIT_CODES


def test_a_traceback_is_shown_only_when_asked_for() -> None:
    assert "Traceback" not in CliRunner().invoke(cli, ["why", "nobody"]).stderr
    result = CliRunner().invoke(cli, ["--verbose", "why", "nobody"])
    assert "Traceback" in result.stderr
    assert result.stderr.rstrip().endswith("cure: list the devices with: edgefleet devices")
    assert "Traceback" not in CliRunner().invoke(cli, ["why", "nobody"]).stderr


@pytest.mark.parametrize(
    "number, cure, code",
    [
        (errno.EACCES, "give this user the right to it, or name another place", 4),
        (errno.EROFS, "give this user the right to it, or name another place", 1),
        (errno.ENOSPC, "free space there and repeat the command", 1),
        (errno.ENOTDIR, "look at how the path is written", 1),
        (errno.EIO, None, 1),
    ],
)
def test_what_the_system_says_of_a_file_comes_without_numbers_and_with_its_cure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, cure: str | None, code: int
) -> None:
    said = os.strerror(number)

    def refuse(path: Path, *_: object, **__: object) -> None:
        raise OSError(number, said, str(path))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(Path, "open", refuse)
    result = CliRunner().invoke(cli, ["init"])
    assert result.exit_code == code
    lines = [f"error: {tmp_path / 'edgefleet.toml'}: {said}"]
    assert result.stderr.splitlines() == lines + ([f"  cure: {cure}"] if cure else [])


def test_what_nobody_foresaw_is_called_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_name: str | None) -> None:
        error = ZeroDivisionError("surprise")
        error.add_note("in deployer.groups of provider 'acme'")
        raise error

    monkeypatch.setattr("edgefleet.fleet.load_profile", lambda *_args, **_options: fail(None))
    result = CliRunner().invoke(cli, ["status"])
    assert result.exit_code == 1
    said, where, cure = result.stderr.splitlines()
    assert said == "error: ZeroDivisionError: surprise"
    assert where == "  in deployer.groups of provider 'acme'"
    assert cure.startswith("  cure: this is a defect")


def test_a_reader_that_goes_away_ends_a_command_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*COMMAND, "targets"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")


@contextmanager
def watching() -> Iterator[subprocess.Popen[str]]:
    """A command that runs until it is stopped, once it has begun."""
    with subprocess.Popen(
        [*COMMAND, "status", "--watch"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert "no groups yet" in process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize(
    "number, code, said",
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_ends_a_command_without_a_traceback(
    number: signal.Signals, code: int, said: str
) -> None:
    with watching() as process:
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == code
        assert err.strip() == said


def test_the_version_is_the_distributions() -> None:
    assert re.fullmatch(r"edgefleet \d+\.\d+\.\d+\n", CliRunner().invoke(cli, ["--version"]).stdout)


def test_a_package_and_its_scripts_are_the_same_command(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: edgefleet ")
