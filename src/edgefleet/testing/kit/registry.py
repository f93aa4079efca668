"""What a registry must do: versions that never change their content, decided upon, brought back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import (
    AlreadyExistsError,
    IntegrityError,
    InvalidInputError,
    NotFoundError,
    PolicyError,
)
from edgefleet.interfaces.registry import Registry
from edgefleet.interfaces.values import ApprovalState
from edgefleet.protocol.digest import blob_path, digest_of
from edgefleet.protocol.release import Release, ReleaseModel
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.versions import NOWHERE, VersionRules

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


class RegistryConformance(VersionRules):
    """Fixtures: ``registry``, an empty one for each test, and ``corrupt_blob``."""

    @pytest.fixture
    def corrupt_blob(self) -> Callable[[str], None]:
        """Changes a stored blob's bytes, but not their number, behind the registry's back."""
        return self.lacks("corrupt_blob", "a callable that damages the blob of a digest in place")

    # Deciding

    def test_an_alias_moves(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, an alias sticks to the version that it was given first."""
        for seed in (1, 2):
            registry.push(samples.bundle(tmp_path, seed), "digits")
        assert registry.alias("digits:1", "production").aliases == ("production",)
        assert registry.alias("digits:2", "production").aliases == ("production",)
        assert registry.aliases("digits") == {"production": "2"}
        assert registry.get("digits:1").aliases == ()

    def test_aliases_and_versions_share_one_name_space(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, ``name:x`` could mean two versions."""
        registry.push(samples.bundle(tmp_path, 1), "digits")
        registry.alias("digits:1", "production")
        with pytest.raises(InvalidInputError):
            registry.alias("digits:1", "1")
        with pytest.raises(InvalidInputError):
            registry.push(samples.bundle(tmp_path, 2), "digits", version="production")

    def test_a_decision_is_kept_with_who_and_why(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, your vendor's approval field holds the state but not who and why."""
        registry.push(samples.bundle(tmp_path), "digits")
        registry.approve("digits:1", by="ada", reason="looks right")
        approved = registry.get("digits:1").approval
        assert (approved.state, approved.by) == (ApprovalState.APPROVED, "ada")
        assert approved.reason == "looks right"
        registry.reject("digits:1", by="grace")
        rejected = registry.get("digits:1").approval
        assert (rejected.state, rejected.by, rejected.reason) == ("rejected", "grace", None)
        assert rejected.at is not None
        assert approved.at is not None
        assert rejected.at >= approved.at

    def test_labels_are_set_and_removed(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, a change of one label touches the others."""
        registry.push(samples.bundle(tmp_path), "digits", labels={"line": "3", "site": "a"})
        changed = registry.label("digits:1", {"line": None, "shift": "night"})
        assert changed.labels == {"site": "a", "shift": "night"}
        assert registry.get("digits:1") == changed

    def test_labels_set_at_once_are_all_kept(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, `_update` reads and writes without compare-and-swap between."""
        registry.push(samples.bundle(tmp_path), "digits")
        names = [f"key-{number}" for number in range(samples.THREADS)]
        samples.at_once([partial(registry.label, "digits:1", {name: "x"}) for name in names])
        assert registry.get("digits:1").labels == dict.fromkeys(names, "x")

    def test_a_metric_recorded_again_is_replaced(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, figures recorded after the push aren't kept with the version."""
        registry.push(samples.bundle(tmp_path, metrics={"accuracy": 0.5}), "digits")
        registry.record_metrics("digits:1", {"accuracy": 0.9, "p50_us": 12.5})
        assert registry.get("digits:1").metrics == {"accuracy": 0.9, "p50_us": 12.5}

    def test_lineage_grows_and_is_never_rewritten(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, where a version came from can be forged afterwards."""
        registry.push(samples.bundle(tmp_path, lineage={"run": "a"}), "digits")
        registry.record_lineage("digits:1", {"data": "x", "run": "a"})
        with pytest.raises(PolicyError):
            registry.record_lineage("digits:1", {"run": "b"})
        assert registry.get("digits:1").lineage == {"run": "a", "data": "x"}

    def test_a_deleted_version_is_gone_and_what_it_shared_stays(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, delete leaves the record, or takes blobs that another version shares."""
        shared = samples.bundle(tmp_path, 1)
        for name in ("digits", "letters"):
            registry.push(shared, name)
        registry.delete("digits:1")
        assert registry.versions("digits") == ()
        with pytest.raises(NotFoundError):
            registry.get("digits:1")
        registry.pull("letters:1", tmp_path / "pulled").verify()

    def test_the_name_of_a_deleted_version_is_never_given_again(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, ``digits:2`` means one thing in a log and another in the registry."""
        registry.push(samples.bundle(tmp_path, 1), "digits")
        registry.push(samples.bundle(tmp_path, 2), "digits")
        registry.delete("digits:2")
        other = samples.bundle(tmp_path, 3)
        with pytest.raises(AlreadyExistsError):
            registry.push(other, "digits", version="2")
        assert registry.push(other, "digits").version == "3"

    def test_a_version_with_an_alias_is_not_deleted(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, ``name:production`` can be left pointing to nothing."""
        registry.push(samples.bundle(tmp_path), "digits")
        registry.alias("digits:1", "production")
        with pytest.raises(PolicyError):
            registry.delete("digits:1")
        assert registry.get("digits:production").version == "1"

    # Pulling

    def test_a_pulled_bundle_is_the_pushed_one(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, some blob of the bundle was not stored, or another one is opened."""
        pushed = samples.bundle(tmp_path)
        registry.push(pushed, "digits")
        steps: list[int] = []
        pulled = registry.pull("digits", tmp_path / "pulled", progress=steps.append)
        pulled.verify()
        assert pulled.digest == pushed.digest
        assert {d.digest for d in pulled.blobs()} == {d.digest for d in pushed.blobs()}
        assert sum(steps) >= sum(variant.bytes for variant in pushed.variants)

    def test_one_variant_is_pulled_without_the_others(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, your registry can only hand out whole bundles."""
        pushed = samples.bundle(tmp_path)
        registry.push(pushed, "digits")
        pulled = registry.pull("digits", tmp_path / "pulled", variant="int8")
        pulled.verify(variant="int8")
        (other,) = (
            d for d in pushed.blobs("fp32") if d not in pushed.blobs("int8") and d.size > 5000
        )
        assert not (pulled.root / blob_path(other.digest)).exists()

    def test_an_interrupted_pull_goes_on(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, blobs don't open at an offset, or a torn pull is taken for a whole one."""
        registry.push(samples.bundle(tmp_path), "digits")
        seen: list[int] = []

        def pull_the_plug(count: int) -> None:
            seen.append(count)
            if len(seen) == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            registry.pull("digits", tmp_path / "pulled", progress=pull_the_plug)
        assert not (tmp_path / "pulled").exists()
        registry.pull("digits", tmp_path / "pulled").verify()

    def test_a_corrupted_blob_is_named_and_not_handed_out(
        self, registry: Registry, tmp_path: Path, corrupt_blob: Callable[[str], None]
    ) -> None:
        """If this fails, what your store holds is trusted without looking at its digest."""
        pushed = samples.bundle(tmp_path)
        registry.push(pushed, "digits")
        largest = max(pushed.blobs(), key=lambda descriptor: descriptor.size)
        corrupt_blob(largest.digest)
        with pytest.raises(IntegrityError, match=largest.digest):
            registry.pull("digits", tmp_path / "pulled")
        assert not (tmp_path / "pulled").exists()

    # Releases

    def test_a_release_reads_back_under_its_digest(self, registry: Registry) -> None:
        """If this fails, the blob store recodes documents, so that their digests differ."""
        model = ReleaseModel(name="digits", version="1", bundle=digest_of(b"bundle"))
        release = Release(models=(model,))
        assert registry.put_release(release) == release.digest
        assert registry.put_release(release) == release.digest
        assert registry.get_release(release.digest) == release
        with pytest.raises(NotFoundError):
            registry.get_release(NOWHERE)
