"""The mock's Azure ML as Azure's own library meets it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from edgefleet.testing.waiting import eventually
from edgefleet_azure.clients import Clients
from edgefleet_azure.errors import status_of
from edgefleet_azure.mock import AzureMock
from edgefleet_azure.workspace import Workspace

WAIT_S = 60.0
_STORE = "azureml://datastores/workspaceblobstore/paths"


@pytest.fixture
def ml(clients: Clients) -> Any:
    return clients.ml()


@pytest.fixture
def job(ml: Any) -> Callable[..., Any]:
    """Submits a command job."""
    from azure.ai.ml import command

    def submit(text: str, **more: Any) -> Any:
        made = command(command=text, **{"environment": "azureml:python:3", **more})
        return ml.jobs.create_or_update(made)

    return submit


def until_ended(ml: Any, name: str) -> str:
    def ended() -> str | None:
        status = str(getattr(ml.jobs.get(name).status, "value", "none yet"))
        return status if status in {"Completed", "Failed", "Canceled"} else None

    return eventually(ended, f"{name} ends")


def test_azures_own_client_streams_a_job_that_really_runs(
    ml: Any,
    job: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    seen = tmp_path / "seen"
    text = f"echo from $AZUREML_RUN_ID; until [ -e '{seen}' ]; do sleep 0.1; done"
    made = job(text, environment_variables={"A": "b"})
    streaming = threading.Thread(target=ml.jobs.stream, args=(made.name,), daemon=True)
    streaming.start()
    shown = ""

    def streamed() -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return f"from {made.name}" in shown

    eventually(streamed, lambda: f"its output, of which came {shown!r}")
    seen.touch()  # it ends when its output was streamed, and not before
    streaming.join(WAIT_S)
    shown += capsys.readouterr().out
    assert "Execution Summary" in shown
    told = ml.jobs.get(made.name)
    assert (told.status, told.environment_variables) == ("Completed", {"A": "b"})


def test_inputs_and_outputs_lie_in_the_storage_account(
    ml: Any,
    job: Callable[..., Any],
    cloud: AzureMock,
) -> None:
    from azure.ai.ml import Input, Output

    cloud.ml.storage.write("azureml-blobstore", "in/a/b.txt", b"hello")
    made = job(
        "cp -r ${{inputs.given}}/a ${{outputs.made}}/ && cat ${{inputs.one}}",
        inputs={
            "given": Input(type="uri_folder", path=f"{_STORE}/in"),
            "one": Input(type="uri_file", path=f"{_STORE}/in/a/b.txt"),
        },
        outputs={"made": Output(type="uri_folder")},
    )
    assert until_ended(ml, made.name) == "Completed"
    kept = f"azureml/{made.name}/made/a/b.txt"
    assert cloud.ml.storage.read("azureml-blobstore", kept) == b"hello"


def test_what_is_uploaded_at_the_end_is_lost_with_a_job_that_fails(
    ml: Any,
    job: Callable[..., Any],
    cloud: AzureMock,
) -> None:
    from azure.ai.ml import Output

    made = job(
        "echo x > ${{outputs.up}}/a; echo x > ${{outputs.mounted}}/a; exit 3",
        outputs={
            "up": Output(type="uri_folder", mode="upload"),
            "mounted": Output(type="uri_folder", mode="rw_mount"),
        },
    )
    assert until_ended(ml, made.name) == "Failed"
    names = cloud.ml.storage.names("azureml-blobstore", f"azureml/{made.name}/")
    assert names == [f"azureml/{made.name}/mounted/a"]


def test_a_job_is_cancelled_once(ml: Any, job: Callable[..., Any]) -> None:
    made = job("sleep 600")
    ml.jobs.begin_cancel(made.name).result()
    assert until_ended(ml, made.name) == "Canceled"
    with pytest.raises(HttpResponseError, match="has ended"):
        ml.jobs.begin_cancel(made.name)


@pytest.mark.parametrize(
    "more,word",
    [
        ({"environment": "azureml:nothing:1"}, "Environment"),
        ({"compute": "no-such-cluster"}, "compute target"),
        ({"compute": "cpu-cluster", "instance_count": 9}, "9 nodes"),
        ({"name": "a name"}, "no name"),
    ],
)
def test_a_job_that_cannot_run_is_refused(
    more: dict[str, Any], word: str, job: Callable[..., Any]
) -> None:
    with pytest.raises(HttpResponseError, match=word):
        job("echo x", **more)


def test_a_job_whose_name_is_taken_changes_no_other_job(job: Callable[..., Any]) -> None:
    made = job("echo first")
    assert job("echo first", name=made.name).name == made.name
    with pytest.raises(HttpResponseError, match="command cannot be changed"):
        job("echo second", name=made.name)


def test_an_input_that_is_not_there_fails_the_job(
    ml: Any,
    job: Callable[..., Any],
) -> None:
    from azure.ai.ml import Input

    given = {"x": Input(type="uri_folder", path=f"{_STORE}/nothing/here")}
    made = job("ls ${{inputs.x}}", inputs=given)
    assert until_ended(ml, made.name) == "Failed"


def test_a_models_place_never_changes_and_its_version_is_a_whole_number(
    ml: Any,
    clients: Clients,
) -> None:
    from azure.ai.ml.entities import Model

    def model(version: str, path: str, **more: Any) -> Model:
        return Model(name="lenses", version=version, path=f"{_STORE}/{path}", **more)

    ml.models.create_or_update(model("1", "one", stage="Development", tags={"a": "b"}))
    changed = ml.models.create_or_update(model("1", "one", stage="Production"))
    assert changed.stage == "Production"
    with pytest.raises(HttpResponseError, match="Asset paths cannot be updated"):
        ml.models.create_or_update(model("1", "two"))
    with pytest.raises(HttpResponseError, match="positive integer"):
        ml.models.create_or_update(model("one", "one"))
    ml.models.archive(name="lenses", version="1")
    assert list(ml.models.list(name="lenses")) == []
    assert ml.models.get(name="lenses", version="1").version == "1"


def test_another_workspace_is_not_there(clients: Clients, cloud: AzureMock) -> None:
    group = cloud.ml.workspace.scope.rpartition("/")[0]
    with pytest.raises(HttpResponseError, match="was not found") as caught:
        clients.arm("GET", f"{group}/another", api_version="2025-12-01")
    assert status_of(caught.value) == 404


def test_a_reader_may_look_and_not_submit(
    clients: Clients,
    cloud: AzureMock,
    monkeypatch: pytest.MonkeyPatch,
    make_clients: Callable[..., Clients],
    settings: Any,
) -> None:
    monkeypatch.setenv("AZURE_CLIENT_ID", cloud.add_user("reader", ["Reader"]))
    workspace = Workspace(make_clients(settings), settings)
    assert workspace.sizes
    with pytest.raises(HttpResponseError) as caught:
        workspace.write("datastores/x", {})
    assert status_of(caught.value) == 403


def test_what_there_is_outlives_the_mock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = AzureMock(tmp_path)
    for attempt in range(2):
        cloud.start()
        with monkeypatch.context() as patched:
            for key, value in cloud.authority.alone(cloud.environment).items():
                patched.setenv(key, value)
            if attempt == 0:
                cloud.ml.assets.put("models", "lenses", "1", {"modelUri": "x"})
            else:
                assert cloud.ml.assets.read("models", "lenses", "1")["modelUri"] == "x"
        cloud.stop()
