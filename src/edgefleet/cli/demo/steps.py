"""The story, step by step: each says what it does, does it, and keeps what it found."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np

import edgefleet as ef
from edgefleet.cli.demo.facts import DeviceFacts, Facts, Swap, Telemetry, Version
from edgefleet.cli.demo.load import Answer, Load, Requests, encode_each
from edgefleet.interfaces.amounts import size_text
from edgefleet.protocol.event import Prediction

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from edgefleet.cli.demo.narration import Narrator
    from edgefleet.deployment import Deployment
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import ModelVersion

MODEL = "digits"
GROUP = "line-3"
TARGETS = {"gateway-1": "x86-cpu", "cam-07": "raspberry-pi-4", "cam-08": "jetson-orin"}
SMALL = {"hidden": 64, "epochs": 20}
LARGE = {"hidden": 256, "epochs": 40}
BATCH = 15  # images in one request; a prediction event keeps up to 16 numbers of an output
LATENCY_REQUESTS = 100  # single images a device
RATE_HZ = 100.0  # requests a second to each device while versions change
AROUND_S = 0.8  # seconds of load before, between and after the changes
ATTEST_S = 60.0  # seconds that devices get to attest
EVENTS_S = 60.0  # seconds that events get to arrive
POLL_S = 0.02


class Story:
    """The demo on a fleet; `facts` fills as it goes on.

    Args:
        fleet: an empty one.
        script: the training script.
        say: tells what happens.
    """

    def __init__(self, fleet: Fleet, script: Path, say: Narrator) -> None:
        self._fleet, self._script, self._say = fleet, script, say
        self.facts = Facts(edgefleet=ef.__version__)
        self.images: NDArray[Any] = np.empty(0)
        self.labels: NDArray[Any] = np.empty(0)
        self.predicted: dict[str, NDArray[Any]] = {}
        self.answers: list[Answer] = []
        self.marks: list[tuple[float, str]] = []
        self._sent = dict.fromkeys(TARGETS, 0)

    def make(self, params: dict[str, int]) -> ModelVersion:
        """Train, optimize, push and approve a version."""
        self._say.code(f'run = fleet.train("{self._script.name}", params={params}).wait()')
        begun = time.perf_counter()
        run = self._fleet.train(self._script, params=params).wait()
        train_s = time.perf_counter() - begun
        with np.load(run.outputs / "images.npz") as held:
            calibration, self.images, self.labels = (
                held[name] for name in ("calibration", "held_out", "labels")
            )
            self.facts.images_trained = int(held["trained"])
        self.facts.images_held_out = len(self.images)
        accuracy = run.metrics["accuracy"]
        self._say.note(
            f"accuracy {accuracy:.1%} on {len(self.images)} images it never saw, {train_s:.1f} s"
        )
        self._say.code(
            f"bundle = ef.optimize(run.model, targets={[*TARGETS.values()]},",
            "                     calibration=images, evaluate=accuracy, max_accuracy_drop=0.01)",
        )
        bundle = ef.optimize(
            run.model,
            targets=[*TARGETS.values()],
            calibration=calibration,
            evaluate=self._evaluate,
            max_accuracy_drop=0.01,
            name=MODEL,
            labels=[str(digit) for digit in range(10)],
            cache=False,
        )
        for row in bundle.report.rows:
            kept = "" if row.accuracy is None else f", accuracy {row.accuracy:.1%}"
            self._say.note(f"{row.variant}: {row.outcome}, {size_text(row.size_bytes or 0)}{kept}")
        self._say.code(f'model = fleet.push(bundle, "{MODEL}")')
        model = self._fleet.push(bundle, MODEL)
        self._say.code(f'fleet.registry.approve("{model}", by="you")')
        self._fleet.registry.approve(model.reference, by="demo", reason="passed its gate")
        self.facts.versions.append(
            Version(
                reference=model.reference,
                accuracy=accuracy,
                train_s=train_s,
                variants={v.name: v.size_bytes for v in model.variants},
            )
        )
        return model

    def _evaluate(self, predict: Callable[[NDArray[Any]], Any]) -> float:
        return float((predict(self.images)["label"] == self.labels).mean())

    def deploy_first(self, model: ModelVersion) -> None:
        """Enrol three devices, which start, and give them the first version."""
        for device, target in TARGETS.items():
            self._say.code(
                f'fleet.enroll("{device}", group="{GROUP}", labels={{"target": "{target}"}})'
            )
            self._fleet.enroll(device, group=GROUP, labels={"target": target})
        self._say.note(
            "the targets are labels: each process runs on this machine and reports which execution "
            "provider it really uses"
        )
        self._say.code(f'print(fleet.plan("{model}", to="{GROUP}"))')
        self._say.table(str(self._fleet.plan(model, to=GROUP)))
        self._say.code(f'fleet.deploy("{model}", to="{GROUP}").wait()')
        status = self._fleet.deploy(model, to=GROUP).wait(timeout_s=ATTEST_S, poll_s=POLL_S)
        self._say.table(str(status))
        for info in self._fleet.devices(GROUP):
            report = info.report
            if report is None:  # for the type checker: it has just attested
                continue
            served = report.models[0]
            self.facts.devices.append(
                DeviceFacts(
                    device=info.name,
                    target=TARGETS[info.name],
                    variant=served.variant or "",
                    why=served.why or "",
                    execution_provider=served.providers[0],
                    bytes_fetched={model.version: report.health.bytes_fetched},
                    process=report.health.pid,
                )
            )

    def serve(self, model: ModelVersion) -> None:
        """Send every held-out image to every device, and single ones to take the time."""
        self._infer_all(model.version)
        requests = encode_each(self.images[:LATENCY_REQUESTS])
        endpoints = self._endpoints()
        for facts in self.facts.devices:
            client = Requests(facts.device, endpoints[facts.device], MODEL)
            answers = [client.ask(request, 0.0) for request in requests]
            client.close()
            self._sent[facts.device] += len(answers)
            latencies = [answer.latency_ms for answer in answers if answer.version is not None]
            facts.p50_ms, facts.p99_ms = (float(np.percentile(latencies, q)) for q in (50, 99))
            self._say.note(
                f"{facts.device}: {facts.accuracy[model.version]:.1%} right; an image alone takes "
                f"{facts.p50_ms:.2f} ms (p50), {facts.p99_ms:.2f} ms (p99)"
            )

    def _infer_all(self, version: str) -> None:
        """Every held-out image to every device, and how many it reads right."""
        self._say.code(
            f"for device in {[*TARGETS]}:",
            f'    labels = fleet.device(device).infer("{MODEL}", images)["label"]',
        )
        for facts in self.facts.devices:
            device = self._fleet.device(facts.device)
            starts = range(0, len(self.images), BATCH)
            batches = [device.infer(MODEL, self.images[i : i + BATCH])["label"] for i in starts]
            predicted = np.concatenate(batches)
            self.predicted.setdefault(facts.device, predicted)
            facts.accuracy[version] = float((predicted == self.labels).mean())
            self._sent[facts.device] += len(batches)

    def swap_under_load(self, second: ModelVersion) -> None:
        """Deploy the second version and roll it back, while requests go on."""
        first = self.facts.versions[0].reference
        self._say.note(f"meanwhile {RATE_HZ:.0f} requests a second go to every device")
        requests = encode_each(self.images)
        with Load(self._endpoints(), MODEL, requests, rate_hz=RATE_HZ) as load:
            load.go_on_for(AROUND_S)
            self._say.code(f'fleet.deploy("{second}", to="{GROUP}").wait()')
            updated = self._timed(
                load, f"deploy {second}", lambda: self._fleet.deploy(second, to=GROUP)
            )
            fetched = self._fetched()
            for facts in self.facts.devices:
                before = sum(facts.bytes_fetched.values())
                facts.bytes_fetched[second.version] = fetched[facts.device] - before
            self._infer_all(second.version)
            shares = ", ".join(f"{d.accuracy[second.version]:.1%}" for d in self.facts.devices)
            self._say.note(f"right now: {shares}")
            load.go_on_for(AROUND_S)
            back = load.now_s
            self._say.code(f'fleet.rollback("{GROUP}").wait()')
            rolled = self._timed(load, "rollback", lambda: self._fleet.rollback(GROUP))
            load.go_on_for(AROUND_S)
        again = sum(self._fetched().values()) - sum(fetched.values())
        self.answers = load.answers
        for answer in self.answers:
            self._sent[answer.device] += 1
        same = self._processes() == {d.device: d.process for d in self.facts.devices}
        new = sum(d.bytes_fetched[second.version] for d in self.facts.devices)
        until = sum(answer.at_s < back for answer in self.answers)
        self.facts.update = _swap(
            second.reference, updated, self.answers[:until], fetched=new, same=same
        )
        self.facts.rollback = _swap(first, rolled, self.answers[until:], fetched=again, same=same)
        for name, swap in (("update", self.facts.update), ("rollback", self.facts.rollback)):
            counts = ", ".join(f"version {v} {n}" for v, n in sorted(swap.answered.items()))
            self._say.note(f"{name}: {swap.requests} requests, answered by {counts}")

    def _timed(self, load: Load, what: str, act: Callable[[], Deployment]) -> float:
        """Seconds from a call until every device attests."""
        begun = load.now_s
        self.marks.append((begun, what))
        act().wait(timeout_s=ATTEST_S, poll_s=POLL_S)
        done = load.now_s
        self.marks.append((done, "attested"))
        return done - begun

    def read_telemetry(self) -> None:
        """Read back an event for every request that was sent."""
        self._say.code(f'events = fleet.events(kind="prediction", model="{MODEL}")')
        sent = sum(self._sent.values())
        deadline = time.monotonic() + EVENTS_S
        while True:
            found = self._count_events()
            if found.events >= sent or time.monotonic() > deadline:
                break
            time.sleep(POLL_S)
        self.facts.telemetry = found
        counts = ", ".join(f"{device} {count}" for device, count in found.by_device.items())
        self._say.note(f"{found.events} events for {sent} requests: {counts}")

    def _count_events(self) -> Telemetry:
        by_device = dict.fromkeys(self._sent, 0)
        classes = {device: {str(digit): 0 for digit in range(10)} for device in self._sent}
        for event in self._fleet.events(kind="prediction", model=MODEL):
            by_device[event.device] += 1
            data = event.payload()
            outputs = data.outputs if isinstance(data, Prediction) else ()
            for value in next((o.values for o in outputs if o.name == "label"), ()):
                classes[event.device][str(int(value or 0))] += 1
        return Telemetry(
            requests_sent=sum(self._sent.values()),
            events=sum(by_device.values()),
            by_device=by_device,
            classes=classes,
        )

    def _endpoints(self) -> dict[str, str]:
        reports = {info.name: info.report for info in self._fleet.devices(GROUP)}
        return {name: r.endpoint for name, r in reports.items() if r is not None and r.endpoint}

    def _processes(self) -> dict[str, int]:
        reports = {info.name: info.report for info in self._fleet.devices(GROUP)}
        return {name: r.health.pid for name, r in reports.items() if r is not None}

    def _fetched(self) -> dict[str, int]:
        """Bytes that each device has fetched so far."""
        reports = {info.name: info.report for info in self._fleet.devices(GROUP)}
        return {name: r.health.bytes_fetched for name, r in reports.items() if r is not None}


def _swap(
    to: str, attested_s: float, answers: Sequence[Answer], *, fetched: int, same: bool
) -> Swap:
    answered: dict[str, int] = {}
    for answer in answers:
        if answer.version is not None:
            answered[answer.version] = answered.get(answer.version, 0) + 1
    return Swap(
        to=to,
        attested_s=attested_s,
        bytes_fetched=fetched,
        requests=len(answers),
        failed=sum(answer.version is None for answer in answers),
        answered=answered,
        same_processes=same,
    )
