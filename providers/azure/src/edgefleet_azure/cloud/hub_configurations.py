"""Automatic deployments over IoT Hub's REST API: made, changed, counted, applied to one device.

Rules kept here, each in ``mock_rules.md``:

- A hub holds 100 deployments, layered ones included.
- Their content can't be changed, and an etag must fit for a change.
- A target condition, a metric and a content that IoT Hub can't read are refused; a tag that no
  device has is none of that, and targets no device.
- A device that automatic deployments target takes no deployment of its own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from edgefleet.errors import LimitExceededError
from edgefleet_azure.cloud.hub_merge import WHOLE, Place, path_of, placed
from edgefleet_azure.cloud.hub_query import QueryError, parse_condition, parse_query
from edgefleet_azure.cloud.hub_state import EDGE_AGENT, EDGE_HUB, HubState
from edgefleet_azure.cloud.hub_values import Configuration, HubError, etag_of
from edgefleet_azure.twins import MAX_PROPERTIES, check, check_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MAX_DEPLOYMENTS = 100
MAX_METRICS, MAX_LABELS = 5, 20
_ID = re.compile(r"[a-z0-9\-:+%_#*?!(),=@;']{1,128}")
_GIVEN = ("labels", "content", "targetCondition", "priority", "metrics")
_CONTENTS = ("deviceContent", "moduleContent", "modulesContent")
_AGENTS = "SELECT deviceId FROM devices.modules WHERE moduleId = '$edgeAgent' AND "
_APPLIED = f"{_AGENTS}configurations.[[%s]].status = 'Applied'"
_TOLD = "properties.desired.$version = properties.reported.lastDesiredVersion"
_CODE = "properties.reported.lastDesiredStatus.code"
_SYSTEM_METRICS = {
    "targetedCount": f"{_AGENTS}is_defined(configurations.[[%s]])",
    "appliedCount": _APPLIED,
    "reportedSuccessfulCount": f"{_APPLIED} AND {_TOLD} AND {_CODE} = 200",
    "reportedFailedCount": f"{_APPLIED} AND {_TOLD} AND {_CODE} != 200",
}


class Configurations:
    """Operations on the automatic deployments of a hub.

    Args:
        state: of the hub.
        count: how many rows a query has.
    """

    def __init__(self, state: HubState, count: Callable[[str], int]) -> None:
        self._state = state
        self._count = count

    def get(self, name: str) -> dict[str, Any]:
        """One, with its metrics."""
        found = self._one(name)
        metrics = (found.document.get("metrics") or {}).get("queries") or {}
        queries = {**metrics, **{key: query % name for key, query in _SYSTEM_METRICS.items()}}
        found.counted = {key: self._count(query) for key, query in queries.items()}
        return self._shown(found)

    def listed(self, top: int | None) -> list[dict[str, Any]]:
        """The newest first, at most so many, with metrics as they were counted last."""
        with self._state.changing():
            found = sorted(
                self._state.configurations.values(), key=lambda one: one.created, reverse=True
            )
        return [self._shown(one) for one in found[:top]]

    def put(
        self, name: str, document: Mapping[str, Any], if_match: str | None
    ) -> tuple[int, dict[str, Any]]:
        """Make one, or change it where an etag is given; with the answer's status."""
        checked = _checked(name, document)
        with self._state.changing():
            there = self._state.configurations.get(name)
            now = self._state.now()
            if there is None:
                self._refuse_one_more(name, if_match)
                made = Configuration(name, checked, self._state.number(), now, now)
                self._state.configurations[name] = made
                self._state.evaluate_new(made)
                return 200, self._shown(made)
            if if_match is None:
                raise HubError(409, "ConfigurationAlreadyExists", f"{name} already exists")
            match(if_match, etag_of(there.number))
            if checked.get("content") != there.document.get("content"):
                raise HubError(
                    400, "CannotModifyImmutableConfigurationContent", f"{name} has its content"
                )
            there.document = checked
            there.number += 1
            there.updated_at = now
            self._state.evaluate_all()
            return 200, self._shown(there)

    def _refuse_one_more(self, name: str, if_match: str | None) -> None:
        if if_match is not None:
            raise HubError(404, "ConfigurationNotFound", f"{name} isn't there")
        if len(self._state.configurations) >= MAX_DEPLOYMENTS:
            raise HubError(
                413,
                "ConfigurationCountLimitExceeded",
                f"the hub holds {MAX_DEPLOYMENTS} configurations",
            )

    def delete(self, name: str, if_match: str | None) -> None:
        """Take one away; devices follow those that are left."""
        with self._state.changing():
            found = self._one(name)
            if if_match is not None:
                match(if_match, etag_of(found.number))
            del self._state.configurations[name]
            self._state.evaluate_without(name)

    def test(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """What of a condition and of metrics can't be read."""
        answer: dict[str, Any] = {"targetConditionError": None, "customMetricQueryErrors": {}}
        try:
            parse_condition(given.get("targetCondition") or "")
        except QueryError as error:
            answer["targetConditionError"] = str(error)
        for name, query in (given.get("customMetricQueries") or {}).items():
            try:
                parse_query(query)
            except QueryError as error:
                answer["customMetricQueryErrors"][name] = str(error)
        return {key: value for key, value in answer.items() if value is not None}

    def apply(self, device: str, content: Mapping[str, Any]) -> None:
        """Give one device a deployment of its own."""
        _check_content({"modulesContent": content.get("modulesContent")})
        with self._state.changing():
            identity = self._state.identity(device)
            if not identity.edge:
                raise HubError(400, "InvalidOperation", f"{device} has no IoT Edge")
            if self._state.targeting(device):
                raise HubError(
                    400, "InvalidOperation", f"automatic deployments target {device} already"
                )
            for module, places in (content.get("modulesContent") or {}).items():
                self._state.module(device, module)
                desired = placed({}, (Place(path_of(key), places[key]) for key in places))
                self._state.change_twin(device, module, tags=None, desired=desired, replace=True)
            for module in (content["modulesContent"][EDGE_AGENT].get(WHOLE) or {}).get(
                "modules", ()
            ):
                self._state.module(device, module)

    def _one(self, name: str) -> Configuration:
        found = self._state.configurations.get(name)
        if found is None:
            raise HubError(404, "ConfigurationNotFound", f"there is no configuration {name}")
        return found

    def _shown(self, found: Configuration) -> dict[str, Any]:
        queries = {key: query % found.id for key, query in _SYSTEM_METRICS.items()}
        metrics = found.document.get("metrics") or {}
        custom: dict[str, str] = metrics.get("queries") or {}
        return {
            "schemaVersion": "1.0",
            **found.document,
            "id": found.id,
            "createdTimeUtc": found.created_at,
            "lastUpdatedTimeUtc": found.updated_at,
            "systemMetrics": {
                "queries": queries,
                "results": _counted(found, queries) if found.evaluated else {},
            },
            "metrics": {"queries": custom, "results": _counted(found, custom)},
            "etag": etag_of(found.number),
        }


def _counted(found: Configuration, queries: Mapping[str, str]) -> dict[str, int]:
    return {key: found.counted[key] for key in queries if key in found.counted}


def match(if_match: str, etag: str) -> None:
    """Refuse a stale etag.

    Raises:
        HubError: 412.
    """
    wanted = if_match.removeprefix("W/").strip('"')
    if wanted not in {"*", etag}:
        raise HubError(412, "PreconditionFailed", f"the etag is {etag} now, not {wanted}")


def _checked(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    if not _ID.fullmatch(name) or document.get("id", name) != name:
        raise HubError(400, "ArgumentInvalid", f"{name!r} is no id of a configuration")
    priority = document.get("priority", 0)
    if not isinstance(priority, int) or not 0 <= priority < 1 << 31:
        raise HubError(400, "ArgumentInvalid", "a priority is a number of 31 bits")
    if len(document.get("labels") or {}) > MAX_LABELS:
        raise HubError(400, "ArgumentInvalid", f"a configuration has {MAX_LABELS} labels at most")
    try:
        parse_condition(document.get("targetCondition") or "")
    except QueryError as error:
        raise HubError(400, "InvalidConfigurationTargetCondition", str(error)) from error
    queries = (document.get("metrics") or {}).get("queries") or {}
    if len(queries) > MAX_METRICS:
        raise HubError(
            400, "InvalidConfigurationCustomMetricsQuery", f"{MAX_METRICS} metrics are allowed"
        )
    for key, query in queries.items():
        try:
            parse_query(query)
        except QueryError as error:
            raise HubError(
                400, "InvalidConfigurationCustomMetricsQuery", f"{key}: {error}"
            ) from error
    _check_content(document.get("content") or {})
    return {key: document[key] for key in _GIVEN if document.get(key) is not None} | {
        "priority": priority
    }


def _check_content(content: Mapping[str, Any]) -> None:
    for problem in _problems(content):
        raise HubError(400, "InvalidConfigurationContent", problem)


def _problems(content: Mapping[str, Any]) -> Iterator[str]:
    given = [key for key in _CONTENTS if content.get(key)]
    if len(given) != 1:
        yield f"one of {', '.join(_CONTENTS)} is needed"
        return
    if given != ["modulesContent"]:
        yield "the mock has configurations of IoT Edge only"
        return
    modules = content["modulesContent"]
    if WHOLE in modules.get(EDGE_AGENT, {}) and WHOLE not in modules.get(EDGE_HUB, {}):
        yield "a deployment with $edgeAgent needs $edgeHub too"
    for module, places in modules.items():
        for key, value in places.items():
            try:
                path = path_of(key)
                if not path and not isinstance(value, dict):
                    raise LimitExceededError(f"{key} is no object")
                desired = placed({}, [Place(path, value)])
                check(desired)
                check_size(desired, MAX_PROPERTIES)
            except ValueError as error:
                yield f"{module}: {error}"
