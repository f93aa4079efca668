"""What an API server answers to each verb; with ``--live`` a real one, too."""

from __future__ import annotations

import json

import pytest

from providers.kubernetes.tests.cloud.api_calls import (
    APPLY,
    MERGE,
    METADATA,
    Api,
    events,
    refused,
)
from providers.kubernetes.tests.cloud.api_samples import config_map, daemon_set
from providers.kubernetes.tests.cloud.place import Place


@pytest.fixture
def api(place: Place) -> Api:
    return Api(place.clients, place.namespace)


def test_an_object_is_made_read_changed_and_deleted(api: Api) -> None:
    made = api.maps("POST", document=config_map(data={"k": "1"}))
    assert api.maps("GET", "a") == made
    made["data"]["k"] = "2"
    assert api.maps("PUT", "a", made)["data"] == {"k": "2"}
    patched = api.maps("PATCH", "a", {"data": {"x": "3"}}, media=MERGE)
    assert patched["data"] == {"k": "2", "x": "3"}
    assert api.maps("DELETE", "a")["status"] == "Success"
    assert refused(lambda: api.maps("GET", "a")).reason == "NotFound"


def test_what_isnt_served_is_not_found(api: Api) -> None:
    status = refused(lambda: api("GET", "apis/x.dev/v1/widgets"))
    assert (status.code, status.message) == (
        404,
        "the server could not find the requested resource",
    )


@pytest.mark.parametrize("method,path", [("PUT", "api/v1/configmaps"), ("POST", "api/v1/pods")])
def test_a_verb_that_a_path_has_not_is_refused(api: Api, method: str, path: str) -> None:
    assert refused(lambda: api(method, path, {})).code == 405


def test_the_object_must_be_where_the_address_says(api: Api) -> None:
    assert refused(lambda: api.maps("POST", document=daemon_set())).reason == "BadRequest"
    elsewhere = config_map(namespace="default")
    assert refused(lambda: api.maps("POST", document=elsewhere)).reason == "BadRequest"
    assert refused(lambda: api.maps("PUT", "b", config_map())).reason == "BadRequest"


def test_a_list_comes_in_pages_of_one_moment(api: Api) -> None:
    for number in range(5):
        api.maps("POST", document=config_map(f"a{number}"))
    query = {"limit": "2", "labelSelector": ""}
    names, versions = [], set()
    while True:
        page = api.maps("GET", query=query)
        names += [one["metadata"]["name"] for one in page["items"]]
        versions.add(page["metadata"]["resourceVersion"])
        if "continue" not in page["metadata"]:
            break
        query["continue"] = page["metadata"]["continue"]
        api.maps("POST", document=config_map(f"later-{len(names)}"))
    assert names == ["a0", "a1", "a2", "a3", "a4", "kube-root-ca.crt"]
    assert len(versions) == 1


def test_metadata_alone_is_listed_where_it_is_asked_for(api: Api) -> None:
    api.maps("POST", document=config_map(data={"k": "1"}))
    page = api.maps("GET", query={"fieldSelector": "metadata.name=a"}, accept=METADATA)
    (found,) = page["items"]
    assert (page["kind"], found["kind"]) == ("PartialObjectMetadataList", "PartialObjectMetadata")
    assert "data" not in found


def test_a_collection_is_deleted_by_selector(api: Api) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        api.maps("POST", document=config_map(name, labels={"colour": colour}))
    api.maps("DELETE", query={"labelSelector": "colour=red"})
    names = [one["metadata"]["name"] for one in api.maps("GET")["items"]]
    assert names == ["b", "kube-root-ca.crt"]


def test_apply_needs_a_manager_and_only_apply_is_forced(api: Api) -> None:
    status = refused(lambda: api.maps("PATCH", "a", config_map(), media=APPLY))
    assert (status.code, "fieldManager" in status.message) == (422, True)
    api.maps("POST", document=config_map())
    query = {"force": "true"}
    status = refused(lambda: api.maps("PATCH", "a", {}, media=MERGE, query=query))
    assert (status.code, "force" in status.message) == (422, True)


def test_a_dry_run_is_answered_as_if_it_were_done(api: Api) -> None:
    made = api.maps("POST", document=config_map(), query={"dryRun": "All"})
    assert made["metadata"]["uid"]
    assert refused(lambda: api.maps("GET", "a")).code == 404


@pytest.mark.parametrize(
    "query", [{"dryRun": "Some"}, {"fieldValidation": "Loose"}, {"labelSelector": "a=b=c"}]
)
def test_a_parameter_that_has_no_such_value_is_refused(api: Api, query: dict[str, str]) -> None:
    method = "GET" if "labelSelector" in query else "POST"
    status = refused(lambda: api.maps(method, document=config_map(), query=query))
    assert status.reason == "BadRequest"


def test_an_unknown_field_warns_where_it_isnt_refused(api: Api) -> None:
    response = api.clients.http().post(
        f"{api.core}/configmaps?fieldValidation=Warn", json={**config_map(), "dta": {}}
    )
    assert response.headers["Warning"] == '299 - "unknown field \\"dta\\""'


def test_a_body_that_is_too_large_is_refused(api: Api) -> None:
    status = refused(lambda: api.maps("POST", document=config_map(data={"k": "x" * (4 << 20)})))
    assert (status.code, status.reason) == (413, "RequestEntityTooLarge")


def test_a_watch_goes_on_from_a_version(api: Api) -> None:
    made = api.maps("POST", document=config_map(data={"k": "1"}))
    api.maps("PATCH", "a", {"data": {"k": "2"}}, media=MERGE)
    api.maps("DELETE", "a")
    since = made["metadata"]["resourceVersion"]
    told = events(api.clients, f"{api.core}/configmaps", 2, resourceVersion=since)
    assert [one["type"] for one in told] == ["MODIFIED", "DELETED"]


def test_a_change_arrives_while_the_watch_stands(api: Api) -> None:
    since = api.maps("GET")["metadata"]["resourceVersion"]
    query = {"watch": "true", "resourceVersion": since}
    with api.clients.stream(f"{api.core}/configmaps", query=query) as lines:
        api.maps("POST", document=config_map())
        assert json.loads(next(lines))["object"]["metadata"]["name"] == "a"


def test_a_watch_ends_when_its_time_is_over(api: Api) -> None:
    since = api.maps("GET")["metadata"]["resourceVersion"]
    path = f"{api.core}/configmaps"
    assert events(api.clients, path, 1, resourceVersion=since, timeoutSeconds="1") == []
