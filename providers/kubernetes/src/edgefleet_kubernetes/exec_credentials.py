"""Tokens that a program gives, as kubeconfigs of clouds have them.

See https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins;
lightkube knows the older versions of it only, and asks the program anew for each client.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import httpx2
import msgspec

from edgefleet.errors import AccessDeniedError, ProfileError
from edgefleet.protocol.typed import UNREADABLE, decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from lightkube.config.models import UserExec

PROGRAM_S = 120.0  # a program may ask a person to sign in
EARLY_S = 60.0  # a token that ends so soon is had anew
_DOMAIN = "client.authentication.k8s.io/"
_VERSIONS = ("v1", "v1beta1")


class _Status(msgspec.Struct, frozen=True, rename="camel"):
    token: str
    expiration_timestamp: Annotated[datetime, msgspec.Meta(tz=True)] | None = None


class _Credential(msgspec.Struct, frozen=True):
    """What is read of an ``ExecCredential``."""

    status: _Status


def _now() -> datetime:
    return datetime.now(UTC)


class ExecCredentials(httpx2.Auth):
    """Shows the token of a program, which is asked again when it ends or is refused.

    Args:
        program: as the kubeconfig has it.
        clock: gives the time.
    """

    def __init__(self, program: UserExec, *, clock: Callable[[], datetime] = _now) -> None:
        self._program, self._clock = program, clock
        self._lock = threading.Lock()
        self._token: str | None = None
        self._ends: datetime | None = None
        version = program.apiVersion.removeprefix(_DOMAIN)
        if version not in _VERSIONS:
            raise ProfileError(
                f"the kubeconfig's credential program speaks {program.apiVersion}, which is "
                "out of use",
                cure=f"have it written anew for {_DOMAIN}v1",
            )

    def sync_auth_flow(
        self, request: httpx2.Request
    ) -> Generator[httpx2.Request, httpx2.Response, None]:
        """Send a request with the token; once more with a new one where it is refused.

        Raises:
            AccessDeniedError: the program gives no token.
        """
        token = self._current(None)
        request.headers["Authorization"] = f"Bearer {token}"
        response = yield request
        if response.status_code == 401:
            request.headers["Authorization"] = f"Bearer {self._current(token)}"
            yield request

    def _current(self, refused: str | None) -> str:
        with self._lock:
            ends = self._ends is not None and self._ends - self._clock() < timedelta(
                seconds=EARLY_S
            )
            if self._token is None or ends or self._token == refused:
                self._token, self._ends = self._ask()
            return self._token

    def _ask(self) -> tuple[str, datetime | None]:
        program = self._program
        version = program.apiVersion
        asked = {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
        environment = {
            **os.environ,
            **{one.name: one.value for one in program.env or ()},
            "KUBERNETES_EXEC_INFO": json.dumps(asked),
        }
        cure = program.installHint or "run it yourself and see what it lacks"
        try:
            done = subprocess.run(
                [program.command, *(program.args or ())],
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=True,
                timeout=PROGRAM_S,
            )
            status = decoder(_Credential).decode(done.stdout).status
        except OSError as error:
            raise AccessDeniedError(
                f"the kubeconfig's credential program {program.command} can't be run: "
                f"{error.strerror}",
                cure=cure,
            ) from error
        except subprocess.SubprocessError as error:
            # Nothing of the cause may go on: it repeats the arguments, which may hold a secret.
            raise AccessDeniedError(
                f"the kubeconfig's credential program {program.command} failed: {_ended(error)}",
                cure=cure,
            ) from None
        except UNREADABLE as error:
            raise AccessDeniedError(
                f"the kubeconfig's credential program {program.command} gave no token", cure=cure
            ) from error
        return status.token, status.expiration_timestamp


def _ended(error: subprocess.SubprocessError) -> str:
    status = getattr(error, "returncode", None)
    return f"no answer in {PROGRAM_S:.0f} s" if status is None else f"status {status}"
