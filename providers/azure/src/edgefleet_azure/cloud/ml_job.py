"""One command job: brings its inputs, runs its command in child processes, takes its outputs.

The environment's image isn't pulled: the command runs in this machine's shell, and its ``python``
and ``python3`` are this Python. Statuses, names of logs and variables are as in ``mock_rules.md``.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.testing.cloud.child import Ended, Why, kept_environment, run_child
from edgefleet_azure.cloud.ml_calls import now

if TYPE_CHECKING:
    import io
    from collections.abc import Callable, Mapping

    from edgefleet_azure.cloud.ml_calls import Storage
    from edgefleet_azure.cloud.ml_workspace import Workspace

ARTIFACTS = "azureml"  # container of what runs leave
ENDED = {"Completed", "Failed", "Canceled"}
_READ = 1 << 16
_URI = re.compile(r"azureml://(?:subscriptions/.+/)?datastores/(?P<store>[^/]+)/paths/(?P<path>.*)")
_BINDING = re.compile(r"\$\{\{\s*(inputs|outputs)\.([A-Za-z0-9_-]+)\s*\}\}")
_DURATION = re.compile(r"P(?:(\d+)D)?(?:T(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?)?")


class BadJobError(Exception):
    """Something of the job can't be had."""


class Place(NamedTuple):
    """Where a URI lies in the mock's storage account."""

    container: str
    path: str


def place_of(uri: str, workspace: Workspace) -> Place:
    """Where the blobs of an ``azureml://`` address lie.

    Raises:
        BadJobError: it is no such address, or names a datastore that isn't there.
    """
    found = _URI.fullmatch(uri)
    if found is None:
        raise BadJobError(f"{uri} can't be read: not an address in a datastore")
    try:
        _, container = workspace.container(found["store"])
    except KeyError:
        raise BadJobError(f"Datastore {found['store']} was not found.") from None
    return Place(container, found["path"])


class CommandJob:
    """A job and its thread.

    Args:
        name: of the job.
        asked: its ``properties``, inputs and outputs all bound to addresses.
        folder: for its inputs and outputs; removed when it has ended.
        storage: the account.
        workspace: that it runs in.
        given: gives the variables that reach the cloud as the compute's identity.
    """

    def __init__(  # noqa: PLR0917 - what the workspace gives each job
        self,
        name: str,
        asked: dict[str, Any],
        folder: Path,
        storage: Storage,
        workspace: Workspace,
        given: Callable[[], Mapping[str, str]],
    ) -> None:
        self.name, self.asked = name, asked
        self._folder, self._storage, self._workspace = folder, storage, workspace
        self._given = given
        self._lock = threading.Lock()
        self._endings: list[threading.Event] = []
        self._cancelled = self._interrupted = False
        self._facts: dict[str, Any] = {"status": "NotStarted", "created": now()}
        self._logs: list[str] = []
        self._thread = threading.Thread(target=self._run, name=f"job-{name}", daemon=True)

    def start(self) -> None:
        """Begin; `told` tells how far it is."""
        self._thread.start()

    def join(self) -> None:
        """Return when it has ended."""
        self._thread.join()

    def told(self) -> dict[str, Any]:
        """How far it is: status, times, error, names of its logs."""
        with self._lock:
            return {**self._facts, "logs": list(self._logs)}

    def cancel(self) -> None:
        """Ask it to end; no error when it has."""
        with self._lock:
            if self._facts["status"] in ENDED:
                return
            self._cancelled = True
            self._facts["status"] = "CancelRequested"
            endings = list(self._endings)
        for ending in endings:
            ending.set()

    def interrupt(self) -> None:
        """Take its spare machine away while it runs: it is queued and starts anew.

        Raises:
            ValueError: it isn't on spare capacity, or doesn't run just now.
        """
        tier = self.asked.get("queueSettings", {}).get("jobTier")
        with self._lock:
            if tier != "Spot" or self._facts["status"] != "Running" or not self._endings:
                raise ValueError(f"{self.name} is on no spare machine that can be taken away now")
            self._interrupted = True
            endings = list(self._endings)
        for ending in endings:
            ending.set()

    def _tell(self, status: str, **facts: object) -> None:
        with self._lock:
            if not self._cancelled or status in ENDED:
                self._facts["status"] = status
            self._facts |= facts

    def _run(self) -> None:
        self._tell("Preparing")
        try:
            status, message = self._work()
        except BadJobError as error:
            status, message = "Failed", str(error)
        except Exception as error:  # noqa: BLE001 - whatever it is, the job's status tells
            status, message = "Failed", f"internal error of the mock: {error!r}"
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        facts = {} if message is None else {"error": {"code": "UserError", "message": message}}
        self._tell(status, ended=now(), **facts)

    def _work(self) -> tuple[str, str | None]:
        while True:
            inputs, outputs = self._lay_out()
            self._tell("Queued")
            self._tell("Running", started=now())
            ends = self._processes(inputs, outputs)
            interrupted, self._interrupted = self._interrupted, False
            failed = next((end for end in ends if end.why is Why.ITSELF and end.status), None)
            whole = failed is None and all(end.why is Why.ITSELF for end in ends)
            self._tell("Finalizing")
            self._take(outputs, whole=whole)
            if self._cancelled:
                return "Canceled", None
            if not interrupted:
                break
            shutil.rmtree(self._folder, ignore_errors=True)
        if failed is not None:
            code = 128 - failed.status if failed.status < 0 else failed.status
            return "Failed", (
                f"Execution failed. User process '{self.asked['command'].split(' ')[0]}' exited "
                f"with status code {code}. Please check log file 'user_logs/std_log.txt' for error "
                "details."
            )
        return ("Completed", None) if whole else ("Canceled", None)  # over its time

    def _lay_out(self) -> tuple[dict[str, str], dict[str, Path]]:
        inputs, outputs = {}, {}
        for name, asked in self.asked.get("inputs", {}).items():
            if asked["jobInputType"] == "literal":
                inputs[name] = str(asked["value"])
                continue
            folder = self._folder / "inputs" / name
            inputs[name] = str(self._bring(asked, folder))
        for name, asked in self.asked.get("outputs", {}).items():
            folder = outputs[name] = self._folder / "outputs" / name
            folder.mkdir(parents=True)
            if asked.get("mode", "ReadWriteMount") == "ReadWriteMount":
                self._fetch(place_of(asked["uri"], self._workspace), folder)
        (self._folder / "wd").mkdir(parents=True, exist_ok=True)
        return inputs, outputs

    def _bring(self, asked: Mapping[str, Any], folder: Path) -> Path:
        place = place_of(asked["uri"], self._workspace)
        folder.mkdir(parents=True)
        if asked["jobInputType"] == "uri_file":
            path = folder / Path(place.path).name
            try:
                path.write_bytes(self._storage.read(place.container, place.path))
            except KeyError:
                raise BadJobError(f"The input {asked['uri']} doesn't exist.") from None
            return path
        if not self._fetch(place, folder):
            raise BadJobError(f"The input {asked['uri']} doesn't exist.")
        return folder

    def _fetch(self, place: Place, to: Path) -> int:
        prefix = place.path.rstrip("/") + "/"
        names = self._storage.names(place.container, prefix)
        for name in names:
            path = to / name.removeprefix(prefix)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self._storage.read(place.container, name))
        return len(names)

    def _take(self, outputs: Mapping[str, Path], *, whole: bool) -> None:
        """Keep outputs: what is uploaded at the end only of a job that has ended well."""
        for name, folder in outputs.items():
            asked = self.asked["outputs"][name]
            if asked.get("mode", "ReadWriteMount") != "ReadWriteMount" and not whole:
                continue
            place = place_of(asked["uri"], self._workspace)
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    blob = f"{place.path.rstrip('/')}/{path.relative_to(folder).as_posix()}"
                    self._storage.write(place.container, blob, path.read_bytes())

    def _processes(self, inputs: Mapping[str, str], outputs: Mapping[str, Path]) -> list[Ended]:
        ranks = _ranks(self.asked)
        with self._lock:
            self._endings = [threading.Event() for _ in ranks]
            ended_already = self._cancelled
        if ended_already:
            return [Ended(Why.ASKED, 0)]
        ends: dict[int, Ended] = {}

        def one(rank: int) -> None:
            log = "std_log.txt" if len(ranks) == 1 else f"std_log_process_{rank}.txt"
            ends[rank] = run_child(
                ["/bin/bash", "-c", _bound(self.asked["command"], inputs, outputs)],
                folder=self._folder / "wd",
                environment={**self._environment(inputs, outputs), **ranks[rank]},
                pump=lambda output: self._pump(output, f"user_logs/{log}"),
                ending=self._endings[rank],
                limit_s=_seconds(self.asked.get("limits", {}).get("timeout")),
            )
            if ends[rank].status:  # the others would wait for it for ever
                for ending in self._endings:
                    ending.set()

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(len(ranks))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with self._lock:
            self._endings = []
        return [ends[rank] for rank in range(len(ranks))]

    def _pump(self, output: io.BufferedReader, log: str) -> None:
        blob = f"ExperimentRun/dcid.{self.name}/{log}"
        self._storage.append(ARTIFACTS, blob, b"")
        with self._lock:
            if log not in self._logs:
                self._logs.append(log)
        while data := output.read1(_READ):
            self._storage.append(ARTIFACTS, blob, data)
        output.close()

    def _environment(
        self, inputs: Mapping[str, str], outputs: Mapping[str, Path]
    ) -> dict[str, str]:
        kept = kept_environment()
        here = str(Path(sys.executable).parent)
        kept["PATH"] = f"{here}:{kept.get('PATH', '/usr/bin:/bin')}"
        return {
            **kept,
            **self._given(),
            "AZUREML_RUN_ID": self.name,
            "AZUREML_EXPERIMENT_NAME": str(self.asked.get("experimentName", "Default")),
            **{f"AZURE_ML_INPUT_{name}": value for name, value in inputs.items()},
            **{f"AZURE_ML_OUTPUT_{name}": str(path) for name, path in outputs.items()},
            **self.asked.get("environmentVariables", {}),
        }


def _bound(command: str, inputs: Mapping[str, str], outputs: Mapping[str, Path]) -> str:
    def fill(found: re.Match[str]) -> str:
        kind: Mapping[str, object] = inputs if found[1] == "inputs" else outputs
        if found[2] not in kind:
            raise BadJobError(f"the command names {found[1]}.{found[2]}, which the job hasn't")
        return str(kind[found[2]])

    return _BINDING.sub(fill, command)


def _seconds(duration: str | None) -> float:
    """Seconds of an ISO 8601 duration; a year for none."""
    found = _DURATION.fullmatch(duration or "P365D")
    days, hours, minutes, seconds = (float(part or 0) for part in (found.groups() if found else ()))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _ranks(asked: Mapping[str, Any]) -> list[dict[str, str]]:
    """The variables that tell each process of a distributed job who it is."""
    machines = int(asked.get("resources", {}).get("instanceCount", 1))
    how = asked.get("distribution") or {}
    kind = how.get("distributionType")
    if kind is None:
        return [{}]
    if kind == "TensorFlow":
        count = int(how.get("workerCount", machines))
        hosts = {"worker": [f"127.0.0.1:{6000 + rank}" for rank in range(count)]}
        tasks = ({"cluster": hosts, "task": {"type": "worker", "index": n}} for n in range(count))
        return [{"TF_CONFIG": json.dumps(task)} for task in tasks]
    each = int(how.get("processCountPerInstance", 1))
    told = []
    for rank in range(machines * each):
        if kind == "Mpi":
            told.append({"OMPI_COMM_WORLD_RANK": str(rank)})
            told[-1] |= {"OMPI_COMM_WORLD_SIZE": str(machines * each)}
            continue
        one = {"RANK": rank, "LOCAL_RANK": rank % each, "NODE_RANK": rank // each}
        one["WORLD_SIZE"] = machines * each
        told.append({name: str(value) for name, value in one.items()})
        told[-1] |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "6105"}
    return told


class EndedJob:
    """A job of an earlier run of the mock.

    Args:
        name: of the job.
        asked: its ``properties``.
        told: how it ended.
    """

    def __init__(self, name: str, asked: dict[str, Any], told: dict[str, Any]) -> None:
        self.name, self.asked, self._told = name, asked, told

    def told(self) -> dict[str, Any]:
        """How it ended."""
        return self._told

    def cancel(self) -> None:
        """Nothing: it has ended."""

    def join(self) -> None:
        """Return at once."""

    def interrupt(self) -> None:
        """Refuse: it has ended."""
        raise ValueError(f"{self.name} has ended")
