"""Roles hold what parts call and no more: held against the calls that the mock saw."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import yaml

from edgefleet.errors import AccessDeniedError, EdgeFleetError, NotFoundError
from edgefleet.interfaces.state import StateStore
from edgefleet.interfaces.training import Resources, TrainingJob
from edgefleet.protocol.orders import STATUS
from edgefleet.testing.kit import samples
from edgefleet_kubernetes import roles
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.api_writes import Write
from edgefleet_kubernetes.cloud.node_images import TRAINING_IMAGE
from edgefleet_kubernetes.cloud.train_definitions import install_trainer
from edgefleet_kubernetes.deployer import KubernetesDeployer
from edgefleet_kubernetes.manifests import namespaces, role_documents
from edgefleet_kubernetes.names import serving_secret
from edgefleet_kubernetes.permissions_page import page
from edgefleet_kubernetes.pod import ORDERS_KEY
from edgefleet_kubernetes.roles import OPERATOR, merged, namespace_of
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_kubernetes.state import KubernetesStateStore
from edgefleet_kubernetes.telemetry import KubernetesTelemetry
from edgefleet_kubernetes.trainer import KubernetesTrainer
from providers.kubernetes.tests.deployer_rig import Rig

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "kubernetes-permissions.md"
Deed = tuple[str, str, str]  # place, resource, verb
_LINE = re.compile(r"\S+ (?P<operation>\S+) (?P<path>\S+) (?P<status>\d+)")
_users = itertools.count(1)
Operate = Callable[..., tuple[Clients, KubernetesSettings]]


@pytest.fixture
def rig(tmp_path: Path, state: Callable[[], StateStore]) -> Iterator[Rig]:
    made = Rig(tmp_path / "cloud", state)
    for document in namespaces(made.settings):
        if made.store().find("Namespace", document["metadata"]["name"]) is None:
            made.put(document)
    yield made
    made.close()


@pytest.fixture
def operate(rig: Rig, tmp_path: Path) -> Iterator[Operate]:
    """Makes clients of somebody who may do what parts need, and no more."""
    made: list[Clients] = []

    def make(*parts: str, without: Deed | None = None) -> tuple[Clients, KubernetesSettings]:
        name = f"somebody-{next(_users)}"
        held = [OPERATOR[part] for part in parts]
        subject = [roles.subject(f"User:{name}")]
        for place, rules in roles.all_of(held).items():
            left = [_less(rule, place, without) for rule in rules]
            kept = {place: tuple(rule for rule in left if rule.verbs)}
            for document in role_documents(rig.settings, name, kept, subject):
                document["metadata"].pop("labels", None)  # else installing takes it for its own
                rig.put(document)
        path = tmp_path / f"{name}.kubeconfig"
        stage = rig.cloud.stage
        stage.kubeconfig(path, token=stage.add_user(name))
        settings = rig.settings.model_copy(update={"kubeconfig": path})
        made.append(Clients(settings))
        return made[-1], settings

    yield make
    for clients in made:
        clients.close()


def _less(rule: roles.Rule, place: str, without: Deed | None) -> roles.Rule:
    if without is None or (place, rule.resources[0]) != without[:2]:
        return rule
    return rule._replace(verbs=tuple(verb for verb in rule.verbs if verb != without[2]))


@pytest.fixture
def asked(rig: Rig) -> Callable[..., set[Deed]]:
    """Gives what calls needed, since it was asked last; another namespace may be named."""
    before = len(list(rig.cloud.seen()))

    def told(namespace: str = "edgefleet") -> set[Deed]:
        nonlocal before
        settings = rig.settings.model_copy(update={"namespace": namespace})
        places = {namespace_of(place, settings): place for place in roles.PLACES}
        found = set()
        for line in itertools.islice(rig.cloud.seen(), before, None):
            match = _LINE.fullmatch(line)
            assert match is not None, line
            resource, _, verb = match["operation"].rpartition(".")
            if resource in {"oci", "server", "selfsubjectaccessreviews"}:
                continue  # the registry's, and what is for everybody
            where = re.search(r"/namespaces/([^/]+)/", match["path"])
            place = places[where[1] if where else None]
            found.add((place, resource, verb))
            if verb == "patch" and match["status"] == "201":
                found.add((place, resource, "create"))
        before = len(list(rig.cloud.seen()))
        return found

    return told


def listed(*parts: str) -> set[Deed]:
    return {
        (place, resource, verb)
        for part in parts
        for place, rules in OPERATOR[part].items()
        for rule in rules
        for resource in rule.resources
        for verb in rule.verbs
    }


def deployer_of(rig: Rig, made: tuple[Clients, KubernetesSettings]) -> KubernetesDeployer:
    clients, settings = made
    return KubernetesDeployer(clients, settings, state=rig.state)


def test_the_state_store_is_given_what_it_calls_and_no_more(
    operate: Operate, asked: Callable[..., set[Deed]]
) -> None:
    state = KubernetesStateStore(*operate("state"))
    tag = state.write("fleet/x", b"1", expect=None)
    tag = state.write("fleet/x", b"2", expect=tag)
    state.read("fleet/x")
    list(state.keys("fleet/"))
    state.delete("fleet/x", expect=tag)
    assert asked() == listed("state")


def test_the_deployer_is_given_what_it_calls_and_no_more(
    rig: Rig, operate: Operate, asked: Callable[..., set[Deed]]
) -> None:
    rig.deployer.install(group="line-3")
    _put_pod(rig, RUNTIME)
    deployer = deployer_of(rig, operate("deployer"))
    asked()
    deployer.enroll("a", group="line-3", labels={"site": "A 1"})
    deployer.groups()
    deployer.publish("line-3", samples.pointer(1))
    deployer.publish("line-3", samples.pointer(2))
    deployer.label("a", {"shift": "night"})
    list(deployer.devices())
    deployer.device("a")
    for body in (None, b"{}"):
        with suppress(EdgeFleetError):
            deployer.invoke("a", "/v2", body=body, timeout_s=5)
    with suppress(EdgeFleetError):  # nothing runs there
        deployer.device_log("a")
    deployer.retire("a")
    assert asked() == listed("deployer")


RUNTIME = {"edgefleet.dev/group": "line-3", "edgefleet.dev/part": "runtime"}


def _put_pod(
    rig: Rig, labels: dict[str, str], name: str = "r-1", namespace: str = "edgefleet"
) -> None:
    """Have a pod on the node a, as if it ran; nobody answers at its address."""
    ours = {"app.kubernetes.io/managed-by": "edgefleet", "edgefleet.dev/fleet": "edgefleet"}
    labels = {**ours, **labels}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {"nodeName": "a", "containers": [{"name": "runtime", "image": "x"}]},
    }
    rig.put(pod)
    container = {
        "name": "runtime",
        "image": "x",
        "imageID": "x",
        "containerID": "containerd://x",
        "ready": True,
        "restartCount": 0,
        "state": {"running": {"startedAt": "2026-11-21T10:00:00Z"}},
    }
    status = {"phase": "Running", "podIP": "127.9.8.7", "containerStatuses": [container]}
    how = Write(subresource="status")
    rig.store().patch("Pod", name, {"status": status}, namespace, how=how)


def train(rig: Rig, made: tuple[Clients, KubernetesSettings], folder: Path) -> None:
    """Do all that a trainer does: a run on one machine and one on two, on a cluster with nodes that
    are off, so that both wait.

    Raises:
        AccessDeniedError: something may not be done.
    """
    clients, settings = made
    told = {key: rig.cloud.settings[key] for key in ("registry", "registry_credentials")}
    told |= {"training_image": TRAINING_IMAGE, "training_runtime": "torch-distributed"}
    settings = KubernetesSettings.model_validate({**settings.model_dump(), **told})
    script = folder / "source" / "train.py"
    script.parent.mkdir()
    script.write_text("print(1)")
    with closing(KubernetesTrainer(clients, settings, base=folder)) as trainer:
        for count, label in ((1, "edgefleet.dev/run"), (2, "jobset.sigs.k8s.io/jobset-name")):
            run = trainer.submit(TrainingJob(script=script, resources=Resources(count=count)))
            assert not run.status.state.ended
            _put_pod(rig, {label: run.id}, f"pod-{count}", settings.training_namespace)
            try:
                trainer.read_log(run.id, 0)
            except AccessDeniedError:
                raise
            except EdgeFleetError:  # the node is off
                pass
            run.cancel()
        assert len(trainer.list()) == 2


def test_the_trainer_is_given_what_it_calls_and_no_more(
    rig: Rig, operate: Operate, asked: Callable[..., set[Deed]], tmp_path: Path
) -> None:
    install_trainer(rig.store(), TRAINING_IMAGE)
    made = operate("trainer")
    asked()
    train(rig, made, tmp_path)
    assert asked() == listed("trainer")


@pytest.mark.parametrize("without", sorted(listed("trainer")), ids=" ".join)
def test_a_trainer_that_lacks_any_of_it_is_refused(
    without: Deed, rig: Rig, operate: Operate, tmp_path: Path
) -> None:
    install_trainer(rig.store(), TRAINING_IMAGE)
    with pytest.raises(AccessDeniedError):
        train(rig, operate("trainer", without=without), tmp_path)


def look(rig: Rig, made: tuple[Clients, KubernetesSettings], folder: Path) -> None:
    """Read what devices recorded, which they didn't.

    Raises:
        AccessDeniedError: something may not be done.
    """
    clients, settings = made
    told = {key: rig.cloud.settings[key] for key in ("segments", "registry_credentials")}
    settings = KubernetesSettings.model_validate({**settings.model_dump(), **told})
    with closing(KubernetesTelemetry(clients, settings, base=folder)) as telemetry:
        assert list(telemetry.query()) == []


def test_telemetry_is_given_what_it_calls_and_no_more(
    rig: Rig, operate: Operate, asked: Callable[..., set[Deed]], tmp_path: Path
) -> None:
    rig.deployer.install(group="line-3")
    rig.deployer.enroll("a", group="line-3")
    rig.report("b", "b", {"report.json": "{}"})
    made = operate("telemetry")
    asked()
    look(rig, made, tmp_path)
    assert asked() == listed("telemetry")


@pytest.mark.parametrize("without", sorted(listed("telemetry")), ids=" ".join)
def test_telemetry_that_lacks_any_of_it_is_refused(
    without: Deed, rig: Rig, operate: Operate, tmp_path: Path
) -> None:
    with pytest.raises(AccessDeniedError):
        look(rig, operate("telemetry", without=without), tmp_path)


def test_a_secret_without_the_token_for_orders_is_told_with_its_cure(rig: Rig) -> None:
    rig.deployer.install()
    _put_pod(rig, RUNTIME)
    rig.deployer.enroll("a", group="line-3")
    without = {"data": {ORDERS_KEY: None}}
    rig.store().patch("Secret", serving_secret("edgefleet"), without, "edgefleet", how=Write())
    with pytest.raises(NotFoundError, match=f"no '{ORDERS_KEY}'"):
        rig.deployer.invoke("a", STATUS)


def test_installing_is_given_what_it_calls_and_no_more(
    rig: Rig, tmp_path: Path, asked: Callable[..., set[Deed]]
) -> None:
    everyones = {
        place: tuple(rule._replace(names=()) for rule in rules)
        for place, rules in roles.WATCH.items()
    }
    held = roles.all_of((*OPERATOR.values(), roles.DEVICE, everyones))
    rules = roles.merged(rule for found in held.values() for rule in found)
    everywhere = {roles.CLUSTER: rules}  # no role lies in a namespace that is yet to be made
    for document in role_documents(rig.settings, "i", everywhere, [roles.subject("User:i")]):
        document["metadata"].pop("labels", None)
        rig.put(document)
    stage = rig.cloud.stage
    stage.kubeconfig(tmp_path / "i", token=stage.add_user("i"))
    told = {"kubeconfig": tmp_path / "i", "namespace": "plant", "store": "claim"}
    told |= {"operators": ("User:ada",)}
    rig.another(**told).install(group="line-3")
    rig.another(**told).install_documents()
    rig.another(**told, min_available=0, watch_pointers=False).install()
    calls = asked("plant")
    operator = rig.another(namespace="plant")
    operator.enroll("a", group="line-3")
    operator.publish("line-3", samples.pointer(1))
    rig.report("a", "a", {"report.json": "{}"}, namespace="plant")
    asked("plant")
    rig.another(**told).uninstall(data=True)
    assert calls | asked("plant") == listed("install")


def test_what_is_allowed_is_proven(rig: Rig, operate: Operate) -> None:
    proofs = list(deployer_of(rig, operate("deployer", "install")).proofs())
    assert {proof.part for proof in proofs} == {"deployer", "install"}
    assert [proof for proof in proofs if proof.problem] == []


@pytest.mark.parametrize(
    "without,told",
    [
        (("cluster", "nodes", "patch"), "patch nodes in the cluster"),
        (("namespace", "pods/proxy", "get"), "get pods/proxy in namespace edgefleet"),
        (("namespace", "secrets", "get"), "get secrets edgefleet-serving in namespace edgefleet"),
        (("reports", "configmaps", "list"), "list configmaps in namespace edgefleet-reports"),
        (("namespace", "daemonsets", "list"), "list daemonsets.apps in namespace edgefleet"),
    ],
)
def test_what_is_missing_is_named_with_the_role_that_has_it(
    without: Deed, told: str, rig: Rig, operate: Operate
) -> None:
    deployer = deployer_of(rig, operate("deployer", without=without))
    found = [one for one in deployer.proofs() if one.part == "deployer" and one.problem]
    assert [one.action for one in found] == [told]
    assert "edgefleet" in str(found[0].problem)
    assert "operator has it; name yourself in `operators`" in str(found[0].problem)


def test_proving_changes_nothing(rig: Rig, operate: Operate) -> None:
    deployer = deployer_of(rig, operate())
    before = rig.versions()
    found = list(deployer.proofs())
    assert {one.part for one in found} == {"deployer", "install"}
    assert all(one.problem for one in found)
    assert rig.versions() == before


def test_an_operator_who_may_make_no_group_is_told_who_can(rig: Rig, operate: Operate) -> None:
    deployer = deployer_of(rig, operate("deployer"))
    with pytest.raises(AccessDeniedError, match="--group line-3"):
        deployer.enroll("a", group="line-3")
    assert rig.deployer.groups() == ()


def test_whoever_is_named_as_operator_delivers(rig: Rig, tmp_path: Path) -> None:
    rig.another(operators=("User:ada",)).install(group="line-3")
    path = tmp_path / "ada"
    stage = rig.cloud.stage
    stage.kubeconfig(path, token=stage.add_user("ada"))
    ada = rig.another(kubeconfig=path)
    ada.enroll("a", group="line-3")
    ada.publish("line-3", samples.pointer(1))
    assert [one.problem for one in ada.proofs() if one.part == "deployer" and one.problem] == []
    with pytest.raises(AccessDeniedError):
        ada.install()


def test_a_devices_rights_reach_its_own_report_and_no_pointer(rig: Rig) -> None:
    rig.deployer.install(group="line-3")
    account = roles.subject("ServiceAccount:edgefleet:edgefleet-device")
    bindings = [
        one
        for kind in ("RoleBinding", "ClusterRoleBinding")
        for one in rig.store().list(kind)
        if account in (one.get("subjects") or ())
    ]
    rules = {
        (one["metadata"]["namespace"], *verbs)
        for one in bindings
        for rule in rig.store().get("Role", one["roleRef"]["name"], one["metadata"]["namespace"])[
            "rules"
        ]
        for verbs in itertools.product(rule["resources"], rule["verbs"])
    }
    writing = {rule for rule in rules if rule[2] not in {"get", "list", "watch"}}
    assert {rule[0] for rule in writing} == {"edgefleet-reports"}
    assert {rule[1] for rule in rules} == {"configmaps"}


def test_the_page_is_what_the_code_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_roles_on_the_page_are_objects() -> None:
    blocks = page().split("```yaml\n")[1:]
    documents = [yaml.safe_load(block.partition("```")[0]) for block in blocks]
    assert {one["kind"] for one in documents} == {"ClusterRole", "Role"}
    assert all(one["rules"] == [*one["rules"]] and one["rules"] for one in documents)
    counted = sum(len(rules) for rules in (*OPERATOR.values(), roles.DEVICE, roles.WATCH))
    assert len(documents) == counted
    assert all(merged(rules) for part in OPERATOR.values() for rules in part.values())
