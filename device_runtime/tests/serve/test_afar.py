"""What callers may do by where they come from: this machine, or one that isn't known to be it.

``LOCALHOST`` leads to this machine alone, but it is only a name to whoever doesn't resolve it, so
it counts as an address that other machines reach.
"""

from __future__ import annotations

import http.client
import json
import socket
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import pytest
import tritonclient.grpc as client
import trustme
from tritonclient.utils import InferenceServerException

from device_runtime.tests.serve import triton
from device_runtime.tests.serve.grpc_serving import serving_grpc
from device_runtime.tests.serve.test_access import TOKEN, pem
from device_runtime.tests.serve.test_grpc import METHOD
from device_runtime.tests.serving import WAIT_S, FakeModel, served, serving, table_of
from edgefleet_runtime.serve.access import Access
from edgefleet_runtime.serve.extensions.shared_memory import SystemRegions
from edgefleet_runtime.serve.grpc import inference_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterator

    from device_runtime.tests.serving import Running

AFAR = "LOCALHOST"
BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Short enough for a socket's path on every system."""
    with tempfile.TemporaryDirectory(prefix="ef") as name:
        yield Path(name)


@pytest.fixture(scope="module")
def remote(folder: Path) -> Access:
    path = folder / "token"
    path.write_text(TOKEN)
    path.chmod(0o600)
    return Access(allow_remote=True, token_file=path)


# ------------------------------------------------------------------------------------------- REST


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=WAIT_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(WAIT_S)
        self.sock.connect(str(self._path))


def ask_near(path: Path, method: str, target: str, body: str = "") -> tuple[int, Any]:
    connection = UnixConnection(path)
    try:
        connection.request(method, target, body)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read() or b"null")
    finally:
        connection.close()


def ask_afar(running: Running, method: str, target: str, body: str = "") -> tuple[int, Any]:
    answer = running.ask(method, target, body, {"Authorization": f"Bearer {TOKEN}"})
    return answer.status, json.loads(answer.body or b"null")


LOAD = ("POST", "/v2/repository/models/spare/load")


def test_over_rest_other_machines_load_nothing_and_this_one_does(
    remote: Access, folder: Path
) -> None:
    table = table_of(served(FakeModel()))
    near = folder / "r"
    with serving(table, AFAR, uds=near, access=remote, control=triton.Control(table)) as running:
        for verb in ("index", "models/spare/load", "models/m/unload"):
            status, answer = ask_afar(running, "POST", f"/v2/repository/{verb}", "{}")
            assert (status, "model control is off" in answer["error"]) == (400, True)
        assert ask_near(near, *LOAD) == (200, None)
        assert ask_afar(running, "GET", "/v2/models/spare/ready")[0] == 200
        assert "model_repository" not in ask_afar(running, "GET", "/v2")[1]["extensions"]
        assert "model_repository" in ask_near(near, "GET", "/v2")[1]["extensions"]


def test_over_rest_other_machines_load_models_where_the_owner_allows_it(remote: Access) -> None:
    table = table_of()
    control = triton.Control(table)
    with serving(table, AFAR, access=remote, control=control, remote_control=True) as running:
        assert ask_afar(running, *LOAD) == (200, None)
        assert ask_afar(running, "GET", "/v2")[1]["extensions"].count("model_repository") == 1


@pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm on this system")
def test_over_rest_shared_memory_is_for_this_machine(remote: Access, folder: Path) -> None:
    near = folder / "r"
    given = {
        "inputs": [
            {
                "name": "x",
                "shape": [1],
                "datatype": "FP32",
                "parameters": {"shared_memory_region": "r", "shared_memory_byte_size": 4},
            }
        ]
    }
    infer = ("POST", "/v2/models/m/infer", json.dumps(given))
    with (
        triton.shared_object(4) as memory,
        serving(table_of(served(FakeModel(1))), AFAR, uds=near, access=remote) as running,
    ):
        place = json.dumps({"key": f"/{memory.name}", "offset": 0, "byte_size": 4})
        register = ("POST", "/v2/systemsharedmemory/region/r/register", place)
        assert ask_afar(running, *register)[0] == 400
        assert ask_near(near, *register) == (200, None)
        assert ask_near(near, *infer)[1]["outputs"][0]["data"] == [1.0]
        for request in (infer, ("GET", "/v2/systemsharedmemory/status")):
            status, answer = ask_afar(running, *request)
            assert (status, "off here" in answer["error"]) == (400, True)


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_a_web_page_neither_loads_nor_unloads(verb: str) -> None:
    table = table_of(served(FakeModel()))
    page = {"Origin": "https://example.org", "Content-Type": "text/plain"}
    with serving(table, control=triton.Control(table)) as running:
        reply = running.ask("POST", f"/v2/repository/models/m/{verb}", b"{}", page)
        assert reply.status == 400
        assert "web page" in reply.json["error"]
        assert running.infer(1.0).status == 200


@pytest.mark.skipif(not SystemRegions.supported(), reason="no /dev/shm on this system")
def test_a_web_page_reaches_no_shared_memory() -> None:
    page = {"Origin": "https://example.org", "Content-Type": "text/plain"}
    parameters = {"shared_memory_region": "r", "shared_memory_byte_size": 4}
    tensor = {"name": "x", "shape": [1], "datatype": "FP32", "data": [1.0]}
    into = json.dumps({"inputs": [tensor], "outputs": [{"name": "y", "parameters": parameters}]})
    with triton.shared_object(4) as memory, serving(table_of(served(FakeModel(1)))) as running:
        place = json.dumps({"key": f"/{memory.name}", "offset": 0, "byte_size": 4})
        register, unregister = (
            f"/v2/systemsharedmemory/region/r/{verb}" for verb in ("register", "unregister")
        )
        assert running.ask("POST", register, place, page).status == 400
        assert running.ask("POST", register, place).status == 200
        # A second time: what an answered request has taught must not help the page.
        for _ in range(2):
            assert running.ask("POST", "/v2/models/m/infer", into).status == 200
            assert running.ask("POST", "/v2/models/m/infer", into, page).status == 400
        assert running.ask("POST", unregister, "", page).status == 400
        assert len(running.ask("GET", "/v2/systemsharedmemory/status").json) == 1


# ------------------------------------------------------------------------------------------- gRPC


class Asked(NamedTuple):
    code: grpc.StatusCode
    said: str


def asked(call: Any) -> Asked:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    error: Any = raised.value
    return Asked(error.code(), error.details())


@contextmanager
def far(remote: Access, **options: Any) -> Iterator[str]:
    with serving_grpc(table_of(served(FakeModel(1))), host=AFAR, access=remote, **options) as (
        _,
        address,
    ):
        yield address


def infer(channel: grpc.Channel, *metadata: tuple[str, str | bytes]) -> bytes:
    request = pb.ModelInferRequest(model_name="m", raw_input_contents=[bytes(4)])
    request.inputs.add(name="x", datatype="FP32", shape=[1])
    method = channel.unary_unary(METHOD + "ModelInfer")
    answer: bytes = method(request.SerializeToString(), metadata=metadata, timeout=WAIT_S)
    data: bytes = pb.ModelInferResponse.FromString(answer).raw_output_contents[0]
    return data


def test_over_grpc_the_token_lets_in(remote: Access) -> None:
    with far(remote) as address, client.InferenceServerClient(address) as triton_client:
        metadata = triton_client.get_server_metadata(headers=BEARER)
        assert triton_client.is_model_ready("m", headers=BEARER)
    assert "system_shared_memory" not in metadata.extensions


@pytest.mark.parametrize(
    "metadata",
    [
        (),
        (("authorization", f"Bearer {TOKEN[:-1]}"),),
        (("authorization", f"Bearer {TOKEN}0"),),
        (("authorization", f"Basic {TOKEN}"),),
        (("authorization", TOKEN),),
        (("authorization", ""),),
        (("authorization", f"Bearer {TOKEN}"),) * 2,
        (("authorization-bin", f"Bearer {TOKEN}".encode()),),
        (("x-authorization", f"Bearer {TOKEN}"),),
    ],
)
def test_over_grpc_nobody_comes_in_without_it(
    remote: Access, metadata: tuple[tuple[str, str | bytes], ...]
) -> None:
    with far(remote) as address, grpc.insecure_channel(address) as channel:
        code, said = asked(lambda: infer(channel, *metadata))
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "Authorization: Bearer" in said
        assert TOKEN[:8] not in said
        assert infer(channel, ("authorization", f"bearer {TOKEN}")) != b""


@pytest.mark.parametrize("method", ["ServerLive", "ModelStreamInfer", "Nothing"])
def test_over_grpc_no_method_answers_without_the_token(remote: Access, method: str) -> None:
    with far(remote) as address, grpc.insecure_channel(address) as channel:
        call = channel.stream_stream(METHOD + method)
        code, _ = asked(lambda: list(call(iter([b""]), timeout=WAIT_S)))
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_over_grpc_a_refused_message_is_not_taken_in(remote: Access) -> None:
    """A message beyond the limit would be refused for its size if anybody had looked at it."""
    with far(remote) as address, grpc.insecure_channel(address) as channel:
        method = channel.unary_unary(METHOD + "ModelInfer")
        code, _ = asked(lambda: method(bytes(65 << 20), timeout=WAIT_S))
    assert code is grpc.StatusCode.UNAUTHENTICATED


def test_over_grpc_open_health_opens_health_alone(remote: Access) -> None:
    access = Access(allow_remote=True, token_file=remote.token_file, open_health=True)
    with far(access) as address:
        with client.InferenceServerClient(address) as triton_client:
            assert triton_client.is_server_live()
            assert triton_client.is_server_ready()
            with pytest.raises(InferenceServerException, match="token"):
                triton_client.is_model_ready("m")
        with grpc.insecure_channel(address) as channel:  # and takes nothing in for it
            live = channel.unary_unary(METHOD + "ServerLive")(bytes(65 << 20), timeout=WAIT_S)
    assert pb.ServerLiveResponse.FromString(live).live


def test_over_grpc_a_token_is_asked_for_on_loopback_too(remote: Access) -> None:
    access = Access(token_file=remote.token_file)
    with (
        serving_grpc(table_of(), access=access) as (_, address),
        grpc.insecure_channel(address) as channel,
    ):
        assert asked(lambda: infer(channel)).code is grpc.StatusCode.UNAUTHENTICATED


def test_over_grpc_other_machines_load_nothing_and_this_one_does(
    remote: Access, folder: Path
) -> None:
    table = table_of(served(FakeModel()))
    near = folder / "g"
    control = triton.Control(table)
    with serving_grpc(table, control=control, host=AFAR, access=remote, uds=near) as (_, address):
        with client.InferenceServerClient(address) as triton_client:
            for call in ("load_model", "unload_model"):
                with pytest.raises(InferenceServerException, match="model control is off"):
                    getattr(triton_client, call)("spare", headers=BEARER)
            with pytest.raises(InferenceServerException, match="shared memory is off"):
                triton_client.get_system_shared_memory_status(headers=BEARER)
        with client.InferenceServerClient(f"unix:{near}") as triton_client:
            triton_client.load_model("spare")
            assert triton_client.is_model_ready("spare")


def test_over_grpc_other_machines_load_models_where_the_owner_allows_it(remote: Access) -> None:
    table = table_of()
    control = triton.Control(table)
    allowed = {"remote_control": True}
    with (
        serving_grpc(table, control=control, rest=allowed, host=AFAR, access=remote) as (
            _,
            address,
        ),
        client.InferenceServerClient(address) as triton_client,
    ):
        triton_client.load_model("spare", headers=BEARER)
        assert triton_client.is_model_ready("spare", headers=BEARER)


# -------------------------------------------------------------------------------------- gRPC, TLS


def shaken(address: str, credentials: grpc.ChannelCredentials) -> bool:
    """Whether a connection comes about and answers; its own name is 127.0.0.1, as the authority's
    certificate has it."""
    with grpc.secure_channel(address.replace(AFAR, "127.0.0.1"), credentials) as channel:
        live = channel.unary_unary(METHOD + "ServerLive")
        try:
            live(b"", timeout=WAIT_S)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAVAILABLE:
                return False
            raise
    return True


def trusting(authority: trustme.CA, issuer: trustme.CA | None = None) -> grpc.ChannelCredentials:
    root = authority.cert_pem.bytes()
    if issuer is None:
        return grpc.ssl_channel_credentials(root)
    own = issuer.issue_cert("client@example.org")
    chain = b"".join(blob.bytes() for blob in own.cert_chain_pems)
    return grpc.ssl_channel_credentials(root, own.private_key_pem.bytes(), chain)


def test_over_grpc_a_certificate_encrypts(tmp_path: Path) -> None:
    authority = trustme.CA()
    with serving_grpc(table_of(), access=pem(authority, tmp_path)) as (_, address):
        assert shaken(address, trusting(authority))
        assert not shaken(address, trusting(trustme.CA()))
        with grpc.insecure_channel(address) as channel:
            assert asked(lambda: infer(channel)).code is grpc.StatusCode.UNAVAILABLE


def test_tritons_client_comes_in_over_tls_with_the_token(remote: Access, tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    own = pem(authority, tmp_path)
    access = Access(tls_cert=own.tls_cert, tls_key=own.tls_key, token_file=remote.token_file)
    with (
        serving_grpc(table_of(served(FakeModel(1))), access=access) as (_, address),
        client.InferenceServerClient(
            address, ssl=True, root_certificates=str(tmp_path / "ca.pem")
        ) as triton_client,
    ):
        assert triton_client.is_model_ready("m", headers=BEARER)
        with pytest.raises(InferenceServerException, match="token"):
            triton_client.is_model_ready("m")


def test_over_grpc_callers_need_a_certificate_where_authorities_are_named(tmp_path: Path) -> None:
    authority, callers = trustme.CA(), trustme.CA()
    callers.cert_pem.write_to_path(str(tmp_path / "callers.pem"))
    own = pem(authority, tmp_path)
    access = Access(
        allow_remote=True,
        tls_cert=own.tls_cert,
        tls_key=own.tls_key,
        tls_client_ca=tmp_path / "callers.pem",
    )
    with far(access) as address:
        assert shaken(address, trusting(authority, callers))
        for issuer in (None, trustme.CA(), authority):
            assert not shaken(address, trusting(authority, issuer))
        assert shaken(address, trusting(authority, callers))
