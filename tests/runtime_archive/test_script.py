"""What the script does on a machine: what it fetches, whom it asks, what it refuses."""

from __future__ import annotations

import base64
import fcntl
import functools
import hashlib
import http.server
import json
import os
import shutil
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from edgefleet.errors import InvalidInputError
from edgefleet.protocol.digest import hex_of
from edgefleet.protocol.gateway import Archive
from edgefleet.runtime_archive.builder import Built
from edgefleet.runtime_archive.script import install_script
from tests.runtime_archive.machine import Machine

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="devices have Linux"),
]

TOKEN = "s3cret-token-of-one-device"


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", Path(sys.executable).resolve())


def script_of(built: Built, gateway: str = "", authorities: str = "") -> str:
    archives: dict[str, Archive] = {
        built.manifest.platform: Archive(digest=built.digest, size=built.size)
    }
    return install_script("0.1.0", archives, gateway=gateway, authorities=authorities)


class Gateway:
    """A server that has the archive where a gateway has it."""

    def __init__(self, root: Path, built: Built) -> None:
        folder = root / "www" / "v1" / "archives" / "sha256"
        folder.mkdir(parents=True)
        self.archive = folder / hex_of(built.digest)
        shutil.copy(built.path, self.archive)
        self.asked: list[str] = []
        handler = functools.partial(self._handler(), directory=str(root / "www"))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        authority = trustme.CA()
        leaf = authority.issue_cert("localhost")

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        leaf.configure_cert(context)
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"https://localhost:{self._server.server_port}"
        self.authorities = authority.cert_pem.bytes().decode()
        certificate = x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes())
        key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pin = "sha256//" + base64.b64encode(hashlib.sha256(key).digest()).decode()
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def _handler(self) -> type[http.server.SimpleHTTPRequestHandler]:
        asked = self.asked

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                asked.append(self.path)

        return Handler

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def gateway(tmp_path: Path, small: Built) -> Iterator[Gateway]:
    made = Gateway(tmp_path, small)
    yield made
    made.close()


def identity(machine: Machine) -> dict[str, object]:
    found = json.loads((machine.state / "identity" / "identity.json").read_text())
    assert isinstance(found, dict)
    return found


def test_a_machine_joins_by_one_command(machine: Machine, gateway: Gateway, small: Built) -> None:
    script = script_of(small)
    machine.install(script, "--gateway", gateway.url, "--pin", gateway.pin, token=TOKEN)
    came = identity(machine)
    assert came["token"] == TOKEN
    enrolled = ["--gateway", gateway.url, "--root", str(machine.state), "--pin", gateway.pin]
    assert came["arguments"] == enrolled
    words = machine.command()
    assert words[0] == str(machine.root / "opt" / "bin" / "edgefleet-runtime")
    options = f"run --root {machine.state} --device cam-07 --channel pull -o identity="
    assert " ".join(words[1:]).startswith(f"{options}{machine.state}/identity --http")
    assert machine.systemctl.read_text().splitlines()[-1] == "restart edgefleet-runtime.service"
    assert (
        subprocess.run([*words[:1], "doctor"], env=machine.environment(), check=False).returncode
        == 0
    )
    assert [
        path.name for path in (machine.state / "runtime").iterdir() if path.name[0] == "."
    ] == []


def test_the_same_again_changes_nothing(machine: Machine, gateway: Gateway, small: Built) -> None:
    script = script_of(small, gateway.url, gateway.authorities)
    machine.install(script, token=TOKEN)
    assert identity(machine)["arguments"][-2] == "--ca"  # type: ignore[index]
    before = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*") if path.is_file()}
    machine.install(script)
    after = {path: path.stat().st_mtime_ns for path in machine.root.rglob("*") if path.is_file()}
    changed = {path.name for path in after if before.get(path) != after[path]}
    assert changed == {"install.sh", "systemctl.log"}
    assert machine.systemctl.read_text().splitlines()[-1] == "start edgefleet-runtime.service"
    assert len(gateway.asked) == 1


@pytest.mark.skipif(shutil.which("flock") is None, reason="there is no flock here")
def test_two_at_once_take_turns(machine: Machine, small: Built) -> None:
    machine.state.mkdir()
    other = os.open(machine.state, os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    script = machine.root / "install.sh"
    script.write_text(script_of(small))
    given = ["--archive", str(small.path), "--", "--device", "cam-07", "--channel", "file"]
    command = ["sh", str(script), *machine.places, *given]
    with subprocess.Popen(
        command, env=machine.surroundings, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        assert said == "waiting for another installation on this machine\n"
        assert list(machine.state.iterdir()) == []
        os.close(other)
        assert process.stderr.read()
    assert process.returncode == 0
    assert (machine.state / "runtime" / "current" / "manifest.json").exists()


def test_another_runtime_takes_the_place_of_the_first_and_that_stays(
    machine: Machine, small: Built
) -> None:
    given = ["--archive", str(small.path), "--", "--device", "cam-07", "--channel", "file"]
    old = machine.state / "runtime" / "versions" / "0.0.9-000000000000"
    oldest = old.with_name("0.0.8-000000000000")
    for folder in (old, oldest):
        folder.mkdir(parents=True)
    (machine.state / "runtime" / "current").symlink_to(f"versions/{old.name}")
    (machine.state / "runtime" / "trial").write_text("0.0.8-000000000000 3\n")
    machine.install(script_of(small), *given)
    name = f"0.1.0-{hex_of(small.digest)[:12]}"
    assert (machine.state / "runtime" / "current").readlink() == Path("versions") / name
    assert {path.name for path in old.parent.iterdir()} == {name, old.name}
    assert not (machine.state / "runtime" / "trial").exists()


def test_a_gateway_with_another_key_is_not_believed(
    machine: Machine, gateway: Gateway, small: Built
) -> None:
    other = "sha256//" + base64.b64encode(bytes(32)).decode()
    script = script_of(small, gateway.url)
    assert "can't be fetched" in machine.install(script, "--pin", other, token=TOKEN, expect=1)
    assert "can't be fetched" in machine.install(script, token=TOKEN, expect=1)
    assert gateway.asked == []
    assert not machine.unit.exists()


def test_an_archive_that_was_changed_is_refused(
    machine: Machine, gateway: Gateway, small: Built
) -> None:
    gateway.archive.write_bytes(gateway.archive.read_bytes()[:-1] + b"!")
    script = script_of(small, gateway.url, gateway.authorities)
    said = machine.install(script, token=TOKEN, expect=1)
    assert f"not {hex_of(small.digest)}" in said
    assert list((machine.state / "runtime" / "versions").iterdir()) == []
    assert not (machine.state / "identity").exists()
    assert [path.name for path in (machine.state / "runtime").iterdir()] == ["versions"]


def test_without_a_token_a_new_machine_is_told_where_it_comes_from(
    machine: Machine, gateway: Gateway, small: Built
) -> None:
    script = script_of(small, gateway.url, gateway.authorities)
    assert "edgefleet device enroll" in machine.install(script, expect=1)


def test_a_percent_sign_is_for_the_runtime_and_not_for_systemd(
    machine: Machine, small: Built
) -> None:
    given = ["--archive", str(small.path), "--", "--device", "cam-07", "--channel", "file"]
    machine.install(script_of(small), *given, "-o", "pointer=https://fleet.example/a%20b")
    (line,) = machine.settings("ExecStart")
    assert " -o pointer=https://fleet.example/a%%20b " in line
    said = machine.run(script_of(small), "--no-service", *machine.places, *given, "-o", "x=a%20b")
    assert " -o x=a%20b " in said


def test_without_a_service_it_prints_what_starts_the_runtime(
    machine: Machine, small: Built
) -> None:
    given = ["--no-service", "--state", str(machine.state), "--archive", str(small.path)]
    said = machine.run(script_of(small), *given, "--", "--device", "cam-07", "--channel", "file")
    program = machine.state / "runtime" / "current" / "bin" / "edgefleet-runtime"
    options = f"run --root {machine.state} --device cam-07 --channel file --http 127.0.0.1:8000"
    assert f"{program} {options}" in said
    assert not machine.unit.exists()
    assert machine.systemctl.read_text() == ""


@pytest.mark.parametrize(
    "tool, does, says",
    [
        (
            "uname",
            'case "$1" in -s) echo Linux ;; -m) echo armv7l ;; esac',
            "no runtime for armv7l",
        ),
        ("uname", 'case "$1" in -s) echo Darwin ;; esac', "is for Linux"),
        ("id", "echo 1000", "run it with sudo, or give --no-service"),
        ("systemctl", None, "give --no-service"),
        ("sha256sum", None, "lacks sha256sum"),
    ],
)
def test_a_machine_that_wont_do_is_told_why(
    machine: Machine, small: Built, tool: str, does: str | None, says: str
) -> None:
    if does is None:  # only what is named is there
        (machine.tools / tool).unlink(missing_ok=True)
        for name in {"uname", "tar", "sha256sum", "cat", "sh"} - {tool}:
            machine.tool(name, f'exec {shutil.which(name)} "$@"')
        script = script_of(small).replace("set -eu", f"set -eu\nPATH={machine.tools}", 1)
    else:
        machine.tool(tool, does)
        script = script_of(small)
    given = ["--archive", str(small.path), "--", "--device", "cam-07", "--channel", "file"]
    assert says in machine.install(script, *given, expect=1)
    assert not machine.unit.exists()


@pytest.mark.parametrize(
    "arguments, says",
    [
        ((), "give --gateway URL"),
        (("--gateway",), "--gateway is no option, or has no value"),
        (("--speed", "9"), "--speed is no option"),
        (("--state", "here", "--", "--device", "x"), "absolute paths"),
        (("--", "--device", "a b"), "can't be 'a b'"),
        (("--user", "x;y", "--", "--device", "x"), "can't be 'x;y'"),
        (("--memory-max", "1\nExecStart=/bin/sh", "--", "--device", "x"), "can't be"),
    ],
)
def test_what_makes_no_sense_is_refused(
    machine: Machine, small: Built, arguments: tuple[str, ...], says: str
) -> None:
    assert says in machine.run(script_of(small), *arguments, expect=1)


def test_what_a_gateway_says_of_itself_runs_nothing(machine: Machine, small: Built) -> None:
    hostile = f"https://x/'$(touch {machine.root}/pwned)'`touch {machine.root}/pwned`"
    machine.run(script_of(small, hostile, "'; touch pwned; '"), "--help")
    assert not (machine.root / "pwned").exists()


def test_linters_and_other_shells_have_nothing_to_say(machine: Machine, small: Built) -> None:
    script = script_of(small, "https://gateway.example:8443", "-----BEGIN CERTIFICATE-----\n")
    assert "--no-service" in machine.run(script, "--help")
    for shell in filter(shutil.which, ("dash", "bash", "busybox")):
        assert "--no-service" in machine.run(script, "--help", shell=shell)
    linter = Path(sys.executable).with_name("shellcheck")
    if not linter.exists():
        pytest.skip("shellcheck isn't installed")
    folder = Path(str(sys.modules[install_script.__module__].__file__)).parent
    for path in (machine.root / "install.sh", folder / "launcher.sh"):
        done = subprocess.run([str(linter), str(path)], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (0, "")


def test_a_script_without_an_archive_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="edgefleet runtime build"):
        install_script("0.1.0", {})
