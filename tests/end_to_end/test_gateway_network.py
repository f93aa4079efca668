"""Five devices with a network of their own each, behind a gateway process: links that are cut,
throttled, that lose and delay.

Runtimes, gateway, certificates and the links between them are the real ones; skipped where the
machine makes no network namespaces.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefleet.fleet import Fleet
from edgefleet.policy_files import policy_of
from edgefleet.profile import Profile
from edgefleet.protocol.documents import decode
from edgefleet.testing.kit import models
from edgefleet.testing.mock import FAST_TELEMETRY
from edgefleet.testing.waiting import eventually
from edgefleet_gateway.cloud.machine import Machine, Told
from edgefleet_gateway.deployer import GatewayDeployer
from edgefleet_gateway.fleet_folder import profile_of_folder
from edgefleet_gateway.records import AuthorityRecord, Keys
from tests.end_to_end.namespaces import ADDRESS, Network, lacking, lacking_netem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from edgefleet.deployment import Deployment
    from edgefleet.protocol.report import Report

PORT = 8443
GATEWAY = f"https://{ADDRESS}:{PORT}"
GROUP = "line-3"
DEVICES = 5
CUT, THIN, LOSSY = 1, 2, 3  # machines whose links fail; the others' never do
TIMEOUT_S = 120.0
SECONDS_OF_PAUSE = {"look_s": 0.05, "longest_wait_s": 5.0, "poll_s": 0.5}
WIDTH = 8192  # of the model's hidden layer, so that its file has 2 MiB that don't compress
_INFER = """
import json, sys, urllib.request
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
for _ in range(int(sys.argv[2])):
    asked = urllib.request.Request(sys.argv[1], sys.argv[3].encode())
    with opener.open(asked, timeout=60) as answer:
        print(len(json.load(answer)["outputs"]))
"""


class Site:
    """A fleet, its gateway in the hub, and machines behind links of their own."""

    def __init__(self, folder: Path, network: Network) -> None:
        self._folder, self.network = folder, network
        self._gateway: subprocess.Popen[bytes] | None = None
        (folder / "edgefleet.toml").write_text(profile_of_folder(GATEWAY, **SECONDS_OF_PAUSE))
        self.fleet = Fleet(
            Profile(
                name="default",
                base=folder,
                registry="local",
                trainer="local",
                telemetry="local",
                state="local",
                deployers=("gateway",),
                recorded=policy_of(FAST_TELEMETRY, "the test"),
                settings={
                    "local": {"root": ".", "supervise": False},
                    "gateway": {"addresses": [GATEWAY], **SECONDS_OF_PAUSE},
                },
            )
        )
        self.machines: dict[int, Machine] = {}

    @property
    def deployer(self) -> GatewayDeployer:
        found = self.fleet.deployers["gateway"]
        assert isinstance(found, GatewayDeployer)
        return found

    def start_gateway(self) -> None:
        words = ["gateway", "serve", "--root", str(self._folder), "--public"]
        with (self._folder / "gateway.log").open("ab") as log:
            self._gateway = subprocess.Popen(
                [
                    *self.network.inside(self.network.hub),
                    *(sys.executable, "-m", "edgefleet.cli"),
                    *words,
                    *("--host", ADDRESS, "--port", str(PORT)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        eventually(self._listens, (self._folder / "gateway.log").read_text)

    def _listens(self) -> bool:
        """Whether the hub has somebody at the port."""
        assert self._gateway is not None
        assert self._gateway.poll() is None, (self._folder / "gateway.log").read_text()
        hub = self.network.inside(self.network.hub)
        ask = f"import socket; socket.create_connection(('{ADDRESS}', {PORT}), 5)"
        tried = [*hub, sys.executable, "-S", "-c", ask]
        return subprocess.run(tried, capture_output=True, check=False).returncode == 0

    def kill_gateway(self) -> None:
        if self._gateway is not None:
            self._gateway.kill()
            self._gateway.wait()
            self._gateway = None

    def add(self, number: int) -> None:
        """Have a machine join over its own link, and run."""
        name = device(number)
        under = self.network.inside(self.network.machine(number))
        machine = Machine(self._folder / "machines" / name, name, under=under)
        stored = self.fleet.state.read(Keys("edgefleet").authority)
        assert stored is not None
        pins = ";".join(f"sha256//{pin}" for pin in decode(AuthorityRecord, stored.data).pins)
        invited = self.deployer.invite(name, group=GROUP)
        self.machines[number] = machine
        machine.join(Told(GATEWAY, pins, invited.token), {})
        machine.start()

    def deploy(self, seed: int) -> Deployment:
        model = self.fleet.push(write_model(self._folder / f"{seed}.onnx", seed), "digits")
        return self.fleet.deploy(model, to=GROUP)

    def report(self, number: int) -> Report:
        found = self.deployer.device(device(number)).report
        assert found is not None
        return found

    def ask(self, number: int, times: int) -> None:
        """Ask a device where it stands, as a program on it does."""
        x = models.points(1)[0][:1]
        tensor = {
            "name": "x",
            "datatype": "FP32",
            "shape": list(x.shape),
            "data": x.ravel().tolist(),
        }
        url = f"{self.report(number).endpoint}/v2/models/digits/infer"
        under = self.network.inside(self.network.machine(number))
        words = [sys.executable, "-c", _INFER, url, str(times), json.dumps({"inputs": [tensor]})]
        done = subprocess.run([*under, *words], check=True, capture_output=True, text=True)
        assert done.stdout.split() == ["1"] * times

    def partial(self, number: int) -> int:
        """Bytes that a device has of blobs that are on their way."""
        held = 0
        for path in self.machines[number].disk.glob("**/partial/*"):
            with suppress(FileNotFoundError):  # it is whole by now
                held += path.stat().st_size
        return held

    def close(self) -> None:
        for machine in self.machines.values():
            machine.ask_to_end()
        for machine in self.machines.values():
            machine.cut()
        self.kill_gateway()
        self.fleet.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    absent = lacking()
    if absent is not None:
        pytest.skip(absent)
    with Network(DEVICES) as network:
        made = Site(tmp_path_factory.mktemp("site"), network)
        try:
            made.start_gateway()
            for number in range(1, DEVICES + 1):
                made.add(number)
            made.deploy(1).wait(timeout_s=TIMEOUT_S, progress=False)
            yield made
        finally:
            made.close()


def device(number: int) -> str:
    return f"cam-{number}"


def write_model(path: Path, seed: int) -> Path:
    """A model that the kit's points fit, with a file that takes a while on a thin link."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    chance = np.random.default_rng(seed)
    hidden = chance.normal(size=(models.FEATURES, WIDTH)).astype(np.float32)
    last = chance.normal(size=(WIDTH, 2)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "hidden"], ["h"]),
            helper.make_node("MatMul", ["h", "last"], ["scores"]),
        ],
        "wide",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", models.FEATURES])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["batch", 2])],
        [numpy_helper.from_array(hidden, "hidden"), numpy_helper.from_array(last, "last")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


def predictions(site: Site, number: int) -> list[str]:
    """Ids of what a device recorded, as often as they are read."""
    return [event.id for event in site.fleet.events(kind="prediction", device=device(number))]


def test_each_device_came_over_its_own_link_and_attests(site: Site) -> None:
    for number in range(1, DEVICES + 1):
        assert site.report(number).access.state == "ok"
    processes = [str(machine.pid) for machine in site.machines.values()]
    networks = {Path("/proc", process, "ns", "net").readlink() for process in (*processes, "self")}
    assert len(networks) == DEVICES + 1


def test_what_a_cut_device_recorded_arrives_once(site: Site) -> None:
    before = len(predictions(site, CUT))
    site.network.cut(CUT)
    site.ask(CUT, 25)
    assert len(predictions(site, CUT)) == before
    site.network.mend(CUT)
    eventually(lambda: len(predictions(site, CUT)) >= before + 25, "what it recorded")
    site.ask(CUT, 1)
    eventually(lambda: len(predictions(site, CUT)) >= before + 26, "what came after it")
    found = predictions(site, CUT)
    assert len(found) == len(set(found)) == before + 26


def test_a_fetch_that_a_cut_ends_goes_on_where_it_was(site: Site) -> None:
    site.network.shape(THIN, "tbf", "rate", "2mbit", "burst", "32kbit", "latency", "400ms")
    fetched = site.report(THIN).health.bytes_fetched
    size = WIDTH * models.FEATURES * 4
    deployment = site.deploy(2)
    eventually(lambda: site.partial(THIN) > size / 4, "a quarter")
    site.network.cut(THIN)
    held = site.partial(THIN)
    assert held < size
    # The connection's other end goes, too: when the link is back, the device has to begin one.
    site.kill_gateway()
    site.start_gateway()
    eventually(lambda: deployment.status().attested >= DEVICES - 1, "all but the cut one")
    assert site.partial(THIN) >= held
    site.network.mend(THIN)
    deployment.wait(timeout_s=TIMEOUT_S, progress=False)
    again = site.report(THIN).health.bytes_fetched - fetched
    assert size <= again < size + size / 8, "what was there isn't fetched again"
    site.network.shape(THIN, "pfifo", "limit", "1000")


def test_a_link_that_loses_packets_delays_and_no_more(site: Site) -> None:
    # A queue of a few packets at a steady rate loses whatever comes faster.
    site.network.shape(LOSSY, "tbf", "rate", "8mbit", "burst", "3000", "limit", "6000")
    site.deploy(3).wait(timeout_s=TIMEOUT_S, progress=False)
    assert site.network.dropped(LOSSY) > 20
    before = len(predictions(site, LOSSY))
    site.ask(LOSSY, 10)
    eventually(lambda: len(predictions(site, LOSSY)) == before + 10, "what it recorded")
    site.network.shape(LOSSY, "pfifo", "limit", "1000")


def test_a_link_that_delays_and_loses_at_random(site: Site) -> None:
    absent = lacking_netem()
    if absent is not None:
        pytest.skip(absent)
    site.network.shape(LOSSY, "netem", "delay", "300ms", "50ms", "loss", "5%")
    site.deploy(4).wait(timeout_s=TIMEOUT_S, progress=False)
    site.network.shape(LOSSY, "pfifo", "limit", "1000")
