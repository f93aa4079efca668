"""What lies in the registry's repository: tags, manifests as they were, and who holds what."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from edgefleet.errors import (
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    ProfileError,
    UnavailableError,
)
from edgefleet.interfaces.state import StateStore
from edgefleet.protocol.digest import digest_of, hex_of
from edgefleet.protocol.layout import BundleLayout
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet.testing.cloud.calls import Refused
from edgefleet.testing.cloud.oci import Kind, OciRegistry
from edgefleet.testing.cloud.rules import Rule
from edgefleet.testing.kit import samples
from edgefleet_kubernetes.blobs import RECORD_TYPE
from edgefleet_kubernetes.oci_referrers import Referrers
from edgefleet_kubernetes.registry import REFERENCE, KubernetesRegistry, client_of
from edgefleet_kubernetes.settings import KubernetesSettings
from edgefleet_runtime.store.oci import OciSource
from providers.kubernetes.tests.oci.rig import NAME, MemoryState, Operator

Start = Callable[..., OciRegistry]


def _tags(registry: OciRegistry) -> dict[str, str]:
    return dict(registry.content.repository(NAME).tags)


def _versions(registry: OciRegistry) -> dict[str, str]:
    return {tag: digest for tag, digest in _tags(registry).items() if "-V" in tag}


def _records(operator: Operator, registry: OciRegistry, bundle: BundleLayout) -> list[str]:
    """What refers to a bundle as a version's record, and says."""
    settings = KubernetesSettings(prefix="plant", registry=f"oci://{registry.host}/{NAME}")
    with closing(client_of(settings, operator.base)) as client:
        found = Referrers(client).of(bundle.digest, RECORD_TYPE)
    said = []
    for one in found:
        manifest = json.loads(registry.content.path_of(one["digest"]).read_bytes())
        assert manifest["subject"]["digest"] == bundle.digest
        record = registry.content.path_of(manifest["layers"][0]["digest"]).read_bytes()
        said.append(f"{one['annotations'][REFERENCE]} {json.loads(record)['approval']['state']}")
    return sorted(said)


def test_a_version_is_a_tag_on_the_bundles_own_index(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry, bundle = stand_in(), samples.bundle(tmp_path)
    operator.registry(registry.host).push(bundle, "digits", version="2026.11")
    assert _versions(registry) == {"digits-V2026.11": bundle.digest}
    held = registry.content.repository(NAME)
    assert {v.manifest.digest for v in bundle.variants} | {bundle.digest} <= set(held.manifests)
    files = {d.digest for d in bundle.blobs()} - set(held.manifests)
    assert files <= held.blobs


def test_names_and_versions_never_share_a_tag(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry = stand_in()
    ours = operator.registry(registry.host)
    ours.push(samples.bundle(tmp_path, 1), "a-v1", version="2")
    ours.push(samples.bundle(tmp_path, 2), "a", version="v1-2")
    longest = ours.push(samples.bundle(tmp_path, 3), 63 * "a", version=63 * "1")
    assert len(_versions(registry)) == 3
    assert max(map(len, _tags(registry))) <= 128
    assert ours.get(longest.reference) == longest


@pytest.mark.parametrize("referrers", ["api", "fallback tag"])
def test_a_versions_record_refers_to_its_bundle_and_is_replaced(
    stand_in: Start, operator: Operator, tmp_path: Path, referrers: str
) -> None:
    registry, bundle = stand_in(kind=Kind(referrers=referrers == "api")), samples.bundle(tmp_path)
    ours = operator.registry(registry.host)
    ours.push(bundle, "digits")
    ours.push(bundle, "letters")
    assert _records(operator, registry, bundle) == ["digits:1 pending", "letters:1 pending"]
    ours.approve("digits:1", by="ada")
    assert _records(operator, registry, bundle) == ["digits:1 approved", "letters:1 pending"]
    fallback = f"sha256-{hex_of(bundle.digest)}" in _tags(registry)
    assert fallback == (referrers != "api")


@pytest.mark.parametrize("said", [b'{"manifests":' + b"[" * 100_000, b'{"manifests":[1]}', b"[]"])
def test_a_fallback_tag_that_leads_to_no_index_is_told(
    stand_in: Start, operator: Operator, tmp_path: Path, said: bytes
) -> None:
    registry, bundle = stand_in(kind=Kind(referrers=False)), samples.bundle(tmp_path)
    ours = operator.registry(registry.host)
    ours.push(bundle, "digits")
    tag = f"sha256-{hex_of(bundle.digest)}"
    registry.content.path_of(_tags(registry)[tag]).write_bytes(said)
    with pytest.raises(UnavailableError, match=f"{tag}: the registry's answer is no list"):
        _records(operator, registry, bundle)


def test_a_registry_that_takes_images_alone_keeps_the_version_and_tells(
    stand_in: Start, operator: Operator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry, bundle = stand_in(), samples.bundle(tmp_path)
    tagged = len(bundle.variants) + 2
    refused = Refused(400, "MANIFEST_INVALID", "unknown media type")
    registry.rules.add(Rule("oci.PutManifest", skip=tagged, fault=refused))
    ours = operator.registry(registry.host)
    assert ours.push(bundle, "digits").version == "1"
    assert _versions(registry) == {"digits-V1": bundle.digest}
    assert "digits:1 isn't shown" in caplog.text


def test_a_push_that_ended_before_its_tag_is_completed_by_the_next(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry, bundle, state = stand_in(), samples.bundle(tmp_path), MemoryState()
    ours = operator.registry(registry.host, state)
    manifests = len(bundle.variants) + 1
    registry.rules.add(Rule("oci.PutManifest", skip=manifests, fault=Refused(403, "DENIED")))
    with pytest.raises(PermissionError):
        ours.push(bundle, "digits")
    assert _versions(registry) == {}
    assert ours.push(bundle, "digits").version == "1"
    assert _versions(registry) == {"digits-V1": bundle.digest}


def test_two_that_push_at_once_get_numbers_of_their_own_and_both_tags(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry, state = stand_in(), MemoryState()
    bundles = [samples.bundle(tmp_path, seed) for seed in (1, 2)]
    pushing = [
        partial(operator.registry(registry.host, state, max_attempts=6).push, bundle, "digits")
        for bundle in bundles
    ]
    pushed = samples.at_once(pushing)
    assert sorted(version.version for version in pushed) == ["1", "2"]
    tags = _versions(registry)
    assert {tags[f"digits-V{v.version}"] for v in pushed} == {b.digest for b in bundles}


def test_a_tag_of_somebody_else_is_never_moved(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    """Two fleets, each with records of its own, in one repository."""
    registry = stand_in()
    theirs, ours = samples.bundle(tmp_path, 1), samples.bundle(tmp_path, 2)
    operator.registry(registry.host, MemoryState()).push(theirs, "digits")
    second = operator.registry(registry.host, MemoryState())
    with pytest.raises(AlreadyExistsError, match="digits-V1"):
        second.push(ours, "digits", version="1")
    assert second.push(ours, "digits").version == "2"
    assert _versions(registry) == {"digits-V1": theirs.digest, "digits-V2": ours.digest}


def test_a_tag_that_somebody_else_took_in_between_is_told(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry = stand_in()
    theirs, ours = samples.bundle(tmp_path, 1), samples.bundle(tmp_path, 2)
    others = operator.registry(registry.host, MemoryState())

    class Overtaken(MemoryState):
        def _write(self, key: str, data: bytes, expect: str | None) -> str:
            others.push(theirs, "digits")
            return super()._write(key, data, expect)

    with pytest.raises(ConflictError, match="a repository of its own"):
        operator.registry(registry.host, Overtaken()).push(ours, "digits")
    assert _versions(registry) == {"digits-V1": theirs.digest}
    assert _tags(registry)[f"blob-{hex_of(ours.digest)}"] == ours.digest


def test_what_others_say_by_tags_is_not_believed(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    registry, state = stand_in(), MemoryState()
    ours = operator.registry(registry.host, state)
    first, other = samples.bundle(tmp_path, 1), samples.bundle(tmp_path, 2)
    ours.push(first, "digits")
    ours.push(other, "letters")
    registry.content.repository(NAME).tags["digits-V1"] = other.digest
    assert ours.get("digits:1").digest == first.digest
    ours.pull("digits:1", tmp_path / "pulled").verify()


@pytest.mark.parametrize("deletes", ["deletes", "does not delete"])
def test_a_deleted_versions_tag_goes_where_the_registry_deletes_tags(
    stand_in: Start, operator: Operator, tmp_path: Path, deletes: str
) -> None:
    registry, bundle = stand_in(kind=Kind(deletes=deletes == "deletes")), samples.bundle(tmp_path)
    ours = operator.registry(registry.host)
    ours.push(bundle, "digits")
    ours.push(bundle, "letters")
    ours.delete("digits:1")
    assert ours.versions("digits") == ()
    assert ("digits-V1" in _versions(registry)) == (deletes != "deletes")
    ours.pull("letters:1", tmp_path / "pulled").verify()
    assert ours.push(samples.bundle(tmp_path, 2), "digits").version == "2"


def test_tags_are_read_page_by_page(stand_in: Start, operator: Operator, tmp_path: Path) -> None:
    registry = stand_in(kind=Kind(page=2))
    others = operator.registry(registry.host, MemoryState())
    for number in range(5):
        others.push(samples.bundle(tmp_path, number), "digits")
    ours = operator.registry(registry.host, MemoryState())
    assert ours.push(samples.bundle(tmp_path, 9), "digits").version == "6"


def test_a_release_is_held_by_a_tag_of_its_own(stand_in: Start, operator: Operator) -> None:
    registry = stand_in()
    ours = operator.registry(registry.host)
    model = ReleaseModel(name="digits", version="1", bundle=digest_of(b"bundle"))
    digest = ours.put_release(Release(models=(model,)))
    manifest = json.loads(
        registry.content.path_of(_tags(registry)[f"blob-{hex_of(digest)}"]).read_bytes()
    )
    assert [layer["digest"] for layer in manifest["layers"]] == [digest]


def test_a_version_copied_by_digest_is_read_from_the_copy(
    stand_in: Start, operator: Operator, tmp_path: Path
) -> None:
    """As `oras copy` and `crane copy` do it: the tag's index, and all it names."""
    registry, elsewhere, bundle = stand_in(), stand_in(), samples.bundle(tmp_path)
    ours = operator.registry(registry.host, mirrors=[f"oci://{elsewhere.host}/copies"])
    ours.push(bundle, "digits")
    for descriptor in bundle.blobs():
        data = registry.content.path_of(descriptor.digest).read_bytes()
        if "oci.image" in descriptor.media_type:
            elsewhere.content.put_manifest("copies", descriptor.digest, descriptor.media_type, data)
            continue
        upload = elsewhere.content.begin("copies")
        elsewhere.content.take("copies", upload, data)
        elsewhere.content.finish("copies", upload, descriptor.digest)
    registry.stop()
    mirror = OciSource(ours.blobs.sources[1])
    for descriptor in bundle.blobs():
        with mirror.open(descriptor.digest, 0) as stream:
            data = b"".join(iter(lambda stream=stream: stream.read(1 << 16), b""))  # type: ignore[misc]
        assert digest_of(data) == descriptor.digest


def test_an_index_that_is_gone_is_told(stand_in: Start, operator: Operator, tmp_path: Path) -> None:
    registry, bundle = stand_in(), samples.bundle(tmp_path)
    ours = operator.registry(registry.host)
    ours.push(bundle, "digits")
    registry.content.delete(NAME, bundle.digest)
    with pytest.raises(NotFoundError, match="push the bundle again"):
        ours.approve("digits:1", by="ada")
    assert ours.get("digits:1").approval.state == "approved"


def test_a_profile_without_a_registry_is_told_which_setting_it_lacks(tmp_path: Path) -> None:
    def state() -> StateStore:
        return MemoryState()

    with pytest.raises(ProfileError, match="'registry'"):
        KubernetesRegistry(KubernetesSettings(prefix="plant"), state=state, base=tmp_path)
