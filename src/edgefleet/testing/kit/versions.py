"""What holds for versions: numbered without doubles, never changed, found by any reference."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from edgefleet.errors import AlreadyExistsError, IntegrityError, InvalidInputError, NotFoundError
from edgefleet.interfaces.registry import Registry
from edgefleet.interfaces.values import ApprovalState
from edgefleet.protocol.digest import blob_path
from edgefleet.testing.kit import samples
from edgefleet.testing.kit.gaps import Conformance

if TYPE_CHECKING:
    from pathlib import Path

NOWHERE = "sha256:" + 64 * "0"


class VersionRules(Conformance):
    """How versions are made and found. Fixture: ``registry``, an empty one for each test."""

    @pytest.fixture
    def registry(self) -> Registry:
        """An empty registry."""
        return self.lacks("registry", "an empty registry for each test")

    # Pushing

    def test_versions_are_numbered_from_1(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, your vendor's own numbers or time stamps show through."""
        pushed = [registry.push(samples.bundle(tmp_path, seed), "digits") for seed in range(3)]
        assert [version.version for version in pushed] == ["1", "2", "3"]
        assert [version.reference for version in registry.versions("digits")] == [
            "digits:1", "digits:2", "digits:3",
        ]  # fmt: skip

    def test_the_same_content_pushed_again_is_the_same_version(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, a repeated push makes a second version of the same bytes."""
        bundle = samples.bundle(tmp_path)
        first = registry.push(bundle, "digits", labels={"line": "3"})
        assert registry.push(bundle, "digits") == first
        assert len(registry.versions("digits")) == 1

    def test_a_version_never_gets_other_content(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, `_create` overwrites: a version's content must never change."""
        first = registry.push(samples.bundle(tmp_path, 1), "digits", version="2026.11")
        with pytest.raises(AlreadyExistsError):
            registry.push(samples.bundle(tmp_path, 2), "digits", version="2026.11")
        assert registry.get("digits:2026.11") == first
        assert (
            registry.push(samples.bundle(tmp_path / "x", 1), "digits", version="2026.11") == first
        )

    def test_numbers_go_on_beside_named_versions(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, the next number is counted, not taken above the highest."""
        registry.push(samples.bundle(tmp_path, 1), "digits", version="7")
        registry.push(samples.bundle(tmp_path, 2), "digits", version="7.1")
        assert registry.push(samples.bundle(tmp_path, 3), "digits").version == "8"

    def test_pushes_at_once_get_distinct_numbers(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, `_create` isn't "only if absent", and two pushers believe they own one."""
        bundles = [samples.bundle(tmp_path, seed, size=400) for seed in range(samples.THREADS)]
        pushed = samples.at_once([partial(registry.push, one, "digits") for one in bundles])
        assert sorted(int(version.version) for version in pushed) == list(
            range(1, samples.THREADS + 1)
        )
        assert {v.version: v.digest for v in registry.versions("digits")} == {
            v.version: v.digest for v in pushed
        }

    def test_a_version_tells_what_was_pushed(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, a field of `ModelVersion` doesn't survive your record format."""
        bundle = samples.bundle(
            tmp_path, metrics={"accuracy": 0.97}, lineage={"run": "train-1", "über": "ünïcode"}
        )
        pushed = registry.push(bundle, "digits", labels={"line": "3"})
        read = registry.get("digits:1")
        assert read == pushed
        assert (read.digest, read.labels) == (bundle.digest, {"line": "3"})
        assert read.metrics == {"accuracy": 0.97}
        assert read.lineage == {"run": "train-1", "über": "ünïcode"}
        assert [(v.name, v.precision, v.opset) for v in read.variants] == [
            ("fp32", "fp32", 17), ("int8", "int8", 17),
        ]  # fmt: skip
        assert read.approval.state is ApprovalState.PENDING

    def test_progress_of_a_push_adds_up(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, a bar over a push stops short of its end, or runs past it."""
        bundle = samples.bundle(tmp_path)
        total = sum(descriptor.size for descriptor in bundle.blobs())
        for _ in ("sent", "skipped"):
            steps: list[int] = []
            registry.push(bundle, "digits", progress=steps.append)
            assert sum(steps) == total

    def test_a_damaged_bundle_leaves_nothing_visible(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, the version is recorded before its blobs are stored and checked."""
        bundle = samples.bundle(tmp_path)
        largest = max(bundle.blobs(), key=lambda descriptor: descriptor.size)
        damaged = bundle.root / blob_path(largest.digest)
        damaged.chmod(0o644)
        damaged.write_bytes(bytes(largest.size))
        with pytest.raises(IntegrityError):
            registry.push(bundle, "digits")
        assert registry.versions("digits") == ()
        assert registry.list() == ()

    def test_an_interrupted_push_goes_on(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, a killed push leaves a version without its blobs, or blocks the next."""
        bundle = samples.bundle(tmp_path)
        seen: list[int] = []

        def pull_the_plug(count: int) -> None:
            seen.append(count)
            if len(seen) == 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            registry.push(bundle, "digits", progress=pull_the_plug)
        assert registry.versions("digits") == ()
        assert registry.push(bundle, "digits").version == "1"
        registry.pull("digits:1", tmp_path / "pulled").verify()

    @pytest.mark.parametrize("name", ["", "Digits", "a/b", "../up", "a" * 64, "x:1", "x@y"])
    def test_what_is_no_name_is_refused(
        self, registry: Registry, tmp_path: Path, name: str
    ) -> None:
        """If this fails, your registry overrides a check that `Registry` makes."""
        with pytest.raises(InvalidInputError):
            registry.push(samples.bundle(tmp_path), name)

    # Finding

    def test_every_form_of_reference_finds_its_version(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, look at how `_get`, `_versions` and `_aliases` answer for one name."""
        one, two = (registry.push(samples.bundle(tmp_path, seed), "digits") for seed in (1, 2))
        registry.alias("digits:1", "production")
        assert registry.get("digits") == two
        assert registry.get("digits:1").digest == one.digest
        assert registry.get("digits:production").version == "1"
        assert registry.get(f"digits@{two.digest}") == two

    def test_what_is_not_there_is_named_with_what_is(
        self, registry: Registry, tmp_path: Path
    ) -> None:
        """If this fails, a typing error isn't `NotFoundError`, or has no cure."""
        registry.push(samples.bundle(tmp_path), "digits")
        for reference in ("digits:2", "digits:production", f"digits@{NOWHERE}"):
            with pytest.raises(NotFoundError, match="versions there are: 1"):
                registry.get(reference)
        with pytest.raises(NotFoundError, match="models there are: digits"):
            registry.get("letters")

    def test_models_are_listed_in_order(self, registry: Registry, tmp_path: Path) -> None:
        """If this fails, names come unsorted or doubled, or one model shows another's versions."""
        for seed, name in enumerate(["letters", "digits", "letters", "digits-2"]):
            registry.push(samples.bundle(tmp_path, seed), name)
        assert registry.list() == ("digits", "digits-2", "letters")
        assert [v.version for v in registry.versions("digits")] == ["1"]
        assert registry.versions("unknown") == ()
