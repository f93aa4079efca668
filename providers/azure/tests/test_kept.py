"""A mock that is started again on its folder goes on where it was."""

from __future__ import annotations

import json
import socket
import ssl
from contextlib import closing
from pathlib import Path

import pytest
from azure.storage.blob import AccessPolicy, BlobServiceClient

from edgefleet.errors import ConfigurationError
from edgefleet.testing.kit.samples import Content, noise
from edgefleet_azure.clients import Clients
from edgefleet_azure.cloud.hub_values import Identity, Message
from edgefleet_azure.events import arrivals, sources
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.settings import AzureSettings
from edgefleet_azure.state import BlobStateStore


def _here(cloud: AzureMock, patch: pytest.MonkeyPatch) -> None:
    for key, value in cloud.authority.alone(cloud.environment).items():
        patch.setenv(key, value)


def test_addresses_identity_and_trust_stay(tmp_path: Path) -> None:
    found = []
    for _ in range(2):
        cloud = AzureMock(tmp_path)
        cloud.start()
        found.append((cloud.environment, cloud.settings, cloud.add_user("ada", [])))
        cloud.stop()
    assert found[0] == found[1]


def test_documents_keep_their_tags_and_users_their_roles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = AzureMock(tmp_path)
    cloud.start()
    _here(cloud, monkeypatch)
    user = cloud.add_user("ada", ["Storage Blob Data Contributor"])
    settings = AzureSettings(**cloud.settings)
    with closing(BlobStateStore(Clients(settings), settings)) as state:
        tag = state.write("doc", b"{}", expect=None)
    cloud.stop()

    cloud = AzureMock(tmp_path)
    cloud.start()
    _here(cloud, monkeypatch)
    monkeypatch.setenv("AZURE_CLIENT_ID", user)
    with closing(BlobStateStore(Clients(settings), settings)) as state:
        state.write("doc", b"[]", expect=tag)
    cloud.stop()


def test_blobs_blocks_and_policies_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = noise(100_000, 3)
    for first in (True, False):
        cloud = AzureMock(tmp_path)
        cloud.start()
        _here(cloud, monkeypatch)
        storage = cloud.stage.storage
        with BlobServiceClient(
            cloud.settings["storage_url"], credential=storage.keys[0]
        ) as service:
            container = service.get_container_client("edgefleet-models")
            if first:
                container.upload_blob("a/b c", data, metadata={"who": "ada"})
                container.get_blob_client("new").stage_block("1", b"one")
                container.upload_blob("gone", b"x")
                container.delete_blob("gone")
                container.set_container_access_policy({"g1": AccessPolicy(permission="r")})
            found = container.download_blob("a/b c")
            assert Content.of(found.readall()) == Content.of(data)
            assert found.properties.metadata == {"who": "ada"}
            staged = container.get_blob_client("new").get_block_list("uncommitted")[1]
            assert [one.id for one in staged] == ["1"]
            policies = container.get_container_access_policy()["signed_identifiers"]
            assert [one.id for one in policies] == ["g1"]
        cloud.stop()
    assert len(list((tmp_path / "blobs").iterdir())) == 2


def test_what_devices_said_comes_back_and_is_read_once_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for first in (True, False):
        cloud = AzureMock(tmp_path)
        cloud.start()
        _here(cloud, monkeypatch)
        state = cloud.stage.iot_hubs["hub-1"].state
        if first:
            state.add(Identity("cam-1", None, {"type": "sas"}))
            state.add(Identity("cam-1", "edgefleet", {"type": "sas"}))
        state.send(Message("cam-1", "edgefleet", b"before" if first else b"after"))
        settings = AzureSettings(**cloud.settings)
        with closing(Clients(settings)) as clients:
            [source] = sources(clients, settings)
            told = [one.body for one in arrivals(source)]
        assert told == ([b"before"] if first else [b"before", b"after"])
        cloud.stop()


def test_another_address_is_taken_where_the_old_one_is_not_free(tmp_path: Path) -> None:
    cloud = AzureMock(tmp_path)
    cloud.start()
    before = cloud.stage.ports["blob"]
    cloud.stop()
    with socket.create_server(("127.0.0.1", before)):
        cloud.start()
        assert cloud.stage.ports["blob"] not in {0, before}
        cloud.stop()


def test_what_the_mock_trusts_with_is_nobody_elses_to_read(tmp_path: Path) -> None:
    cloud = AzureMock(tmp_path)
    cloud.start()
    folder = tmp_path / "authority"
    assert folder.stat().st_mode & 0o077 == 0
    assert (folder / "ca-key.pem").stat().st_mode & 0o077 == 0
    trusting = ssl.create_default_context(cafile=cloud.environment["SSL_CERT_FILE"])
    assert len(trusting.get_ca_certs()) > 1, "the bundle has those that machines trust, too"
    cloud.stop()


def test_a_mock_that_does_not_run_has_no_address(tmp_path: Path) -> None:
    cloud = AzureMock(tmp_path)
    with pytest.raises(ConfigurationError, match="start it first"):
        _ = cloud.environment
    assert list(cloud.seen()) == []


@pytest.mark.parametrize(
    "content", ["{", "[]", json.dumps({"version": 99, "parts": {}})], ids=["cut", "list", "newer"]
)
def test_a_file_that_it_did_not_write_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "cloud.json").write_text(content)
    with pytest.raises(ConfigurationError, match="empty folder"):
        AzureMock(tmp_path).start()
    assert (tmp_path / "cloud.json").read_text() == content
