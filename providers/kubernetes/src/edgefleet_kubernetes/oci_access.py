"""What an operator shows an OCI registry: credentials from docker's files, and tokens for them.

Rules kept here:

- Nothing is sent before the registry has asked for it, and nothing to another host than it, or the
  place it names for tokens (see `edgefleet.protocol.oci`).
- A credential helper is run by its name alone: no shell, no argument from the file.
- A token allows what was asked for so far, so that reading and writing don't take turns.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.errors import (
    AccessDeniedError,
    AccessExpiredError,
    ConfigurationError,
)
from edgefleet.protocol.oci import (
    Credentials,
    Helper,
    TokenRequest,
    answer_to,
    credentials_in,
    credentials_told,
    read_challenge,
    read_token,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.protocol.oci import Repository

    Ask = Callable[[TokenRequest], bytes]

MAX_CONFIG_BYTES = 1 << 20
HELPER_TIMEOUT_S = 60.0  # some ask a cloud
LOG_IN = "log in to the registry (docker login, oras login), or set `registry_credentials`"


def usual_places(environment: Mapping[str, str], home: Path) -> Iterator[Path]:
    """Files that docker, podman and oras keep credentials in, the first that is there counts."""
    if "REGISTRY_AUTH_FILE" in environment:
        yield Path(environment["REGISTRY_AUTH_FILE"])
    yield Path(environment.get("DOCKER_CONFIG", home / ".docker")) / "config.json"
    if "XDG_RUNTIME_DIR" in environment:
        yield Path(environment["XDG_RUNTIME_DIR"]) / "containers" / "auth.json"
    yield home / ".config" / "containers" / "auth.json"


def find_credentials(repository: Repository, named: Path | None) -> Credentials | None:
    """Who we are at a repository; None where nothing says it.

    Args:
        repository: that is to be read or written.
        named: the file that the profile names; None for the usual places.

    Raises:
        ConfigurationError: the file can't be read, or its helper is missing or fails.
    """
    if named is not None:
        return _found_in(named, repository)
    for path in usual_places(os.environ, Path.home()):
        if path.is_file() and (found := _found_in(path, repository)) is not None:
            return found
    return None


def _found_in(path: Path, repository: Repository) -> Credentials | None:
    try:
        with path.open("rb") as stream:
            found = credentials_in(stream.read(MAX_CONFIG_BYTES), repository)
    except OSError as error:
        raise ConfigurationError(
            f"the registry's credentials in {path} can't be read: {error.strerror}",
            cure="set `registry_credentials` to a file in docker's config.json form",
        ) from error
    except ConfigurationError as error:
        error.prefixed(str(path))
        raise
    return _ask_helper(found) if isinstance(found, Helper) else found


def _ask_helper(helper: Helper) -> Credentials:
    name = f"docker-credential-{helper.name}"
    program = shutil.which(name)
    if program is None:
        raise ConfigurationError(f"{name} is not installed", cure=f"install it, or {LOG_IN}")
    try:
        done = subprocess.run(
            [program, "get"],
            input=helper.server.encode(),
            capture_output=True,
            timeout=HELPER_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{name} can't be asked: {type(error).__name__}") from None
    if done.returncode != 0:  # what it says goes nowhere: it may hold a secret
        raise ConfigurationError(f"{name} has nothing for {helper.server}", cure=LOG_IN)
    return credentials_told(done.stdout)


class Access:
    """What is shown next.

    Args:
        repository: that is read and written.
        find: gives the credentials; called when the registry asks for some.
        ask: sends a request for a token and gives the answer.
    """

    def __init__(
        self, repository: Repository, find: Callable[[], Credentials | None], ask: Ask
    ) -> None:
        self.shown: str | None = None
        """Value of the next request's ``Authorization``; None for nothing."""
        self._repository, self._find, self._ask = repository, find, ask
        self._scopes: dict[str, None] = {}
        self._lock = threading.Lock()

    def also(self, scope: str) -> None:
        """Have tokens allow one thing more, such as ``repository:other:pull``."""
        with self._lock:
            self._scopes[scope] = None

    def renew(self, header: str, before: str | None) -> None:
        """Have something new to show.

        Args:
            header: of the registry's challenge.
            before: what was shown when it came; another thread may have renewed it since.

        Raises:
            AccessDeniedError: there is nothing that could be shown.
            AccessExpiredError: what there is was shown, and is not taken.
        """
        with self._lock:
            if self.shown != before:
                return
            challenge, credentials = read_challenge(header), self._find()
            host = self._repository.host
            if challenge is None:
                raise AccessDeniedError(f"{host} refuses us, and says not what it wants")
            self._scopes |= dict.fromkeys(challenge.scopes)
            shown = answer_to(challenge, credentials, self._repository, self._scopes)
            if shown is None:
                raise AccessDeniedError(f"{host} wants credentials, there are none", cure=LOG_IN)
            if isinstance(shown, TokenRequest):
                shown = f"Bearer {read_token(self._ask(shown)).value}"
            if shown == before:
                raise AccessExpiredError(f"{host} doesn't take the credentials", cure=LOG_IN)
            self.shown = shown
