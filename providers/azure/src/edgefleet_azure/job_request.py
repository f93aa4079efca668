"""What a training job is asked for with, whether it is started here or as a step of a pipeline.

The script's folder, a small entry script and an order lie in Blob storage, and reach the job as its
input ``code``; the image needs nothing of EdgeFleet. Parameters are an environment variable.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import UnsupportedError
from edgefleet.interfaces import job_parts, training_entry
from edgefleet.interfaces.machines import Machine, Machines
from edgefleet.training import PARAMS_VARIABLE
from edgefleet_azure.datasets import CONTAINER, make_container
from edgefleet_azure.ml_library import load_library
from edgefleet_azure.registration import RUN_FILE, TRAINED_BY

if TYPE_CHECKING:
    from collections.abc import Mapping

    from azure.ai.ml.entities import Command

    from edgefleet.interfaces.training import Resources
    from edgefleet_azure.clients import Clients
    from edgefleet_azure.settings import AzureSettings
    from edgefleet_azure.workspace import Workspace

MAX_PARAMS_BYTES = 16 << 10  # a job's document carries them; what a service takes isn't published
DEFAULT_SIZE = "Standard_DS3_v2"  # of serverless compute, for runs that ask for nothing
LISTED = "https://learn.microsoft.com/azure/virtual-machines/sizes/overview"
KEPT, CHECKPOINTS, METRICS, RUN = "kept", "checkpoints", "metrics", "run"  # outputs of a job
SERVERLESS = "serverless"


class Where(NamedTuple):
    """What a job runs on.

    Attributes:
        compute: name of the compute; None for serverless.
        size: machine size that serverless compute is asked for; None beside a compute.
        machines: how many.
        processes: a machine, where there are several machines.
        limit_s: it is ended after so many seconds.
    """

    compute: str | None
    size: str | None
    machines: int
    processes: int
    limit_s: int


def where(wants: Resources, settings: AzureSettings, workspace: Workspace) -> Where:
    """What a run gets: the profile's compute, or serverless compute of a size that has enough.

    Raises:
        UnsupportedError: it can't be given.
    """
    plain = wants.instance is None and wants.gpus == 0 and wants.memory_gib is None
    most = settings.max_machines
    compute = settings.compute if plain else None
    if compute is not None:
        most = min(most, _nodes(workspace, compute))
    sizes = {str(size["name"]): size for size in workspace.sizes}
    known = {
        name: Machine(int(size.get("gpus") or 0), float(size.get("memoryGB") or 0))
        for name, size in sizes.items()
    }
    machines = Machines(
        vendor="Azure ML",
        known=dict(sorted(known.items(), key=lambda one: (one[1], one[0]))),
        offered=sizes.__contains__,
        listed=LISTED,
        default=DEFAULT_SIZE if compute is None else next(iter(sizes)),
        most=most,
    )
    size = machines.choose(wants)
    return Where(
        compute=compute,
        size=None if compute is not None else size,
        machines=wants.count,
        processes=max(wants.gpus, 1),
        limit_s=math.ceil(wants.max_runtime_s or settings.max_runtime_s),
    )


def _nodes(workspace: Workspace, compute: str) -> int:
    found = workspace.read(f"computes/{compute}")
    if found is None:
        raise UnsupportedError(
            f"the workspace has no compute {compute!r}",
            cure="set `compute` in the profile to one that it has, or leave it out",
        )
    told = found["properties"].get("properties") or {}
    return int((told.get("scaleSettings") or {}).get("maxNodeCount", 1))


def send_code(
    clients: Clients, workspace: Workspace, place: str, archive: bytes, order: Mapping[str, Any]
) -> str:
    """Put a job's code below a place in the container for training; gives its address."""
    make_container(clients)
    container, prefix = clients.container(CONTAINER), f"{place}/code/"
    for name, content in job_parts.files_of(archive, order).items():
        container.upload_blob(prefix + name, content, overwrite=True)
    return workspace.address(CONTAINER, prefix)


class Asked(NamedTuple):
    """What a job is for.

    Attributes:
        name: shown to people.
        inputs: name -> address, ``code`` among them; ``training`` and ``trained`` where it has
            data, and where it gets what a training script left; `RUN` where it is told which run
            that was.
        output: address of what is kept.
        params: as `job_parts.params_text` gives them.
        metrics: address of a folder for the newest metrics; None for none.
        run: address of a folder for the run's own id; None for none.
        checkpoints: address of what is there again after an interruption; None for none.
        variables: more of the environment.
    """

    name: str
    inputs: Mapping[str, str]
    output: str
    params: str
    metrics: str | None = None
    run: str | None = None
    checkpoints: str | None = None
    variables: Mapping[str, str] = {}


def command_of(asked: Asked, on: Where, settings: AzureSettings) -> Command:
    """A command job as azure-ai-ml takes it, or as a step of a pipeline."""
    load_library()
    from azure.ai.ml import Input, Output, command  # noqa: PLC0415 - takes seconds
    from azure.ai.ml.entities import Environment, QueueSettings  # noqa: PLC0415 - likewise

    named = settings.needed("environment", "training")
    environment: str | Environment = named
    if not named.startswith("azureml:"):
        environment = Environment(image=named)
    elif "@" in named:  # azure-ai-ml looks labels up by names without the prefix
        environment = named.removeprefix("azureml:")
    outputs = {KEPT: Output(type="uri_folder", path=asked.output, mode="upload")}
    if asked.metrics is not None:
        outputs[METRICS] = Output(type="uri_folder", path=asked.metrics, mode="upload")
    if asked.run is not None:
        outputs[RUN] = Output(type="uri_folder", path=asked.run, mode="upload")
    if asked.checkpoints is not None:
        outputs[CHECKPOINTS] = Output(type="uri_folder", path=asked.checkpoints, mode="rw_mount")
    several = {"type": "PyTorch", "process_count_per_instance": on.processes}
    made: Command = command(
        display_name=asked.name,
        command=_words(asked),
        environment=environment,
        compute=on.compute,
        instance_type=on.size,
        instance_count=on.machines,
        distribution=several if on.machines > 1 else None,
        timeout=on.limit_s,
        inputs={
            name: Input(type="uri_folder", path=address, mode=_mode(name))
            for name, address in asked.inputs.items()
        },
        outputs=outputs,
        environment_variables={PARAMS_VARIABLE: asked.params, **asked.variables},
        is_deterministic=False,
    )
    if settings.training_spot and on.compute is None:
        made.queue_settings = QueueSettings(job_tier="Spot")
    return made


def _mode(name: str) -> str:
    return "ro_mount" if name == "training" else "download"


def _words(asked: Asked) -> str:
    """The command: the entry script, and where all that it needs lies."""
    words = [f'python3 "${{{{inputs.code}}}}/{training_entry.ENTRY}"']
    words += [f'--output "${{{{outputs.{KEPT}}}}}"', '--work "edgefleet-${RANK:-0}"']
    words.append("--rank RANK")
    if "training" in asked.inputs:
        words.append('--data "${{inputs.training}}"')
    if "trained" in asked.inputs:
        words.append('--trained "${{inputs.trained}}"')
    if RUN in asked.inputs:
        words.append(f'--set "{TRAINED_BY}=${{{{inputs.{RUN}}}}}"')
    if asked.metrics is not None:
        words.append(f'--metrics "${{{{outputs.{METRICS}}}}}"')
    if asked.checkpoints is not None:
        words.append(f'--checkpoints "${{{{outputs.{CHECKPOINTS}}}}}"')
    if asked.run is not None:  # Azure ML chooses the ids of a pipeline's steps, and tells them so
        words.append(f'&& printf %s "$AZUREML_RUN_ID" > "${{{{outputs.{RUN}}}}}/{RUN_FILE}"')
    return " ".join(words)
