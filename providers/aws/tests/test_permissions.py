"""Each part with the least policy that the documentation gives it, against the calls it makes."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgefleet.errors import AccessDeniedError, IntegrityError, UnavailableError
from edgefleet.interfaces.abilities import CanProve
from edgefleet.interfaces.training import TrainingJob
from edgefleet.protocol.bundle import Descriptor
from edgefleet.protocol.digest import digest_of
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_aws.blobs import S3BlobStore
from edgefleet_aws.clients import Clients
from edgefleet_aws.cloud.strictness import hold_to_model
from edgefleet_aws.deployer import GreengrassDeployer
from edgefleet_aws.names import Names
from edgefleet_aws.permissions import OPERATOR, STACK, actions_of, policy
from edgefleet_aws.permissions_page import page
from edgefleet_aws.registry import SageMakerRegistry
from edgefleet_aws.settings import AwsSettings
from edgefleet_aws.state import S3StateStore
from edgefleet_aws.telemetry import S3Telemetry
from edgefleet_aws.template import template
from edgefleet_aws.trainer import SageMakerTrainer

if TYPE_CHECKING:
    from edgefleet_aws.mock import AwsMock

    Operate = Callable[..., tuple[Clients, AwsSettings]]

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "aws-permissions.md"
TIMEOUT_S = 120.0
_users = itertools.count(1)


@pytest.fixture
def calls() -> set[tuple[str, str]]:
    """Service and operation of each call that operators of the test made."""
    return set()


@pytest.fixture
def operate(
    cloud: AwsMock, make_settings: Callable[..., AwsSettings], calls: set[tuple[str, str]]
) -> Iterator[Operate]:
    """Makes clients of somebody who may do what parts need, and no more."""
    made: list[Clients] = []

    def note(model: Any, **_: object) -> None:
        calls.add((model.service_model.service_name, model.name))

    def prepare(client: Any) -> None:
        hold_to_model(client)
        client.meta.events.register("before-call", note)

    def make(*parts: str, without: str = "", **changes: Any) -> tuple[Clients, AwsSettings]:
        settings = make_settings(**changes)
        actions = {action for part in parts for action in OPERATOR[part]} - {without}
        user = f"user-{next(_users)}"
        cloud.add_user(user, policy(Names(settings), tuple(sorted(actions))))
        settings = settings.model_copy(update={"credentials_profile": user})
        made.append(Clients(settings, prepare=prepare))
        return made[-1], settings

    yield make
    for clients in made:
        clients.close()
    cloud.fleet.remove()


@pytest.fixture
def called(calls: set[tuple[str, str]]) -> Callable[[], set[str]]:
    """Gives the actions that operators' calls needed."""
    return lambda: {action for call in calls for action in actions_of(*call)}


def test_the_registry_is_given_what_it_calls_and_no_more(
    operate: Operate, cloud: AwsMock, called: Callable[[], set[str]], tmp_path: Path
) -> None:
    clients, settings = operate("registry", part_mib=5, max_attempts=1)
    registry, blobs = SageMakerRegistry(clients, settings), S3BlobStore(clients, settings)
    registry.push(samples.bundle(tmp_path), "digits")
    registry.approve("digits:1", by="ada")
    registry.list()
    registry.versions("digits")
    data = bytes(12 << 20)
    large = Descriptor(media_type="", digest=digest_of(data), size=len(data))
    cloud.rules.add(Rule("s3.UploadPart", skip=1, cut_request_at=1000))
    with suppress(UnavailableError):
        blobs.put(large, lambda: io.BytesIO(data))
    blobs.put(large, lambda: io.BytesIO(data))
    other = Descriptor(media_type="", digest=digest_of(b"other"), size=len(data))
    with pytest.raises(IntegrityError):
        blobs.put(other, lambda: io.BytesIO(data))
    registry.delete("digits:1")
    assert called() == set(OPERATOR["registry"])


def test_the_state_store_is_given_what_it_calls_and_no_more(
    operate: Operate, called: Callable[[], set[str]]
) -> None:
    state = S3StateStore(*operate("state"))
    tag = state.write("fleet/x", b"1", expect=None)
    state.read("fleet/x")
    list(state.keys("fleet/"))
    state.delete("fleet/x", expect=tag)
    assert called() == set(OPERATOR["state"])


def test_the_trainer_is_given_what_it_calls_and_no_more(
    operate: Operate, called: Callable[[], set[str]], tmp_path: Path
) -> None:
    trainer = SageMakerTrainer(*operate("trainer"), base=tmp_path)
    script, data = tmp_path / "code" / "train.py", tmp_path / "data"
    script.parent.mkdir()
    script.write_text(
        "import os, pathlib\n"
        "pathlib.Path(os.environ['EDGEFLEET_OUTPUT_DIR'], 'model.onnx').write_text('x')\n"
        "print('done')\n"
    )
    data.mkdir()
    (data / "one").write_bytes(b"1")
    run = trainer.submit(TrainingJob(script=script, data=data))
    run.wait(timeout_s=TIMEOUT_S)
    list(run.logs())
    trainer.outputs(run.id)
    trainer.list()
    waiting = tmp_path / "code" / "wait.py"
    waiting.write_text("import time\ntime.sleep(1000)\n")
    trainer.submit(TrainingJob(script=waiting)).cancel()
    assert called() == set(OPERATOR["trainer"])


def test_telemetry_is_given_what_it_calls_and_no_more(
    operate: Operate, called: Callable[[], set[str]], clients: Clients
) -> None:
    mine, settings = operate("telemetry")
    key = f"{Names(settings).devices_folder('cam-1')}hot/1.json"
    clients.s3.put_object(Bucket=settings.bucket, Key=key, Body=b'{"events": []}')
    list(S3Telemetry(mine, settings).query())
    assert called() == set(OPERATOR["telemetry"])


def test_receiving_is_given_what_it_calls_and_no_more(
    operate: Operate, called: Callable[[], set[str]], tmp_path: Path
) -> None:
    telemetry = S3Telemetry(*operate("receiving"))
    (file := tmp_path / "segment").write_bytes(b"x")
    telemetry.receive_file("cam-1", "segments/date=2026-11-21/model=digits/1.seg", file)
    telemetry.receive_hot("cam-1", [samples.alarm(1)])
    assert called() == set(OPERATOR["receiving"])


def deployer_of(clients: Clients, settings: AwsSettings, store: S3StateStore) -> GreengrassDeployer:
    return GreengrassDeployer(clients, settings, state=lambda: store)


def test_the_deployer_is_given_what_it_calls_and_no_more(
    operate: Operate, cloud: AwsMock, settings: AwsSettings, called: Callable[[], set[str]]
) -> None:
    clients, told = operate("deployer", prefix=settings.prefix)
    deployer = deployer_of(clients, told, S3StateStore(clients, told))
    deployer.enroll("cam-1", group="line-3", labels={"site": "north"})
    deployer.groups()
    deployer_of(clients, told, S3StateStore(clients, told)).pointer("line-3")
    deployer.render("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(1))
    deployer.progress("line-3")
    cloud.fleet.greengrass.devices.role_alias = f"{settings.prefix}-devices"
    cloud.fleet.power_on("cam-1", {})
    list(deployer.devices())
    deployer.device("cam-1")
    with suppress(UnavailableError):
        deployer.invoke("cam-1", "/v2", timeout_s=0.01)
    deployer.retire("cam-1")
    # An answer that arrives is deleted, which no call here waits for.
    assert called() | {"s3:DeleteObject"} == set(OPERATOR["deployer"])


def test_installing_is_given_what_it_calls_and_no_more(
    operate: Operate, make_clients: Callable[..., Clients], called: Callable[[], set[str]]
) -> None:
    clients, settings = operate(
        "install",
        bucket=f"install-{next(_users)}-new",
        runtime_python="/usr/bin/python3",
        fleet_indexing=True,
        provision_group="new",
        thing_groups={"line-3": "Theirs"},
    )
    full = make_clients(settings.model_copy(update={"credentials_profile": None}))
    full.iot.create_thing(thingName="press-7")
    full.iot.create_thing_group(thingGroupName="Theirs")
    full.iot.add_thing_to_thing_group(thingGroupName="Theirs", thingName="press-7")
    deployer = deployer_of(clients, settings, S3StateStore(clients, settings))
    deployer.install(group="line-3")
    deployer.install()
    deployer.install_documents()
    key = f"{settings.prefix}/blobs/1"
    full.s3.put_object(Bucket=settings.bucket, Key=key, Body=b"1")
    deployer.uninstall(data=True)
    # A wheelhouse is looked for, and stored, where one is configured.
    assert called() | {"s3:GetObject", "s3:PutObject"} == set(OPERATOR["install"])


def test_everything_that_a_stack_makes_has_its_permissions_told(
    make_settings: Callable[..., AwsSettings],
) -> None:
    settings = make_settings(provision_group="new")
    kinds = {one["Type"] for one in template(settings)["Resources"].values()}
    assert kinds == STACK.keys()


def trainer_of(clients: Clients, settings: AwsSettings) -> SageMakerTrainer:
    return SageMakerTrainer(clients, settings, base=Path())


PARTS: dict[str, Callable[[Clients, AwsSettings], CanProve]] = {
    "automating": trainer_of,
    "compiling": trainer_of,
    "registry": SageMakerRegistry,
    "state": S3StateStore,
    "telemetry": S3Telemetry,
    "trainer": trainer_of,
}


@pytest.mark.parametrize("part", sorted({*PARTS, "deployer", "install"}))
def test_what_is_allowed_is_proven(part: str, operate: Operate) -> None:
    parts = ("deployer", "install") if part in {"deployer", "install"} else (part,)
    clients, settings = operate(*parts)
    if len(parts) == 1:
        service = PARTS[part](clients, settings)
    else:
        service = deployer_of(clients, settings, S3StateStore(clients, settings))
    found = [proof for proof in service.proofs() if proof.part == part]
    assert [proof.action for proof in found] == list(OPERATOR[part])
    assert [proof for proof in found if proof.tried and proof.problem] == []
    assert all(proof.problem for proof in found if not proof.tried)


@pytest.mark.parametrize(
    "part,action",
    [(part, action) for part in ("state", "telemetry") for action in OPERATOR[part]]
    + [("registry", "sagemaker:UpdateModelPackage"), ("trainer", "sagemaker:CreateTrainingJob")],
)
def test_what_is_missing_is_named(part: str, action: str, operate: Operate) -> None:
    service = PARTS[part](*operate(part, without=action))
    found = [proof for proof in service.proofs() if proof.part == part]
    denied = [proof for proof in found if proof.tried and proof.problem]
    assert [proof.action for proof in denied] == [action]
    assert action in str(denied[0].problem)


def test_what_a_gateway_needs_is_proven_when_it_is_asked_for(operate: Operate) -> None:
    allowed = list(S3Telemetry(*operate("receiving")).receiving_proofs())
    assert [(proof.part, proof.action) for proof in allowed] == [("receiving", "s3:PutObject")]
    assert allowed[0].problem is None
    (denied,) = S3Telemetry(*operate("telemetry")).receiving_proofs()
    assert "s3:PutObject" in str(denied.problem)


def test_proving_changes_nothing(
    operate: Operate, clients: Clients, make_clients: Callable[..., Clients]
) -> None:
    mine, settings = operate("deployer", "install")
    deployer = deployer_of(mine, settings, S3StateStore(mine, settings))
    list(deployer.proofs())
    s3: Any = clients.s3
    iot: Any = clients.iot
    below = f"{settings.prefix}/"
    assert "Contents" not in s3.list_objects_v2(Bucket=settings.bucket, Prefix=below)
    assert iot.list_things()["things"] == []
    assert iot.list_thing_groups()["thingGroups"] == []
    assert clients.cloudformation.describe_stacks()["Stacks"] == []
    assert clients.greengrass.list_deployments()["deployments"] == []


def test_a_missing_permission_stops_the_call_that_needs_it(operate: Operate) -> None:
    state = S3StateStore(*operate("state", without="s3:PutObject"))
    with pytest.raises(AccessDeniedError, match="s3:PutObject"):
        state.update("fleet/x", lambda _: b"1")


def test_the_page_is_what_the_code_says() -> None:
    written = samples.Content.of(PAGE.read_bytes())
    assert written == samples.Content.of(page().encode())


def test_policies_on_the_page_are_json() -> None:
    blocks = page().split("```json\n")[1:]
    documents = [json.loads(block.partition("```")[0]) for block in blocks]
    assert all(one["Version"] == "2012-10-17" and one["Statement"] for one in documents)
    assert len(documents) == len(OPERATOR) + 4
