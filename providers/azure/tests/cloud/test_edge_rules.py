"""The rules of edgeAgent and edgeHub, without a device: manifests, routes, tokens, restarts."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from edgefleet_azure.cloud.edge_login import API_VERSION, Workload, digest, token_holds
from edgefleet_azure.cloud.edge_manifest import ManifestError, ModuleSpec, modules_of
from edgefleet_azure.cloud.edge_module import EdgeModule
from edgefleet_azure.cloud.edge_routes import LAST, TIME_TO_LIVE_S, route_for, routes_of
from edgefleet_azure.cloud.edge_store import EdgeStore
from providers.azure.tests.cloud.edge_bench import MODULE, base_of, module_of

KEY = base64.b64encode(b"k" * 32).decode()
RESOURCE = "hub/devices/cam-1/modules/edgefleet"
TIMEOUT_S = 90.0


# ---------------------------------------------------------------------------------- manifests


def desired(**changes: Any) -> dict[str, Any]:
    content: dict[str, Any] = base_of(module_of(), **changes)["$edgeAgent"]["properties.desired"]
    return content


def test_a_module_is_read_from_its_manifest() -> None:
    spec = modules_of(desired())[MODULE]
    assert spec.binds["/run/edgefleet"] == "/run/edgefleet"
    assert spec.command(("runtime",))[:2] == ("runtime", "run")
    assert (spec.status, spec.restart, spec.pull) == ("running", "always", "on-create")


def test_options_in_several_properties_are_put_together() -> None:
    text = json.dumps({"Entrypoint": ["sh"], "Cmd": ["-c", "true"]})
    settings = {"image": "i", "createOptions": text[:9], "createOptions01": text[9:]}
    spec = modules_of(desired(modules={"m": {"type": "docker", "settings": settings}}))["m"]
    assert spec.command(("runtime",)) == ("sh", "-c", "true")


@pytest.mark.parametrize(
    "content, code",
    [
        ({"$version": 1}, 417),
        (desired(schemaVersion="2.0"), 412),
        (desired(runtime={"type": "podman"}), 400),
        (desired(systemModules={}), 400),
        (desired(modules={"m": {"type": "docker", "settings": {}}}), 400),
        (desired(modules={"m": module_of(restartPolicy="sometimes")}), 400),
        (
            desired(
                modules={"m": {"type": "docker", "settings": {"image": "i", "createOptions": "{"}}}
            ),
            400,
        ),
    ],
)
def test_a_manifest_that_makes_no_sense_has_its_status(content: dict[str, Any], code: int) -> None:
    with pytest.raises(ManifestError) as caught:
        modules_of(content)
    assert caught.value.code == code


# ------------------------------------------------------------------------------------- routes


def routes(**given: Any) -> dict[str, Any]:
    return {"routes": given}


@pytest.mark.parametrize(
    "source, takes",
    [
        ("/messages/modules/edgefleet/outputs/hot", True),
        ("/messages/modules/edgefleet/outputs/*", True),
        ("/messages/modules/edgefleet/*", True),
        ("/messages/*", True),
        ("/*", True),
        ("/messages/modules/edgefleet/outputs/cold", False),
        ("/messages/modules/other/*", False),
    ],
)
def test_a_route_takes_what_its_source_names(source: str, *, takes: bool) -> None:
    found = routes_of(routes(a=f"FROM {source} INTO $upstream"))
    assert (route_for(found, "edgefleet", "hot") is not None) is takes


def test_the_route_with_the_highest_priority_decides() -> None:
    every = "FROM /messages/* INTO $upstream"
    found = routes_of(
        routes(
            slow={"route": every, "priority": 5, "timeToLiveSecs": 9},
            soon={"route": every, "priority": 1, "timeToLiveSecs": 7},
            other=every,
        )
    )
    chosen = route_for(found, "m", "")
    assert chosen is not None
    assert (chosen.priority, chosen.time_to_live_s) == (1, 7.0)
    assert [(one.priority, one.time_to_live_s) for one in found][2] == (LAST, TIME_TO_LIVE_S)


@pytest.mark.parametrize("text", ["", "FROM /*", "FROM /* WHERE a = 1 INTO $upstream"])
def test_a_route_that_is_not_carried_out_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="route 'a'"):
        routes_of(routes(a=text))


# -------------------------------------------------------------------------------------- tokens


def token(*, resource: str = RESOURCE, key: str = KEY, expires_s: float = 60.0) -> str:
    name, until = quote(resource, safe=""), int(time.time() + expires_s)
    signature = quote(digest(key, f"{name}\n{until}".encode()), safe="")
    return f"SharedAccessSignature sr={name}&sig={signature}&se={until}"


def test_a_token_of_one_of_the_keys_holds() -> None:
    other = base64.b64encode(b"o" * 32).decode()
    assert token_holds(token(), RESOURCE, [other, KEY])


@pytest.mark.parametrize(
    "shown",
    [
        "",
        "SharedAccessSignature sr=a",
        token(resource="hub/devices/cam-2/modules/edgefleet"),
        token(key=base64.b64encode(b"x" * 32).decode()),
        token(expires_s=-1),
        token().replace("&se=", "&se=9"),
    ],
    ids=["none", "parts", "other module", "other key", "ended", "prolonged"],
)
def test_another_token_does_not(shown: str) -> None:
    assert not token_holds(shown, RESOURCE, [KEY, ""])


def asked(tmp_path: Path, text: str) -> tuple[int, dict[str, str]]:
    """What the workload API answers to one request."""

    async def ask() -> bytes:
        keys = {("edgefleet", "1"): KEY}
        api = Workload(tmp_path / "w", "PEM", lambda *who: keys.get(who))
        await api.start()
        try:
            reader, writer = await asyncio.open_unix_connection(api.path)
            writer.write(text.encode())
            answer = await reader.read()
            writer.close()
            await writer.wait_closed()
            return answer
        finally:
            await api.stop()

    head, _, body = asyncio.run(ask()).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def signing(module: str, data: bytes) -> str:
    body = {"keyId": "primary", "algo": "HMACSHA256", "data": base64.b64encode(data).decode()}
    text = json.dumps(body)
    path = f"/modules/{module}/genid/1/sign?api-version={API_VERSION}"
    return f"POST {path} HTTP/1.1\r\nContent-Length: {len(text)}\r\n\r\n{text}"


def test_a_module_has_its_tokens_signed_with_its_own_key(tmp_path: Path) -> None:
    assert asked(tmp_path, signing("edgefleet", b"x")) == (200, {"digest": digest(KEY, b"x")})
    assert asked(tmp_path, signing("other", b"x"))[0] == 404


def test_the_trust_bundle_is_given_in_one_version_only(tmp_path: Path) -> None:
    line = "GET /trust-bundle?api-version={} HTTP/1.1\r\n\r\n"
    assert asked(tmp_path, line.format(API_VERSION)) == (200, {"certificate": "PEM"})
    assert asked(tmp_path, line.format("2030-01-01"))[0] == 400


# ----------------------------------------------------------------------------------- the store


def test_changes_that_waited_become_one_patch_and_keep_what_they_take_away(tmp_path: Path) -> None:
    store = EdgeStore(tmp_path / "store.json")
    store.report("m", {"a": {"x": 1, "y": 2}, "b": 1})
    store.report("m", {"a": {"y": None}, "b": 2})
    again = EdgeStore(tmp_path / "store.json")
    assert again.reports == {"m": {"a": {"x": 1, "y": None}, "b": 2}}


# ------------------------------------------------------------------------------------ restarts


class Turns:
    """A module whose time passes when the test says so."""

    def __init__(self, folder: Path, restart: str, code: int) -> None:
        self.now = 0.0
        script = f"import sys; sys.exit({code})"
        spec = ModuleSpec("i", {"Cmd": ["-c", script]}, {}, restart=restart)
        self.module = EdgeModule(
            "m",
            spec,
            program=(sys.executable,),
            environment={},
            disk=folder,
            volatile=folder,
            log=folder / "log",
            clock=lambda: self.now,
        )

    async def ended(self) -> None:
        """Wait until it has ended and that was noticed."""
        async with asyncio.timeout(TIMEOUT_S):
            while self.module.status == "running":
                await self.module.mind()
                await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    "policy, code, after",
    [
        ("always", 0, "backoff"),
        ("always", 3, "backoff"),
        ("on-failure", 3, "backoff"),
        ("on-failure", 0, "stopped"),
        ("on-unhealthy", 3, "backoff"),
        ("on-unhealthy", 0, "stopped"),
        ("never", 3, "failed"),
        ("never", 0, "stopped"),
    ],
)
def test_a_module_that_ended_is_handled_as_its_policy_says(
    tmp_path: Path, policy: str, code: int, after: str
) -> None:
    turns = Turns(tmp_path, policy, code)

    async def run() -> None:
        await turns.module.start()
        await turns.ended()

    asyncio.run(run())
    assert turns.module.status == after
    assert turns.module.reported()["exitCode"] == code


def test_the_pause_before_a_restart_doubles(tmp_path: Path) -> None:
    turns = Turns(tmp_path, "always", 3)
    seen = []

    async def run() -> None:
        await turns.module.start()
        for pause in (10.0, 20.0, 40.0):
            await turns.ended()
            turns.now += pause - 1
            await turns.module.mind()
            seen.append(turns.module.status)
            turns.now += 1
            await turns.module.mind()
        await turns.module.end()

    asyncio.run(run())
    assert seen == ["backoff"] * 3
    assert turns.module.restarts == 3
