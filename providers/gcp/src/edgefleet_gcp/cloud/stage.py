"""What stands in the mock of Google Cloud: its hosts, each a port of its own on loopback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edgefleet.testing.cloud.authority import Authority
from edgefleet.testing.cloud.front import Front, Journal
from edgefleet.testing.cloud.server import App
from edgefleet_gcp.cloud.calls import Call, google_error
from edgefleet_gcp.cloud.emulator import Emulator
from edgefleet_gcp.cloud.identities import OPERATOR, Identities
from edgefleet_gcp.cloud.pubsub import PubSub
from edgefleet_gcp.cloud.sessions import Sessions
from edgefleet_gcp.cloud.storage import Storage
from edgefleet_gcp.cloud.tokens import Tokens, oauth_error
from edgefleet_gcp.cloud.xml_api import XmlApi

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.keeping import Part
    from edgefleet.testing.cloud.rules import Rules

STORAGE, PUBSUB, TOKENS, METADATA = "storage", "pubsub", "tokens", "metadata"


class Stage:
    """The mock cloud as a whole.

    Args:
        rules: faults to inject.
        folder: for what is kept, and certificates.
        project: of everything.

    Attributes:
        authority: makes certificates.
        identities: who may call.
        tokens: where google-auth gets tokens.
        emulator: keeps objects.
        storage: Cloud Storage.
        pubsub: topics and subscriptions.
        parts: what goes on where it was.
    """

    def __init__(self, rules: Rules, folder: Path, project: str) -> None:
        self._folder = folder
        self._journal = Journal()
        self.authority = Authority(folder / "authority", vendor="Google Cloud")
        self.identities = Identities(project)
        self.tokens = Tokens(self.identities, project)
        self.emulator = Emulator(folder / "objects")
        sessions = Sessions(folder / "uploads")
        self.storage = Storage(self.emulator, sessions, self.identities)
        self.pubsub = PubSub()
        self.parts: dict[str, Part] = {
            "identities": self.identities,
            "tokens": self.tokens,
            "uploads": sessions,
            "pubsub": self.pubsub,
        }
        secure = self.authority.context()
        self._fronts: dict[str, Front] = {}
        for name, mount, tls in (
            (STORAGE, self.storage, secure),
            (PUBSUB, self.pubsub, None),
            (TOKENS, self.tokens, secure),
            (METADATA, self.tokens, None),
        ):
            app = App(
                name,
                Call,
                rules=rules,
                journal=self._journal,
                admit=self.identities.admit,
                refuse=oauth_error if mount is self.tokens else google_error,
                caller=lambda call: call.headers.get("authorization", ""),
            )
            app.mount(mount)
            if name == STORAGE:
                app.mount(XmlApi(self.storage))
            self._fronts[name] = Front(f"mock-gcp-{name}", app, tls=tls)

    @property
    def running(self) -> bool:
        """Whether the cloud can be called."""
        return self._fronts[STORAGE].running

    def url(self, host: str) -> str:
        """Where a host can be called, without a slash at the end."""
        return self._fronts[host].url

    @property
    def ports(self) -> dict[str, int]:
        """Port of each host."""
        return {name: front.port for name, front in self._fronts.items()}

    def open(self, ports: Mapping[str, int]) -> None:
        """Listen.

        Args:
            ports: that hosts had before, taken again where they are free.
        """
        self.emulator.start()
        for name, front in self._fronts.items():
            front.start(ports.get(name, 0))

    def close(self) -> None:
        """Stop listening; may be called twice."""
        if self.running:
            self.emulator.stop()
        for front in self._fronts.values():
            front.stop()

    def key_file(self, name: str = OPERATOR) -> Path:
        """A file with a key of an account, for ``GOOGLE_APPLICATION_CREDENTIALS``."""
        path = self._folder / "keys" / f"{name}.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        uri = f"{self.url(TOKENS)}/token"
        if path.exists() and json.loads(path.read_bytes())["token_uri"] == uri:
            return path
        path.touch(mode=0o600)
        path.write_text(json.dumps(self.identities.key_file(name, uri)))
        return path

    def federated_file(self, name: str, subject: Path) -> Path:
        """A file for workload identity federation: its subject token stands for an account.

        https://cloud.google.com/iam/docs/workload-identity-federation
        """
        self.tokens.federated[subject.read_text().strip()] = name
        pool = "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/plant"
        told = {
            "type": "external_account",
            "audience": f"{pool}/providers/cluster",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": f"{self.url(TOKENS)}/v1/token",
            "credential_source": {"file": str(subject.absolute())},
        }
        path = self._folder / "keys" / f"{name}-federated.json"
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.write_text(json.dumps(told))
        return path

    def seen(self) -> Iterator[str]:
        """A line a call, oldest first."""
        return self._journal.lines()
