"""Releases: content only, edited without losing anything."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgefleet.errors import DocumentError, InvalidInputError, LimitExceededError, UnsupportedError
from edgefleet.protocol.digest import digest_of
from edgefleet.protocol.documents import decode, encode
from edgefleet.protocol.policy import TelemetryPolicy
from edgefleet.protocol.release import (
    EMPTY,
    MAX_BYTES,
    Release,
    ReleaseModel,
    RuntimeSettings,
    read_release,
)
from tests.contract import samples
from tests.protocol import strategies


def model(name: str, version: str = "1", role: str = "active") -> ReleaseModel:
    return ReleaseModel(name=name, version=version, bundle=samples.BUNDLE, role=role)  # type: ignore[arg-type]


@given(strategies.releases, st.randoms())
def test_order_of_models_does_not_change_the_digest(release: Release, random: object) -> None:
    shuffled = list(release.models)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert msgspec.structs.replace(release, models=tuple(shuffled)).digest == release.digest


@given(strategies.releases)
def test_digest_is_that_of_the_bytes_that_travel(release: Release) -> None:
    data = release.encoded()
    assert release.digest == digest_of(data) == read_release(data).digest


def test_models_are_written_by_name_and_role() -> None:
    release = Release(models=(model("b"), model("a", role="shadow"), model("a")))
    written = json.loads(release.encoded())["models"]
    assert [(m["name"], m.get("role")) for m in written] == [
        ("a", None),
        ("a", "shadow"),
        ("b", None),
    ]


@pytest.mark.parametrize("role", ["active", "shadow"])
def test_model_named_twice_in_a_role_is_refused(role: str) -> None:
    twice = (model("a", "1", role), model("a", "2", role))
    with pytest.raises(InvalidInputError, match="same model twice in the same role"):
        Release(models=twice)
    with pytest.raises(DocumentError, match="malformed release: a release names the same model"):
        read_release(b'{"version":1,"requires":[],"models":' + msgspec.json.encode(twice) + b"}")


@given(strategies.releases, strategies.release_models)
def test_added_model_is_in_and_the_rest_stays(release: Release, added: ReleaseModel) -> None:
    key = (added.name, added.role)
    edited = release.with_model(added)
    others = [m for m in release.models if (m.name, m.role) != key]
    assert set(edited.models) == {*others, added}
    assert (edited.settings, edited.telemetry) == (release.settings, release.telemetry)
    assert edited.with_model(added) == edited


@given(strategies.releases, strategies.release_models)
def test_removed_model_is_out_in_every_role(release: Release, model: ReleaseModel) -> None:
    edited = release.with_model(model).without_model(model.name)
    assert model.name not in {m.name for m in edited.models}
    assert {m for m in release.models if m.name != model.name} == set(edited.models)


@given(strategies.releases, strategies.release_models)
def test_adding_and_removing_a_new_name_gives_the_first_digest(
    release: Release, added: ReleaseModel
) -> None:
    before = release.without_model(added.name)
    assert before.with_model(added).without_model(added.name).digest == before.digest


def test_release_of_a_newer_library_is_read_but_not_edited() -> None:
    newer = read_release(b'{"version":2,"requires":[],"pipelines":[{"camera":"/dev/video0"}]}')
    assert newer.models == ()
    with pytest.raises(UnsupportedError, match="has version 2, this library writes 1"):
        newer.with_model(model("a"))
    with pytest.raises(UnsupportedError, match="\n  cure: upgrade edgefleet here"):
        newer.without_model("a")


def test_where_every_group_starts_nothing_runs() -> None:
    assert (EMPTY.models, EMPTY.digest) == ((), Release().digest)


def test_release_over_its_limit_is_neither_written_nor_read() -> None:
    many = Release(models=tuple(model(f"m{i}", "1" * 200) for i in range(1000)))
    with pytest.raises(LimitExceededError, match="262144 are allowed"):
        many.encoded()
    with pytest.raises(LimitExceededError):
        read_release(encode(many))
    assert len(decode(Release, encode(many), max_bytes=MAX_BYTES * 2).models) == 1000


@pytest.mark.parametrize(
    "telemetry",
    [
        {"prediction_fraction": -0.1},
        {"prediction_fraction": 1.1},
        {"output_values": -1},
        {"output_values": 1025},
        {"segment_max_bytes": 0},
        {"segment_max_age_s": 0.0},
        {"heartbeat_s": -1.0},
    ],
    ids=str,
)
def test_telemetry_policy_out_of_range_is_refused(telemetry: dict[str, float]) -> None:
    data = {"version": 1, "requires": [], "telemetry": telemetry}
    with pytest.raises(DocumentError, match="malformed release"):
        read_release(json.dumps(data).encode())


@pytest.mark.parametrize("field", ["store_max_bytes", "spool_max_bytes"])
def test_cap_of_no_bytes_is_refused(field: str) -> None:
    with pytest.raises(DocumentError):
        encode(RuntimeSettings(**{field: 0}))  # type: ignore[arg-type]


def test_policy_without_predictions_is_legal() -> None:
    policy = TelemetryPolicy(prediction_fraction=0.0, output_values=0)
    assert read_release(Release(telemetry=policy).encoded()).telemetry == policy
