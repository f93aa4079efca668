"""A pipeline job: command jobs that wait for each other's outputs.

Steps run one after another in the order of what they need, where Azure ML runs those that wait for
nothing at once.
"""

from __future__ import annotations

import copy
import re
import threading
import uuid
from typing import TYPE_CHECKING, Any, Protocol

from edgefleet.testing.cloud.calls import Refused
from edgefleet_azure.cloud.ml_calls import now
from edgefleet_azure.cloud.ml_job import ENDED

if TYPE_CHECKING:
    from edgefleet_azure.cloud.ml_job import CommandJob

_BOUND = re.compile(r"\$\{\{\s*parent\.jobs\.([A-Za-z0-9_]+)\.outputs\.([A-Za-z0-9_]+)\s*\}\}")
_GIVEN = re.compile(r"\$\{\{\s*parent\.(inputs|outputs)\.([A-Za-z0-9_]+)\s*\}\}")


class Steps(Protocol):
    """The slice of a workspace's jobs that a pipeline works with."""

    def begin(self, name: str, asked: dict[str, Any], parent: str) -> CommandJob:
        """Start a step; `Refused` where it isn't asked for as Azure ML takes it."""
        ...

    def component(self, named: str) -> dict[str, Any]:
        """What a component says that a step runs; `Refused` where there is none."""
        ...


class PipelineJob:
    """A pipeline job and its thread.

    Args:
        name: of the job.
        asked: its ``properties``.
        jobs: starts its steps, and knows the components that they name.
    """

    def __init__(self, name: str, asked: dict[str, Any], jobs: Steps) -> None:
        self.name, self.asked, self._jobs = name, asked, jobs
        self._lock = threading.Lock()
        self._cancelled = False
        self._step: CommandJob | None = None
        self._facts: dict[str, Any] = {"status": "Preparing", "created": now()}
        self._order = _ordered(asked.get("jobs", {}))
        self._thread = threading.Thread(target=self._run, name=f"pipeline-{name}", daemon=True)

    def start(self) -> None:
        """Begin; `told` tells how far it is."""
        self._thread.start()

    def join(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """How far it is."""
        with self._lock:
            return {**self._facts, "logs": []}

    def cancel(self) -> None:
        """Ask it to end, and the step that runs; no error when it has."""
        with self._lock:
            if self._facts["status"] in ENDED:
                return
            self._cancelled = True
            self._facts["status"] = "CancelRequested"
            step = self._step
        if step is not None:
            step.cancel()

    def _ending(self) -> bool:
        with self._lock:
            return self._cancelled

    def _run(self) -> None:
        with self._lock:
            self._facts |= {"started": now()}
            if not self._cancelled:
                self._facts["status"] = "Running"
        status, error = self._steps()
        with self._lock:
            self._facts |= {"status": "Canceled" if self._cancelled else status, "ended": now()}
            if error is not None:
                self._facts["error"] = {"code": "UserError", "message": error}

    def _steps(self) -> tuple[str, str | None]:
        outputs: dict[tuple[str, str], str] = {}
        for name in self._order:
            if self._ending():
                return "Canceled", None
            run_id = str(uuid.uuid4())
            try:
                asked = self._bound(name, outputs)
                step = self._jobs.begin(run_id, asked, self.name)
            except Refused as refusal:
                return "Failed", f"{name}: {refusal.message}"
            with self._lock:
                self._step = step
            if self._ending():  # asked before the step was known
                step.cancel()
            step.join()
            for output, how in step.asked.get("outputs", {}).items():
                outputs[name, output] = how["uri"]
            status = step.told()["status"]
            if status != "Completed":
                return status, f"Step {name} {status.lower()}."
        return "Completed", None

    def _bound(self, name: str, outputs: dict[tuple[str, str], str]) -> dict[str, Any]:
        """The properties of a step's command job."""
        node = copy.deepcopy(self.asked["jobs"][name])
        spec = self._jobs.component(str(node.get("componentId", "")))
        inputs = {
            key: self._input(spec.get("inputs", {}).get(key, {}), how, outputs)
            for key, how in (node.get("inputs") or {}).items()
        }
        told = {
            key: {
                "jobOutputType": how["type"],
                **self._output((node.get("outputs") or {}).get(key)),
            }
            for key, how in (spec.get("outputs") or {}).items()
        }
        asked = {
            "jobType": "Command",
            "displayName": name,
            "command": spec["command"],
            "environmentId": spec["environment"],
            "inputs": inputs,
            "outputs": told,
            "environmentVariables": node.get("environment_variables") or {},
        }
        settings = self.asked.get("settings") or {}
        compute = node.get("computeId") or settings.get("default_compute")
        compute = compute or self.asked.get("computeId")
        if compute:
            asked["computeId"] = compute
        if node.get("limits"):
            asked["limits"] = node["limits"]
        if node.get("resources"):
            count = node["resources"].get("instance_count") or 1
            asked["resources"] = {"instanceCount": count}
        return asked

    def _input(
        self, spec: dict[str, Any], how: dict[str, Any], outputs: dict[tuple[str, str], str]
    ) -> dict[str, Any]:
        value = how.get("value")
        if isinstance(value, str):
            if found := _BOUND.fullmatch(value):
                return {
                    "jobInputType": spec.get("type", "uri_folder"),
                    "uri": outputs[found[1], found[2]],
                }
            if found := _GIVEN.fullmatch(value):
                given: dict[str, Any] = self.asked["inputs"][found[2]]
                return given
        if how.get("job_input_type") == "literal" or "uri" not in how:
            return {"jobInputType": "literal", "value": str(value)}
        return {"jobInputType": how["job_input_type"], "uri": how["uri"]}

    def _output(self, how: dict[str, Any] | None) -> dict[str, Any]:
        if not how:
            return {}
        value = how.get("value")
        if isinstance(value, str) and (found := _GIVEN.fullmatch(value)):
            how = self.asked["outputs"][found[2]]
        return {key: how[key] for key in ("uri", "mode") if how.get(key)}


def _ordered(steps: dict[str, Any]) -> list[str]:
    """Names of the steps, each after those whose outputs it needs.

    Raises:
        Refused: they wait for each other, or for one that isn't there.
    """
    needs = {
        name: {found[1] for found in _BOUND.finditer(str(node.get("inputs")))}
        for name, node in steps.items()
    }
    order: list[str] = []
    while len(order) < len(steps):
        ready = [name for name in steps if name not in order and needs[name] <= set(order)]
        if not ready:
            raise Refused(400, "UserError", f"steps wait for what isn't there: {sorted(needs)}")
        order += ready
    return order
