"""What stands in the mock of Kubernetes before anybody calls: an API server and its rules."""

from __future__ import annotations

import secrets
import ssl
from contextlib import contextmanager
from typing import TYPE_CHECKING

import yaml

from edgefleet.protocol.files import write_whole
from edgefleet.testing.cloud.authority import Authority
from edgefleet.testing.cloud.front import Front, Journal
from edgefleet_kubernetes.cloud.admission import Admission
from edgefleet_kubernetes.cloud.api_evictions import Evictions
from edgefleet_kubernetes.cloud.api_server import ApiServer
from edgefleet_kubernetes.cloud.api_store import Store
from edgefleet_kubernetes.cloud.api_users import AUTHENTICATED, MASTERS, User
from edgefleet_kubernetes.cloud.authentication import Authentication
from edgefleet_kubernetes.cloud.authorization import Rbac
from edgefleet_kubernetes.cloud.bootstrap import bootstrap
from edgefleet_kubernetes.cloud.kubelet import Api
from edgefleet_kubernetes.cloud.kubelet_access import PROXIED, PodAccess
from edgefleet_kubernetes.cloud.kubelet_pod import Timing
from edgefleet_kubernetes.cloud.node_cluster import Cluster
from edgefleet_kubernetes.cloud.node_images import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from edgefleet.testing.cloud.keeping import Part
    from edgefleet.testing.cloud.rules import Rules
    from edgefleet_kubernetes.cloud.api_objects import Object

OPERATOR = "edgefleet-operator"
"""The user of the kubeconfig that the mock gives."""


class Stage:
    """One cluster: objects, and the API server that answers for them.

    Args:
        rules: faults to inject.
        folder: for certificates and kubeconfigs.
        name: of the cluster, and of its context in a kubeconfig.
        version: of Kubernetes, such as ``1.31``; None for the newest there are schemas of.
        journal: where each call is written; None for one of its own.
        timing: pauses of nodes and controllers.
        borrowed: gives variables of other clouds, which containers find in their environment too.

    Attributes:
        store: the objects; controllers and kubelets use it directly.
        server: the API server.
        authority: certifies it.
        authentication: knows who calls, and issues tokens.
        rbac: says who may do what.
        journal: what was called.
        nodes: run pods; controllers and scheduler are with them.
    """

    def __init__(
        self,
        rules: Rules,
        folder: Path,
        *,
        name: str = "mock",
        version: str | None = None,
        journal: Journal | None = None,
        timing: Timing = Timing(),  # noqa: B008 - frozen
        borrowed: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self.name = folder, name
        self.authority = Authority(folder / "authority", vendor="Kubernetes")
        self.store = Store(version=version)
        self.journal = journal or Journal()
        self.authentication = Authentication(self.store)
        self.rbac = Rbac(self.store)
        self.server = ApiServer(
            self.store,
            rules=rules,
            journal=self.journal,
            authenticate=self.authentication,
            authorize=self.rbac.check,
        )
        self.nodes = Cluster(
            self.store,
            folder / "nodes",
            images=images(),
            api=Api(address=lambda: ("127.0.0.1", self.port), issue=self._issue),
            timing=timing,
            borrowed=borrowed,
        )
        self._answer_reviews()
        self.store.admission += [self.rbac.no_escalation, Admission(self.store)]
        tls = self.authority.context()
        tls.verify_mode = ssl.CERT_OPTIONAL
        tls.load_verify_locations(self.authority.certificate)
        self._front = Front(f"mock-kubernetes-{name}", self.server, tls=tls)
        self._port = 0

    def _answer_reviews(self) -> None:
        accounts, rbac, pods = self.authentication, self.rbac, PodAccess(self.nodes)
        self.server.others |= {
            "pods/log.get": pods.log,
            **{f"pods/proxy.{verb}": pods.proxy for verb in PROXIED},
            "pods/eviction.create": Evictions(self.store).evict,
            "selfsubjectaccessreviews.create": rbac.review_self,
            "selfsubjectreviews.create": accounts.review_self,
            "serviceaccounts/token.create": accounts.request_token,
            "subjectaccessreviews.create": rbac.review,
            "tokenreviews.create": accounts.review_token,
        }

    @property
    def parts(self) -> dict[str, Part]:
        """What goes on where it was."""
        return {
            f"{self.name} objects": self.store,
            f"{self.name} tokens": self.authentication,
            f"{self.name} nodes": self.nodes,
        }

    @property
    def running(self) -> bool:
        """Whether the cluster can be called."""
        return self._front.running

    @property
    def url(self) -> str:
        """Address of the API server."""
        return self._front.url

    @property
    def port(self) -> int:
        """That the API server listens on; of one that is away, the port it comes back on."""
        return self._front.port or self._port

    @property
    def token(self) -> str:
        """The operator's."""
        return self.authentication.token_of(OPERATOR) or self.add_user(OPERATOR, (MASTERS,))

    def open(self, port: int = 0) -> None:
        """Have what every cluster has, and listen.

        Args:
            port: that it had before, taken again where it is free.
        """
        bootstrap(self.store, self.authority.certificate.read_text())
        self._front.start(port)
        self.nodes.start()

    def shut_down(self) -> None:
        """Shut every node down in order; `parts` still tell of them. May be called twice."""
        self.nodes.stop()

    def close(self) -> None:
        """Shut nodes down, stop listening, and end every watch; may be called twice."""
        self.shut_down()
        self._stop()
        self.store.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """Have no API server while the block runs: connections are cut, and nobody listens."""
        self._port = self._front.port
        self._stop()
        try:
            yield
        finally:
            self._front.start(self._port)

    def add_user(self, name: str, groups: Iterable[str] = ()) -> str:
        """Have a user who may do what roles say; one who is known keeps their token.

        Args:
            name: of the user.
            groups: that they are in.

        Returns:
            Their bearer token.
        """
        token = self.authentication.token_of(name) or secrets.token_urlsafe(24)
        self.authentication.add(token, User(name, (*groups, AUTHENTICATED)))
        return token

    def kubeconfig(self, path: Path, *, token: str = "", namespace: str = "default") -> Path:
        """Write a kubeconfig for the cluster; nobody else on this machine may read it.

        Args:
            path: of the file.
            token: of who calls; empty for the operator's.
            namespace: of its context.
        """
        return write_kubeconfig(path, [(self, token or self.token)], namespace=namespace)

    def _issue(
        self, namespace: str, account: str, *, audience: str | None, expires_s: int, pod: Object
    ) -> str:
        """A token for a pod, as its kubelet asks for it."""
        made = self.authentication.issue(
            namespace,
            account,
            audiences=() if audience is None else (audience,),
            seconds=expires_s,
            pod=pod["metadata"]["name"],
        )
        return made.token

    def _stop(self) -> None:
        self.server.reading.end_watches()
        self._front.stop()


def write_kubeconfig(
    path: Path, clusters: Iterable[tuple[Stage, str]], *, namespace: str = "default"
) -> Path:
    """Write a kubeconfig for clusters, each with a token; the first is the current one."""
    found = list(clusters)
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": found[0][0].name,
        "clusters": [
            {
                "name": one.name,
                "cluster": {
                    "server": one.url,
                    "certificate-authority": str(one.authority.certificate.absolute()),
                },
            }
            for one, _ in found
        ],
        "users": [{"name": one.name, "user": {"token": token}} for one, token in found],
        "contexts": [
            {
                "name": one.name,
                "context": {"cluster": one.name, "user": one.name, "namespace": namespace},
            }
            for one, _ in found
        ],
    }
    path.touch(mode=0o600)
    write_whole(path, yaml.safe_dump(document).encode())
    path.chmod(0o600)
    return path
