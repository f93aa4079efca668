"""Releases as images: archives with the same bytes, and nodes that reach no registry."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

import edgefleet as ef
from device_runtime.tests.node.device import times
from edgefleet.errors import (
    EdgeFleetError,
    InvalidInputError,
    LimitExceededError,
    UnsupportedError,
)
from edgefleet.interfaces.abilities import CanInstall, CanStreamLogs
from edgefleet.interfaces.deployer import Deployer
from edgefleet.interfaces.state import StateStore
from edgefleet.protocol import bundle as b
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.pointer import Cohort, Next
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet.testing.cloud.oci_tokens import Access, User
from edgefleet.testing.kit import samples
from edgefleet.testing.waiting import eventually
from edgefleet_kubernetes.clients import Clients
from edgefleet_kubernetes.cloud.node_archives import image_folder, import_archive
from edgefleet_kubernetes.cloud.node_images import RUNTIME_IMAGE
from edgefleet_kubernetes.gitops import GitDeployer
from edgefleet_kubernetes.images import ImageArchive, planned_release, write_image
from edgefleet_kubernetes.manifests import fleet_documents
from edgefleet_kubernetes.mock import KubernetesMock
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_local.registry import DirectoryBlobStore
from providers.kubernetes.tests.deployer_rig import Rig

NODE, GROUP = "edge-7", "line-3"
REPOSITORY = "registry.plant.example/edgefleet/releases"


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesMock]:
    """A cluster whose registry knows the operator, and no device."""
    made = KubernetesMock(tmp_path / "mock")
    made.start()
    for name, value in made.environment.items():
        monkeypatch.setenv(name, value)
    users = {"operator": User("word")}
    made.registry.access = Access(users, bearer=True, lifetime_s=300, clock=time.monotonic)
    yield made
    made.stop()


@pytest.fixture
def fleet(cloud: KubernetesMock, tmp_path: Path) -> Iterator[ef.Fleet]:
    settings = {**cloud.settings, "runtime_image": RUNTIME_IMAGE, "model_images": REPOSITORY}
    login = {cloud.registry.host: {"username": "operator", "password": "word"}}
    Path(settings["registry_credentials"]).write_text(json.dumps({"auths": login}))
    told = "\n".join(f'{name} = "{value}"' for name, value in settings.items())
    profile = tmp_path / "edgefleet.toml"
    profile.write_text(
        f'[profiles.default]\nprovider = "kubernetes"\n[profiles.default.kubernetes]\n{told}\n',
        encoding="utf-8",
    )
    made = ef.connect(config=profile)
    deployer = made.deployers["kubernetes"]
    assert isinstance(deployer, CanInstall)
    deployer.install(group=GROUP)
    cloud.stage.nodes.add_node(NODE)
    cloud.stage.nodes.make_folder(NODE, "/var/lib/edgefleet").chmod(0o777)
    made.enroll(NODE, group=GROUP)
    yield made
    made.close()


def push(fleet: ef.Fleet, folder: Path, factor: float) -> str:
    path = folder / "model.onnx"
    path.write_bytes(times(factor))
    return fleet.push(path, "digits").reference


def export(fleet: ef.Fleet, folder: Path, model: str) -> ImageArchive:
    release = planned_release(fleet.plan(model, to=GROUP))
    return write_image(release, fleet.registry.blobs, folder, repository=REPOSITORY)


def running(cloud: KubernetesMock) -> set[int]:
    pids: set[int] = eventually(lambda: set(cloud.stage.nodes.pids(NODE).values()))
    return pids


def serves(fleet: ef.Fleet, release: str) -> bool:
    report = fleet.deployers["kubernetes"].device(NODE).report
    return report is not None and report.state == "active" and report.running == release


def test_a_node_without_registry_serves_what_an_image_brings_after_one_restart_and_goes_back(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    eventually(lambda: fleet.deployers["kubernetes"].device(NODE).report)
    idle = running(cloud)
    releases, starts = [], [idle]
    for factor in (2.0, 3.0):
        model = push(fleet, tmp_path, factor)
        archive = export(fleet, tmp_path / "images", model)
        assert cloud.stage.nodes.import_image(NODE, archive.path) == archive.reference
        deployment = fleet.deploy(model, to=GROUP)
        deployment.wait(timeout_s=90, progress=False)
        releases.append(fleet.plan(model, to=GROUP).after)
        assert fleet.deployers["kubernetes"].device(NODE).report is not None
        starts.append(running(cloud))
    assert all(not one & other for one, other in pairwise(starts))
    report = fleet.deployers["kubernetes"].device(NODE).report
    assert report is not None
    assert report.health.starts == 3, "a pod restarts once for a release"
    fleet.rollback(GROUP).wait(timeout_s=90, progress=False)
    eventually(lambda: serves(fleet, releases[0]))


def test_a_node_without_the_image_is_told_and_starts_when_it_comes(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    model = push(fleet, tmp_path, 2.0)
    archive = export(fleet, tmp_path / "images", model)
    assert any(
        "publishing restarts the pods" in one for one in fleet.plan(model, to=GROUP).warnings
    )
    deployment = fleet.deploy(model, to=GROUP)
    device = fleet.deployers["kubernetes"]
    eventually(lambda: archive.reference in str(device.device(NODE).blocked))
    cloud.stage.nodes.import_image(NODE, archive.path)
    deployment.wait(timeout_s=90, progress=False)


def test_a_blob_that_was_changed_in_the_image_is_not_taken(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    model = push(fleet, tmp_path, 2.0)
    archive = export(fleet, tmp_path / "images", model)
    cloud.stage.nodes.import_image(NODE, archive.path)
    folder = image_folder(cloud.stage.nodes.kubelet(NODE).disk.images, archive.reference)
    release = fleet.plan(model, to=GROUP).after
    blob = folder / blob_path(release)
    data = blob.read_bytes()
    blob.chmod(0o644)
    blob.write_bytes(data[:-2] + b" }")
    fleet.deploy(model, to=GROUP)

    deployer = fleet.deployers["kubernetes"]
    assert isinstance(deployer, CanStreamLogs)

    def refused() -> bool:
        try:
            log = deployer.device_log(NODE, last=200)
        except EdgeFleetError:  # its pod is on its way, or its container
            return False
        return any(f"{release} holds other content" in line for line in log)

    eventually(refused)
    assert not serves(fleet, release)


def test_the_same_release_gives_the_same_bytes(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    model = push(fleet, tmp_path, 2.0)
    one, other = (export(fleet, tmp_path / name, model) for name in ("one", "other"))
    assert samples.Content.of(one.path.read_bytes()) == samples.Content.of(other.path.read_bytes())
    assert (one.digest, one.size) == (other.digest, one.path.stat().st_size)


def test_an_image_holds_the_blobs_of_every_variant(
    cloud: KubernetesMock, fleet: ef.Fleet, tmp_path: Path
) -> None:
    model = fleet.push(samples.bundle(tmp_path).root, "digits").reference
    archive = export(fleet, tmp_path, model)
    import_archive(archive.path, tmp_path / "node")
    folder = image_folder(tmp_path / "node", archive.reference) / "blobs" / "sha256"
    release = planned_release(fleet.plan(model, to=GROUP))
    there = {path.name: samples.Content.of(path.read_bytes()) for path in folder.iterdir()}
    assert all(content.digest == f"sha256:{name}" for name, content in there.items())
    wanted = {path.name for path in (tmp_path / "bundle-0" / "blobs" / "sha256").iterdir()}
    assert set(there) == wanted | {release.digest.removeprefix("sha256:")}


def test_a_release_without_models_has_no_image(fleet: ef.Fleet, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="without models"):
        write_image(Release(), fleet.registry.blobs, tmp_path, repository=REPOSITORY)


def test_a_release_of_more_than_64_gib_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    blobs = DirectoryBlobStore(tmp_path / "registry")
    layout = samples.bundle(tmp_path)
    variant, manifest = layout.variant("fp32"), layout.manifest("fp32")
    layers = [
        msgspec.structs.replace(one, size=64 << 30)
        if one.media_type == b.WEIGHT_MEDIA_TYPE
        else one
        for one in manifest.layers
    ]
    huge = msgspec.structs.replace(manifest, layers=tuple(layers))
    listed = blobs.put_bytes(msgspec.json.encode(huge), b.MANIFEST_MEDIA_TYPE)
    entry = msgspec.structs.replace(variant.manifest, digest=listed.digest, size=listed.size)
    index = blobs.put_bytes(msgspec.json.encode(b.Index(manifests=(entry,))), b.INDEX_MEDIA_TYPE)
    release = Release(models=(ReleaseModel(name="huge", version="1", bundle=index.digest),))
    with pytest.raises(LimitExceededError, match=r"an image holds 68\.7 GB"):
        write_image(release, blobs, tmp_path / "images", repository=REPOSITORY)
    assert not (tmp_path / "images").exists()


def test_kubernetes_before_1_31_is_refused(tmp_path: Path, state: Callable[[], StateStore]) -> None:
    rig = Rig(tmp_path / "cloud", state, version="1.30")
    try:
        rig.deployer.install(group=GROUP)
        held = rig.another(model_images=REPOSITORY)
        for attempt in (
            lambda: held.install(group=GROUP),
            lambda: held.publish(GROUP, samples.pointer(1)),
            lambda: held.render(GROUP, samples.pointer(1)),
        ):
            with pytest.raises(UnsupportedError, match=r"1\.30: image volumes came with 1\.31"):
                attempt()
        assert rig.deployer.pointer(GROUP) is None
        assert list(state().keys("kubernetes/pointers/")) == []
    finally:
        rig.close()


@pytest.mark.parametrize("version", ["1.31", None])
def test_schemas_take_the_image_volume_and_installing_again_keeps_it(
    version: str | None, tmp_path: Path, state: Callable[[], StateStore]
) -> None:
    rig = Rig(tmp_path / "cloud", state, version=version)
    try:
        held = rig.another(model_images=REPOSITORY)
        held.install(group=GROUP)
        held.publish(GROUP, samples.pointer(1))
        before = images(rig)
        tag = f"release-{samples.pointer(1).current[7:19]}"
        assert before == {tag: f"{REPOSITORY}:{tag}"}
        held.install(group=GROUP)
        assert images(rig) == before
    finally:
        rig.close()


def test_a_cohort_mounts_both_releases(tmp_path: Path, state: Callable[[], StateStore]) -> None:
    rig = Rig(tmp_path / "cloud", state)
    try:
        held = rig.another(model_images=REPOSITORY)
        held.install(group=GROUP)
        ahead = Next(release=digest_of(b"ahead"), cohort=Cohort(salt="s", permille=100))
        pointer = msgspec.structs.replace(samples.pointer(1), next=ahead)
        held.publish(GROUP, pointer)
        assert set(images(rig)) == {
            f"release-{digest[7:19]}" for digest in (pointer.current, ahead.release)
        }
    finally:
        rig.close()


def test_publishing_applies_the_newer_runtime_image_of_the_profile(
    tmp_path: Path, state: Callable[[], StateStore]
) -> None:
    rig = Rig(tmp_path, state)
    try:
        rig.another(model_images=REPOSITORY).install(group=GROUP)
        newer = rig.another(model_images=REPOSITORY, runtime_image="registry.example/runtime:2")
        newer.publish(GROUP, samples.pointer(1))
        (found,) = rig.store().list("DaemonSet")
        (container,) = found["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.example/runtime:2"
    finally:
        rig.close()


@pytest.mark.parametrize("delivery", ["apply", "git"])
def test_a_plan_warns_of_pods_that_restart_for_another_image_and_of_nothing_else(
    tmp_path: Path, state: Callable[[], StateStore], delivery: str
) -> None:
    rig = Rig(tmp_path / "cloud", state)
    try:
        held: Deployer = rig.another(model_images=REPOSITORY)
        if delivery == "git":
            changes = {"model_images": REPOSITORY, "git_dir": tmp_path / "site", "contexts": ()}
            settings = rig.settings.model_copy(update=changes)
            held = GitDeployer(Clients(settings), settings, base=tmp_path)
        assert isinstance(held, CanInstall)
        held.install(group=GROUP)
        (warning,) = held.warnings(GROUP, samples.pointer(1))
        assert "publishing restarts the pods, 10% at a time" in warning
        held.publish(GROUP, samples.pointer(1))
        assert held.warnings(GROUP, samples.pointer(2)) == ()  # it has the same release
        other = samples.pointer(2, current=digest_of(b"other"))
        assert len(held.warnings(GROUP, other)) == 1
        assert rig.deployer.warnings(GROUP, other) == ()  # its profile names no `model_images`
    finally:
        rig.close()


def test_an_operator_may_patch_daemon_sets_where_images_are_mounted_and_nowhere_else() -> None:
    def allowed(**changes: Any) -> set[str]:
        settings = KubernetesSettings(runtime_image=RUNTIME_IMAGE, **changes)
        (role,) = (
            one
            for one in fleet_documents(settings)
            if one["kind"] == "Role"
            and one["metadata"]["namespace"] == settings.namespace
            and one["metadata"]["name"].endswith("operator")
        )
        return {
            verb
            for rule in role["rules"]
            if "daemonsets" in rule["resources"]
            for verb in rule["verbs"]
        }

    assert allowed() == {"get", "list"}
    assert allowed(model_images=REPOSITORY) == {"get", "list", "patch"}


def images(rig: Rig) -> dict[str, str]:
    (found,) = rig.store().list("DaemonSet")
    volumes = found["spec"]["template"]["spec"]["volumes"]
    return {one["name"]: one["image"]["reference"] for one in volumes if "image" in one}


def test_a_node_takes_no_archive_whose_layer_leaves_its_folder(tmp_path: Path) -> None:
    layer = tarred({"../out": b"harm"})
    with pytest.raises(InvalidInputError, match="outside"):
        import_archive(archive_of(tmp_path, layer), tmp_path / "node")
    assert not (tmp_path / "out").exists()


def test_a_node_takes_no_archive_with_another_layer_than_its_manifest_names(
    tmp_path: Path,
) -> None:
    layer = tarred({"fine": b"fine"})
    path = archive_of(tmp_path, layer, instead=layer[:-1] + b"x")
    with pytest.raises(InvalidInputError, match="isn't what its descriptor says"):
        import_archive(path, tmp_path / "node")


def tarred(files: dict[str, bytes]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as archive:
        for name, data in files.items():
            about = tarfile.TarInfo(name)
            about.size = len(data)
            archive.addfile(about, io.BytesIO(data))
    return made.getvalue()


def archive_of(folder: Path, layer: bytes, *, instead: bytes | None = None) -> Path:
    """An archive with that layer, or with other bytes in its place."""
    kind = "application/vnd.oci.image"
    files = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}

    def keep(media_type: str, data: bytes) -> dict[str, Any]:
        files[blob_path(digest_of(data))] = data
        return {"mediaType": f"{kind}.{media_type}", "digest": digest_of(data), "size": len(data)}

    about = keep("layer.v1.tar", layer)
    if instead is not None:
        files[blob_path(about["digest"])] = instead
    config = {
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [about["digest"]]},
    }
    manifest = {"config": keep("config.v1+json", json.dumps(config).encode()), "layers": [about]}
    entry = keep("manifest.v1+json", json.dumps(manifest).encode())
    entry["annotations"] = {"io.containerd.image.name": "made/up:1"}
    files["index.json"] = json.dumps({"manifests": [entry]}).encode()
    path = folder / "made.tar"
    path.write_bytes(tarred(files))
    return path
