"""Invitations: whom they make a device, how long, and what the printed command does in a shell."""

from __future__ import annotations

import hashlib
import shlex
import shutil
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from edgefleet.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    NotFoundError,
    UnavailableError,
)
from edgefleet.plugins.provider import Context
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.invitations import command
from edgefleet_gateway.joining import RefusedError
from edgefleet_local.state import DirectoryStateStore
from providers.gateway.tests.joining_rig import Machine, Rig


class LosesAnswers(DirectoryStateStore):
    """Writes one document, and says of the first time that somebody else was there before."""

    longest_pause_s = 0.0

    def __init__(self, home: Path, key: str) -> None:
        super().__init__(home)
        self._key = key
        self.lost = 1

    def _write(self, key: str, data: bytes, expect: str | None) -> str:
        tag = super()._write(key, data, expect)
        if key == self._key and not self.lost:
            self.lost += 1
            raise ConflictError(key)
        return tag


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path, addresses=("https://gw.example:8443", "https://spare.example"))


@pytest.fixture
def deployer(rig: Rig) -> GatewayDeployer:
    """An operator's, which knows the state store and nothing else of the gateway."""
    context = Context(base=rig.folder, name="gateway", state=lambda: rig.state)
    return GatewayDeployer(rig.settings, context, clock=rig.clock)


def test_an_invitation_makes_one_machine_the_device(rig: Rig, deployer: GatewayDeployer) -> None:
    invited = deployer.invite("cam-07", group="line", labels={"site": "north"})
    assert (invited.device, invited.group) == ("cam-07", "line")
    assert invited.ends == rig.now + timedelta(hours=1)
    given = rig.said(rig.joining.enroll(Machine().enrolment(invited.token)))
    assert given.device == "cam-07"
    assert rig.counts(given)
    assert rig.record("cam-07").labels == {"site": "north"}
    with pytest.raises(RefusedError, match="was used"):
        rig.joining.enroll(Machine().enrolment(invited.token))


def test_the_token_is_nowhere_but_in_what_is_printed(rig: Rig, deployer: GatewayDeployer) -> None:
    invited = deployer.invite("cam-07", group="line")
    kept = {path: path.read_bytes() for path in rig.folder.rglob("*") if path.is_file()}
    assert not any(invited.token.encode() in data for data in kept.values())
    digest = hashlib.sha256(invited.token.encode()).hexdigest()
    assert any(digest in path.name for path in kept)
    assert len(invited.token) >= 43  # 256 bits


def test_the_same_again_ends_the_invitation_before(rig: Rig, deployer: GatewayDeployer) -> None:
    first = deployer.invite("cam-07", group="line")
    second = deployer.invite("cam-07", group="line", lasts=timedelta(days=2))
    assert second.ends == rig.now + timedelta(days=2)
    with pytest.raises(RefusedError, match="a newer invitation"):
        rig.joining.enroll(Machine().enrolment(first.token))
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(second.token))))
    assert len(list(rig.state.keys(rig.keys.tokens))) == 1  # none piles up


def test_an_invitation_whose_record_is_written_twice_counts(rig: Rig) -> None:
    """A store that loses the answer to a write reads its own document at the next try."""
    store = LosesAnswers(rig.folder / "fleet", rig.keys.device("cam-07"))
    context = Context(base=rig.folder, name="gateway", state=lambda: store)
    deployer = GatewayDeployer(rig.settings, context, clock=rig.clock)
    deployer.enroll("cam-07", group="line")
    store.lost = 0
    invited = deployer.invite("cam-07", group="line")
    assert store.lost == 1
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(invited.token))))


def test_a_second_machine_needs_to_be_meant(rig: Rig, deployer: GatewayDeployer) -> None:
    invited = deployer.invite("cam-07", group="line", labels={"site": "north"})
    old = rig.said(rig.joining.enroll(Machine().enrolment(invited.token)))
    with pytest.raises(AlreadyExistsError, match="--replace"):
        deployer.invite("cam-07", group="line", labels={"site": "south"})
    assert rig.record("cam-07").labels == {"site": "north"}
    meant = deployer.invite("cam-07", group="line", replace=True)
    assert rig.counts(old)  # it goes on until the new one comes
    new = rig.said(rig.joining.enroll(Machine().enrolment(meant.token)))
    assert rig.counts(new)
    assert not rig.counts(old)


def test_a_device_stays_in_its_group(rig: Rig, deployer: GatewayDeployer) -> None:
    deployer.invite("cam-07", group="line")
    with pytest.raises(ConflictError, match="is in group 'line'"):
        deployer.invite("cam-07", group="other")
    assert rig.record("cam-07").group == "line"


def test_before_there_is_an_authority_nobody_is_invited(tmp_path: Path) -> None:
    state = DirectoryStateStore(tmp_path / "fleet")
    rig = Rig(tmp_path / "another")
    context = Context(base=tmp_path, name="gateway", state=lambda: state)
    deployer = GatewayDeployer(rig.settings, context)
    with pytest.raises(UnavailableError, match="edgefleet gateway serve"):
        deployer.invite("cam-07", group="line")
    assert list(state.keys("edgefleet/")) == []


@pytest.mark.parametrize(
    "lasts, said", [(timedelta(seconds=59), "0.0164 hours"), (timedelta(days=31), "744 hours")]
)
def test_a_token_lasts_a_minute_to_thirty_days(
    deployer: GatewayDeployer, lasts: timedelta, said: str
) -> None:
    with pytest.raises(InvalidInputError, match=f"can't last {said}"):
        deployer.invite("cam-07", group="line", lasts=lasts)


def test_a_revoked_device_and_what_it_was_invited_with_count_no_more(
    rig: Rig, deployer: GatewayDeployer
) -> None:
    given = rig.said(
        rig.joining.enroll(Machine().enrolment(deployer.invite("cam-07", group="line").token))
    )
    pending = deployer.invite("cam-07", group="line", replace=True)
    deployer.revoke("cam-07")
    deployer.revoke("cam-07")
    assert not rig.counts(given)
    with pytest.raises(RefusedError):
        rig.joining.enroll(Machine().enrolment(pending.token))
    with pytest.raises(RefusedError, match="revoked"):
        rig.renew(given)
    assert rig.roster.bell().changes[-1][1] == "device/cam-07"
    back = deployer.invite("cam-07", group="line", replace=True)
    assert rig.counts(rig.said(rig.joining.enroll(Machine().enrolment(back.token))))
    assert not rig.counts(given)


def test_nobody_unknown_is_revoked(deployer: GatewayDeployer) -> None:
    with pytest.raises(NotFoundError):
        deployer.revoke("cam-99")


def test_a_retired_device_leaves_no_invitation(rig: Rig, deployer: GatewayDeployer) -> None:
    invited = deployer.invite("cam-07", group="line")
    deployer.retire("cam-07")
    assert list(rig.state.keys(rig.keys.tokens)) == []
    with pytest.raises(RefusedError, match="unknown"):
        rig.joining.enroll(Machine().enrolment(invited.token))


# ------------------------------------------------------------------------------ the command


def test_the_command_shows_the_token_to_no_list_of_processes() -> None:
    words = shlex.split(command("https://gw.example:8443", ("cGlu",), "TOKEN"), comments=False)
    at = words.index("TOKEN")
    assert words[at - 2 : at] == ["printf", "%s"]  # the shell's own
    assert words.count("TOKEN") == 1
    assert "sha256//cGlu" in words


def test_the_command_quotes_what_a_shell_would_read() -> None:
    text = command("https://gw.example:8443;touch x", ("a'b", "$(touch y)"), "`touch z`")
    words = shlex.split(text)
    assert "https://gw.example:8443;touch x/install.sh" in words
    assert "sha256//a'b;sha256//$(touch y)" in words
    assert "`touch z`" in words


def test_without_pins_the_system_verifies_the_gateway() -> None:
    text = command("https://gw.example", (), "TOKEN")
    assert "curl -fsS https://gw.example/install.sh" in text
    assert "-k" not in text
    assert "--pin" not in text


SCRIPT = b'printf "%s|" "$@" > "$SEEN"; cat >> "$SEEN"\n'


@contextmanager
def offering(rig: Rig) -> Iterator[str]:
    """A gateway's own certificate, and a script that writes down what it was given."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/install.sh" else 404)
            self.send_header("Content-Length", str(len(SCRIPT)))
            self.end_headers()
            self.wfile.write(SCRIPT)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that refuses the certificate is none of a server's errors."""

    server = Server(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files = rig.authority.serve(["elsewhere.example"])  # -k: no name is looked at
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"https://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def paste(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """What the command does in a shell of a machine where ``sudo`` asks for nothing."""
    sudo = folder / "bin" / "sudo"
    sudo.parent.mkdir(exist_ok=True)
    sudo.write_text('#!/bin/sh\nexec "$@"\n')
    sudo.chmod(0o755)
    environment = {"PATH": f"{sudo.parent}:/usr/bin:/bin", "SEEN": str(folder / "seen")}
    return subprocess.run(
        ["sh", "-c", text],
        env={**environment, "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.skipif(shutil.which("curl") is None, reason="the command needs curl")
def test_pasted_the_command_runs_the_gateways_script_with_the_token(
    rig: Rig, tmp_path: Path
) -> None:
    with offering(rig) as address:
        done = paste(command(address, ("x" * 43 + "=", *rig.authority.pins), "TOKEN"), tmp_path)
    assert done.returncode == 0, done.stderr
    pins = f"sha256//{'x' * 43}=;sha256//{rig.authority.pins[0]}"
    assert (tmp_path / "seen").read_text() == f"--gateway|{address}|--pin|{pins}|TOKEN"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the command needs curl")
def test_pasted_the_command_runs_nothing_of_a_gateway_with_another_key(
    rig: Rig, tmp_path: Path
) -> None:
    with offering(rig) as address:
        done = paste(command(address, ("x" * 43 + "=",), "TOKEN"), tmp_path)
    assert done.returncode == 90  # curl's CURLE_SSL_PINNEDPUBKEYNOTMATCH
    assert not (tmp_path / "seen").exists()
