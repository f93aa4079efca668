"""What a node's kubelet does with pods: real processes, their folders, ends and beginnings."""

from __future__ import annotations

import json
import os
import signal
import urllib.request
from pathlib import Path

import pytest

from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.cloud.api_status import Refused
from providers.kubernetes.tests.cloud.node_bench import (
    BROKEN,
    NAMESPACE,
    Bench,
    Object,
    condition,
    config_map,
    pod,
    python,
    serving,
)


@pytest.fixture
def bench(bench: Bench) -> Bench:
    """A cluster with one node."""
    bench.cluster.add_node("n-1", labels={"group": "line"})
    return bench


def printing(bench: Bench, document: Object) -> str:
    """What a pod that ends has printed."""
    bench.create(document)
    name = document["metadata"]["name"]
    eventually(lambda: bench.phase(name) in ("Succeeded", "Failed"), name)
    return bench.log(name)


def once(source: str, *args: str, **more: object) -> Object:
    """A pod that runs a program once."""
    spec = {key: more.pop(key) for key in ("volumes", "initContainers") if key in more}
    return pod("one", python(source, *args, **more), restartPolicy="Never", **spec)


# ---------------------------------------------------------------------------------------- life


def test_a_pod_runs_and_tells_how_it_ended(bench: Bench) -> None:
    assert printing(bench, once("print('hello'); raise SystemExit(3)")) == "hello\n"
    found = bench.state()["terminated"]
    assert (bench.phase(), found["exitCode"], found["reason"]) == ("Failed", 3, "Error")


def test_a_pod_is_ready_at_its_own_address(bench: Bench) -> None:
    bench.create(pod("one", serving()))
    bench.create(pod("two", serving()))
    eventually(lambda: bench.ready("one") and bench.ready("two"))
    addresses = {(bench.pod(name) or {})["status"]["podIP"] for name in ("one", "two")}
    assert len(addresses) == 2


def test_a_program_that_is_not_there_is_a_start_error(bench: Bench) -> None:
    wanted = {**python(""), "command": ["no-such-program"]}
    bench.create(pod("one", wanted, restartPolicy="Never"))
    eventually(lambda: bench.phase() == "Failed")
    assert bench.state()["terminated"]["reason"] == "StartError"
    assert (
        'exec: "no-such-program": executable file not found in $PATH'
        in (bench.state()["terminated"]["message"])
    )


def test_a_container_that_fails_again_and_again_is_held_back(bench: Bench) -> None:
    bench.create(pod("one", python("print('on my way', flush=True); raise SystemExit(1)")))
    eventually(lambda: bench.waiting() == "CrashLoopBackOff")
    status = (bench.pod() or {})["status"]["containerStatuses"][0]
    assert status["restartCount"] >= 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert "restarting failed container app" in bench.events("one")["BackOff"]


def test_the_log_before_a_restart_can_be_read(bench: Bench) -> None:
    source = "import os, sys; print(os.getpid(), flush=True); sys.exit(1)"
    bench.create(pod("one", python(source)))
    eventually(lambda: bench.log(previous=True).strip().isdecimal())
    with pytest.raises(Refused, match="is not valid"):
        bench.cluster.log(NAMESPACE, "one", "another")


def test_a_killed_container_has_the_signals_exit_code_and_runs_again(bench: Bench) -> None:
    bench.create(pod("one"))
    before = eventually(lambda: bench.cluster.pid("n-1", "app"))
    os.kill(before, signal.SIGKILL)
    eventually(lambda: bench.cluster.pid("n-1", "app") not in (None, before))
    eventually(lambda: "running" in bench.state())
    status = (bench.pod() or {})["status"]["containerStatuses"][0]
    assert status["lastState"]["terminated"]["exitCode"] == 128 + signal.SIGKILL
    assert status["restartCount"] == 1


def test_a_pod_that_is_deleted_is_told_first(bench: Bench) -> None:
    source = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).touch()
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(3600)
"""
    volume = {"name": "data", "hostPath": {"path": "/data"}}
    mount = {"volumeMounts": [{"name": "data", "mountPath": "/data"}]}
    bench.create(pod("one", python(source, "/data/ended", **mount), volumes=[volume]))
    eventually(lambda: "up" in bench.log())
    bench.store.delete("Pod", "one", NAMESPACE)
    eventually(lambda: bench.pod() is None)
    assert bench.cluster.kubelet("n-1").disk.place("/data/ended").exists()


def test_a_pod_that_does_not_listen_is_killed(bench: Bench) -> None:
    source = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    source += "print('up', flush=True); time.sleep(3600)"
    bench.create(pod("one", python(source), terminationGracePeriodSeconds=1))
    eventually(lambda: "up" in bench.log())
    bench.store.delete("Pod", "one", NAMESPACE)
    eventually(lambda: bench.pod() is None)
    assert bench.cluster.pids("n-1") == {}


def test_a_pod_that_is_forced_out_of_the_api_is_ended(bench: Bench) -> None:
    bench.create(pod("one"))
    eventually(bench.ready)
    bench.store.delete("Pod", "one", NAMESPACE, grace_s=0)
    eventually(lambda: bench.cluster.pids("n-1") == {})


def test_init_containers_run_one_after_the_other_before_the_rest(bench: Bench) -> None:
    mount = {"volumeMounts": [{"name": "work", "mountPath": "/shared"}]}
    step = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"
    init = [
        {**python(step, "/shared/steps", letter, **mount), "name": f"step-{letter}"}
        for letter in "ab"
    ]
    wanted = once(
        "import sys; print(open(sys.argv[1]).read())",
        "/shared/steps",
        volumes=[{"name": "work", "emptyDir": {}}],
        initContainers=init,
        **mount,
    )
    assert printing(bench, wanted) == "ab\n"


def test_an_init_container_that_fails_keeps_the_rest_from_running(bench: Bench) -> None:
    init = [{**python("raise SystemExit(1)"), "name": "first"}]
    bench.create(once("print('never')", initContainers=init))
    eventually(lambda: bench.phase() == "Failed")
    assert bench.state()["waiting"]["reason"] == "PodInitializing"


def test_a_program_says_why_it_failed(bench: Bench) -> None:
    source = "print('no model'); raise SystemExit(1)"
    printing(bench, once(source, terminationMessagePolicy="FallbackToLogsOnError"))
    assert bench.state()["terminated"]["message"] == "no model\n"


# --------------------------------------------------------------------------------------- images


def test_an_image_that_is_not_there_is_tried_again_after_pauses(bench: Bench) -> None:
    bench.create(pod("one", {**python(""), "image": BROKEN}))
    eventually(lambda: bench.waiting() == "ImagePullBackOff")
    events = bench.events("one")
    assert events["BackOff"] == f'Back-off pulling image "{BROKEN}"'
    eventually(lambda: "Failed" in bench.events("one"))
    assert bench.phase() == "Pending"


def test_an_image_that_comes_is_pulled_at_last(bench: Bench) -> None:
    bench.create(pod("one", {**serving(), "image": BROKEN}))
    eventually(lambda: bench.waiting() in ("ErrImagePull", "ImagePullBackOff"))
    bench.images[BROKEN] = next(iter(bench.images.values()))
    eventually(bench.ready)


def test_an_image_is_not_pulled_where_it_must_be_there(bench: Bench) -> None:
    bench.create(pod("one", python("", imagePullPolicy="Never")))
    eventually(lambda: bench.waiting() == "ErrImageNeverPull")


# --------------------------------------------------------------------------------- environment


def environment(bench: Bench, *variables: Object, **more: object) -> dict[str, str]:
    """The environment of a container."""
    source = "import json, os; print(json.dumps(dict(os.environ)))"
    found: dict[str, str] = json.loads(printing(bench, once(source, env=list(variables), **more)))
    return found


def test_variables_come_from_the_pod_config_maps_and_secrets(bench: Bench) -> None:
    bench.create(config_map("settings", level="debug"))
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"key": "s3cret"}}
    bench.create({**secret, "metadata": {"name": "keys", "namespace": NAMESPACE}})
    found = environment(
        bench,
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
        {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        {"name": "LEVEL", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "level"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "key"}}},
        {"name": "BOTH", "value": "$(NODE)/$(LEVEL) $$(NODE) $(NONE)"},
        resources={"limits": {"cpu": "1500m"}},
        envFrom=[{"prefix": "ALL_", "configMapRef": {"name": "settings"}}],
    )
    wanted = {
        "NODE": "n-1",
        "APP": "one",
        "CPU": "2",
        "LEVEL": "debug",
        "KEY": "s3cret",
        "BOTH": "n-1/debug $(NODE) $(NONE)",
        "ALL_level": "debug",
        "HOSTNAME": "one",
    }
    assert {key: found.get(key) for key in wanted} == wanted


def test_nothing_of_this_machines_environment_reaches_a_pod(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "mine")
    assert "AWS_SECRET_ACCESS_KEY" not in environment(bench)


def test_a_container_waits_for_a_config_map_that_it_needs(bench: Bench) -> None:
    reference = {"configMapKeyRef": {"name": "late", "key": "word"}}
    container = python(
        "import os; print(os.environ['WORD'])", env=[{"name": "WORD", "valueFrom": reference}]
    )
    bench.create(pod("one", container, restartPolicy="Never"))
    eventually(lambda: bench.waiting() == "CreateContainerConfigError")
    bench.create(config_map("late", word="now"))
    eventually(lambda: bench.phase() == "Succeeded")
    assert bench.log() == "now\n"


# --------------------------------------------------------------------------------------- probes


def test_a_pod_is_ready_when_its_probe_says_so(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    probe = {"httpGet": {"path": "/ready", "port": "http"}, "failureThreshold": 1}
    wanted = serving(readinessProbe=probe)
    wanted["env"].append({"name": "GATE", "value": str(gate)})
    bench.create(pod("one", wanted))
    eventually(lambda: "Unhealthy" in bench.events("one"))
    assert not bench.ready()
    assert bench.phase() == "Running"
    gate.touch()
    eventually(bench.ready)
    gate.unlink()
    eventually(lambda: not bench.ready())


def test_a_container_whose_liveness_fails_runs_again(bench: Bench) -> None:
    probe = {"httpGet": {"path": "/", "port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    bench.create(pod("one", serving(livenessProbe=probe)))
    eventually(lambda: "Killing" in bench.events("one"))
    assert bench.events("one")["Killing"] == (
        "Container app failed liveness probe, will be restarted"
    )
    eventually(lambda: (bench.pod() or {})["status"]["containerStatuses"][0]["restartCount"] >= 1)


def test_a_startup_probe_holds_the_others_back(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    wanted = serving(
        startupProbe={"httpGet": {"path": "/ready", "port": "http"}, "failureThreshold": 100},
        livenessProbe={"exec": {"command": ["python", "-c", ""]}},
    )
    wanted["env"].append({"name": "GATE", "value": str(gate)})
    bench.create(pod("one", wanted))
    eventually(lambda: "running" in bench.state())
    assert not bench.ready()
    gate.touch()
    eventually(bench.ready)


# ------------------------------------------------------------------------------------- Services


def service(name: str, **spec: object) -> Object:
    """A Service for the pods of an app."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            **spec,
        },
    }


def asked(bench: Bench, on: str, host: str) -> str:
    """What a Service answers to a pod on a node; empty where it doesn't."""
    kubelet = bench.cluster.kubelet(on)
    address = kubelet.resolve(NAMESPACE)(host)
    try:
        with urllib.request.urlopen(f"http://{address}:80/", timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""


def test_a_node_local_service_reaches_the_pod_of_its_node_or_nobody(bench: Bench) -> None:
    bench.cluster.add_node("n-2")
    bench.create(service("runtime", internalTrafficPolicy="Local"))
    bench.create(pod("runtime", serving(), nodeSelector={"group": "line"}))
    eventually(lambda: bench.ready("runtime"))
    host = f"runtime.{NAMESPACE}.svc.cluster.local"
    eventually(lambda: asked(bench, "n-1", host) == "n-1")
    assert asked(bench, "n-2", host) == ""


def test_another_service_reaches_pods_of_every_node(bench: Bench) -> None:
    bench.cluster.add_node("n-2")
    bench.create(service("runtime"))
    bench.create(pod("runtime", serving(), nodeSelector={"group": "line"}))
    eventually(lambda: bench.ready("runtime"))
    eventually(lambda: asked(bench, "n-2", f"runtime.{NAMESPACE}") == "n-1")


def test_apps_find_a_service_by_name_and_by_variables(bench: Bench) -> None:
    bench.create(service("runtime"))
    found = environment(bench, {"name": "URL", "value": f"http://runtime.{NAMESPACE}.svc/v2"})
    address = bench.cluster.kubelet("n-1").resolve(NAMESPACE)(f"runtime.{NAMESPACE}")
    assert found["URL"] == f"http://{address}/v2"
    assert found["RUNTIME_SERVICE_HOST"] == address
    assert found["RUNTIME_SERVICE_PORT_HTTP"] == "80"


def test_the_addresses_of_a_pod_are_in_its_status(bench: Bench) -> None:
    probe = {"tcpSocket": {"port": "http"}}
    bench.create(pod("one", serving(readinessProbe=probe)))
    eventually(bench.ready)
    found = (bench.pod() or {})["status"]
    address = found["podIP"]
    with urllib.request.urlopen(f"http://{address}:8080/", timeout=30) as answer:
        assert answer.read() == b"n-1"
    assert found["hostIP"] != address
    assert condition(bench.pod() or {}, "PodScheduled")["status"] == "True"


def test_what_a_container_started_ends_with_it(bench: Bench) -> None:
    bench.cluster.add_node("n-1")
    source = "import subprocess, sys; print(subprocess.Popen(['sleep', '3600']).pid, flush=True)"
    bench.create(pod("one", python(source), restartPolicy="Never"))
    eventually(lambda: bench.phase() == "Succeeded")
    left = Path("/proc") / bench.log().strip() / "stat"

    def is_gone() -> bool:
        try:
            return "(sleep) Z" in left.read_text() or "(sleep)" not in left.read_text()
        except OSError:
            return True

    eventually(is_gone)
