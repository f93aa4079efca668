"""Clients: kubeconfigs, contexts, credentials, retries, errors with cures."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
import pytest
import yaml
from lightkube import ApiError

from edgefleet.errors import AccessDeniedError, ProfileError, UnavailableError
from edgefleet.testing.cloud.rules import Rule
from edgefleet_kubernetes import kubeconfig
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_status import Refused, throttled
from edgefleet_kubernetes.cloud.stage import Stage
from edgefleet_kubernetes.errors import problem_of
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.retries import PAUSES, Retrying
from edgefleet_kubernetes.settings import KubernetesSettings
from providers.kubernetes.tests.cloud.api_samples import config_map

MakeClients = Callable[..., Clients]
BUSY = Refused(503, "ServiceUnavailable", "busy")


# ---------------------------------------------------------------------------------- kubeconfig


def test_the_environment_names_the_kubeconfig(
    mock: KubernetesMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in mock.environment.items():
        monkeypatch.setenv(key, value)
    clients = Clients(KubernetesSettings())
    assert clients.contexts == ("mock",)
    assert clients.call("GET", "version")["major"] == "1"
    clients.close()


def test_of_several_files_the_first_that_names_something_wins(
    cluster: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "other"
    folder.mkdir()
    for place, current in ((tmp_path, "one"), (folder, "two")):
        cluster.kubeconfig(place / "config")
        document = yaml.safe_load((place / "config").read_text())
        authority = place / "ca.pem"
        authority.write_bytes(cluster.authority.certificate.read_bytes())
        document["clusters"][0]["cluster"]["certificate-authority"] = "ca.pem"
        document["contexts"][0]["name"] = document["current-context"] = current
        (place / "config").write_text(yaml.safe_dump(document))
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'config'}:{folder / 'config'}:/not/there")
    clients = Clients(KubernetesSettings(contexts=("two", "one")))
    assert Clients(KubernetesSettings()).contexts == ("one",)
    for context in clients.contexts:
        assert clients.call("GET", "version", context=context)["major"] == "1"
    clients.close()


def test_a_relative_kubeconfig_starts_at_the_profile(cluster: Stage, tmp_path: Path) -> None:
    cluster.kubeconfig(tmp_path / "config")
    clients = Clients(KubernetesSettings(kubeconfig=Path("config")), base=tmp_path)
    assert clients.call("GET", "version")["major"] == "1"
    clients.close()


def test_in_a_pod_its_account_calls(
    cluster: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "token").write_text(cluster.authentication.issue("default", "default").token)
    (tmp_path / "namespace").write_text("default")
    (tmp_path / "ca.crt").write_bytes(cluster.authority.certificate.read_bytes())
    monkeypatch.setattr(kubeconfig, "ACCOUNT", tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(cluster.port))
    clients = Clients(KubernetesSettings())
    with pytest.raises(ApiError, match=r"system:serviceaccount:default:default"):
        clients.call("GET", "api/v1/nodes")
    clients.close()


def test_where_nothing_is_set_up_the_cure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(ProfileError, match=r"set `kubeconfig` in the profile"):
        Clients(KubernetesSettings()).http()


@pytest.mark.parametrize("content", ["", "[]", "{", "clusters: {}", "contexts: [{}]"])
def test_a_file_that_is_no_kubeconfig_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)
    with pytest.raises(ProfileError):
        Clients(KubernetesSettings(kubeconfig=path)).http()


def test_a_context_that_isnt_there_is_told_with_those_there_are(make_clients: MakeClients) -> None:
    with pytest.raises(ProfileError, match=r"no whole context 'plant'; it has mock"):
        make_clients(contexts=("plant",)).http()


def test_a_kubeconfig_without_a_current_context_needs_one_named(
    cluster: Stage, tmp_path: Path
) -> None:
    path = cluster.kubeconfig(tmp_path / "config")
    document = yaml.safe_load(path.read_text())
    del document["current-context"]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ProfileError, match=r"set `contexts`"):
        _ = Clients(KubernetesSettings(kubeconfig=path)).contexts


def _with_program(cluster: Stage, folder: Path, script: str, version: str = "v1") -> Clients:
    """Clients of a kubeconfig whose token a program gives."""
    program = folder / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o700)
    path = cluster.kubeconfig(folder / "config")
    document = yaml.safe_load(path.read_text())
    named = {"apiVersion": f"client.authentication.k8s.io/{version}", "command": str(program)}
    document["users"][0]["user"] = {"exec": {**named, "installHint": "install the program"}}
    path.write_text(yaml.safe_dump(document))
    return Clients(KubernetesSettings(kubeconfig=path, max_attempts=1))


def _given(token: str, **status: str) -> str:
    """What prints a credential, and notes that it was asked."""
    found = {"kind": "ExecCredential", "status": {"token": token, **status}}
    return f"echo asked >> \"$(dirname $0)/asked\"; echo '{json.dumps(found)}'"


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_a_token_that_a_program_gives_is_taken_once(
    cluster: Stage, tmp_path: Path, version: str
) -> None:
    clients = _with_program(cluster, tmp_path, _given(cluster.token), version)
    assert clients.call("GET", "api/v1/nodes")["kind"] == "NodeList"
    assert clients.call("GET", "api/v1/namespaces")["items"]
    clients.close()
    assert (tmp_path / "asked").read_text().splitlines() == ["asked"]


def test_a_token_that_ends_soon_is_asked_for_anew(cluster: Stage, tmp_path: Path) -> None:
    script = _given(cluster.token, expirationTimestamp="2020-01-01T00:00:00Z")
    clients = _with_program(cluster, tmp_path, script)
    for _ in range(2):
        clients.call("GET", "api/v1/nodes")
    clients.close()
    assert (tmp_path / "asked").read_text().splitlines() == ["asked"] * 2


def test_a_token_that_is_refused_is_asked_for_anew_once(cluster: Stage, tmp_path: Path) -> None:
    clients = _with_program(cluster, tmp_path, _given("made-up"))
    with pytest.raises(ApiError, match=r"Unauthorized"):
        clients.call("GET", "api/v1/nodes")
    clients.close()
    assert (tmp_path / "asked").read_text().splitlines() == ["asked"] * 2


@pytest.mark.parametrize(
    "script",
    [
        "exit 1",
        "echo no",
        "echo '{}'",
        "printf '%0100000d' 0 | tr 0 '['",
        _given("t", expirationTimestamp="tomorrow"),
    ],
    ids=["fails", "a word", "nothing", "deep", "no time"],
)
def test_a_program_that_gives_no_token_is_told_with_its_hint(
    cluster: Stage, tmp_path: Path, script: str
) -> None:
    clients = _with_program(cluster, tmp_path, script)
    with pytest.raises(AccessDeniedError, match=r"install the program"):
        clients.call("GET", "api/v1/nodes")
    clients.close()


def test_a_program_that_fails_is_told_without_its_arguments(cluster: Stage, tmp_path: Path) -> None:
    clients = _with_program(cluster, tmp_path, "exit 3")
    path = tmp_path / "config"
    document = yaml.safe_load(path.read_text())
    document["users"][0]["user"]["exec"]["args"] = ["--client-secret", "a-password"]
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(AccessDeniedError, match=r"status 3") as caught:
        clients.call("GET", "api/v1/nodes")
    clients.close()
    assert "a-password" not in "".join(traceback.format_exception(caught.value))


def test_a_program_of_a_version_out_of_use_is_refused(cluster: Stage, tmp_path: Path) -> None:
    clients = _with_program(cluster, tmp_path, _given(cluster.token), "v1alpha1")
    with pytest.raises(ProfileError, match=r"out of use"):
        clients.call("GET", "api/v1/nodes")


# --------------------------------------------------------------------------- what the seam does


DEEP = b'{"a":' + b"[" * 100_000


@pytest.mark.parametrize(
    "said,media",
    [(DEEP, "application/json"), (b"[]", "application/json"), (b"<p>sign in</p>", "text/html")],
    ids=["deep", "list", "page"],
)
@pytest.mark.parametrize("status", [200, 403])
def test_a_proxy_that_answers_in_place_of_the_server_is_told(
    cluster: Stage, tmp_path: Path, status: int, said: bytes, media: str
) -> None:
    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", media)
            self.send_header("Content-Length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *_: object) -> None: ...

    path = cluster.kubeconfig(tmp_path / "config")
    with ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            document = yaml.safe_load(path.read_text())
            document["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{server.server_port}"
            path.write_text(yaml.safe_dump(document))
            clients = Clients(KubernetesSettings(kubeconfig=path, max_attempts=1))
            with pytest.raises((UnavailableError, httpx2.HTTPStatusError)) as caught:
                clients.call("GET", "api/v1/nodes")
            clients.close()
        finally:
            server.shutdown()
            thread.join()
    assert "which no API server does" in str(problem_of(caught.value))


def test_an_unknown_field_is_refused_by_the_server(clients: Clients, namespace: str) -> None:
    path = f"api/v1/namespaces/{namespace}/configmaps"
    with pytest.raises(ApiError, match=r"strict decoding error"):
        clients.call("POST", path, document={**config_map(), "dta": {}})


def test_each_context_has_clients_of_its_own(tmp_path: Path) -> None:
    two = KubernetesMock(tmp_path, clusters=("north", "south"))
    two.start()
    settings = KubernetesSettings(**two.settings)
    clients = Clients(settings)
    try:
        two.cluster("south").store.create(config_map(namespace="edgefleet"))
        path = "api/v1/namespaces/edgefleet/configmaps"
        found = {
            context: [
                one["metadata"]["name"]
                for one in clients.call("GET", path, context=context)["items"]
            ]
            for context in clients.contexts
        }
    finally:
        clients.close()
        two.stop()
    assert found == {"north": ["kube-root-ca.crt"], "south": ["a", "kube-root-ca.crt"]}


# ------------------------------------------------------------------------------------- retries


def test_what_was_refused_undone_is_repeated(
    mock: KubernetesMock, make_clients: MakeClients, namespace: str
) -> None:
    mock.rules.add(Rule("configmaps.create", times=2, fault=throttled(0)))
    clients = make_clients(max_attempts=3)
    path = f"api/v1/namespaces/{namespace}/configmaps"
    assert clients.call("POST", path, document=config_map())["metadata"]["uid"]


class Scripted(httpx2.BaseTransport):
    """Answers by a list: a status, or an error to raise; and notes what it was asked."""

    def __init__(self, *answers: int | Exception | httpx2.Response) -> None:
        self._answers = list(answers)
        self.asked: list[httpx2.Request] = []

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return httpx2.Response(answer) if isinstance(answer, int) else answer


def _sent(
    method: str, *answers: int | Exception | httpx2.Response, attempts: int = 4, media: str = ""
) -> tuple[Any, list[float], Scripted]:
    scripted, waits = Scripted(*answers), list[float]()
    transport = Retrying(scripted, attempts, wait=waits.append)
    headers = {"Content-Type": media} if media else {}
    request = httpx2.Request(method, "https://cluster/api/v1/pods", headers=headers)
    try:
        found: Any = transport.handle_request(request).status_code
    except httpx2.TransportError as error:
        found = type(error)
    return found, waits, scripted


CUT = httpx2.ReadError("cut")
NEVER = httpx2.ConnectError("refused")
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


@pytest.mark.parametrize(
    "method,answers,media,found,tries",
    [
        ("GET", (503, 500, 200), "", 200, 3),
        ("GET", (CUT, NEVER, 200), "", 200, 3),
        ("GET", (503, 503, 503, 503), "", 503, 4),
        ("GET", (404,), "", 404, 1),
        ("PUT", (CUT, 200), "", 200, 2),
        ("DELETE", (504, 200), "", 200, 2),
        ("POST", (429, 201), "", 201, 2),
        ("POST", (NEVER, 201), "", 201, 2),
        ("POST", (500,), "", 500, 1),
        ("POST", (CUT,), "", httpx2.ReadError, 1),
        ("PATCH", (503, 200), MERGE, 200, 2),
        ("PATCH", (503,), JSON_PATCH, 503, 1),
        ("PATCH", (429, 200), JSON_PATCH, 200, 2),
    ],
)
def test_what_may_be_done_twice_is_repeated(
    method: str, answers: tuple[Any, ...], media: str, found: Any, tries: int
) -> None:
    status, waits, scripted = _sent(method, *answers, media=media)
    assert (status, len(scripted.asked), len(waits)) == (found, tries, tries - 1)


def test_a_wait_that_is_asked_for_is_kept() -> None:
    told = httpx2.Response(503, headers={"Retry-After": "3"})
    status, waits, _ = _sent("POST", told, 201)
    assert (status, waits[0] >= 3) == (201, True)


def test_who_is_told_to_wait_for_long_is_told_so() -> None:
    told = httpx2.Response(429, headers={"Retry-After": str(PAUSES.longest_told_s + 1)})
    assert _sent("GET", told)[:2] == (429, [])


def test_writes_ask_for_strict_fields_and_reads_for_none() -> None:
    asked = {method: _sent(method, 200)[2].asked[0] for method in ("GET", "POST", "PUT", "PATCH")}
    strict = {method: one.url.params.get("fieldValidation") for method, one in asked.items()}
    assert strict == {"GET": None, "POST": "Strict", "PUT": "Strict", "PATCH": "Strict"}


def test_making_clients_imports_nothing_of_the_mock(cluster: Stage, tmp_path: Path) -> None:
    path = cluster.kubeconfig(tmp_path / "config")
    script = (
        "import json, sys; from pathlib import Path; "
        "from edgefleet_kubernetes.clients import Clients; "
        "from edgefleet_kubernetes.settings import KubernetesSettings; "
        "Clients(KubernetesSettings(kubeconfig=Path(sys.argv[1]))).call('GET', 'version'); "
        "print(json.dumps(list(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], capture_output=True, check=True
    )
    loaded = json.loads(done.stdout)
    heavy = ("cel", "jsonschema", "kubernetes_validate", "trustme", "werkzeug")
    assert [name for name in heavy if name in loaded] == []
