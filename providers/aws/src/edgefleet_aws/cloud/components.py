"""Greengrass's private components: recipes by name and version, checked when they are created.

Rules kept here, each in ``mock_rules.md``:

- A version that exists is never created again, not even with the same recipe.
- Of a recipe's artifacts every one is looked up when the version is created, and its digest noted.
- A recipe has at most 16,000 bytes.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from edgefleet_aws.cloud.calls import Fault
from edgefleet_aws.cloud.rest_json import invalid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_RECIPE = 16_000  # bytes
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})(-[0-9A-Za-z.-]+)?")
_NAME = re.compile(r"[a-zA-Z0-9-_.]+")


class Component(NamedTuple):
    """A version of a component.

    Attributes:
        recipe: as parsed; keys as its author wrote them.
        digests: of its artifacts by their addresses, base64 of SHA-256, as a device is told them.
    """

    name: str
    version: str
    recipe: Mapping[str, Any]
    created: dt.datetime
    tags: Mapping[str, str]
    digests: Mapping[str, str]


def read_recipe(data: bytes) -> dict[str, Any]:
    """A recipe in JSON or YAML, checked as far as the service checks it.

    Raises:
        Fault: it is none.
    """
    if len(data) > MAX_RECIPE:
        raise invalid(f"the recipe has {len(data)} bytes, {MAX_RECIPE} are allowed")
    try:
        recipe = yaml.safe_load(data)  # JSON is YAML too
    except yaml.YAMLError as error:
        raise invalid(f"the recipe can't be read: {error}") from error
    if not isinstance(recipe, dict):
        raise invalid("the recipe is no object")
    if recipe.get("RecipeFormatVersion") != "2020-01-25":
        raise invalid("RecipeFormatVersion is not 2020-01-25")
    name, version = recipe.get("ComponentName"), recipe.get("ComponentVersion")
    if not (isinstance(name, str) and _NAME.fullmatch(name) and len(name) <= 128):
        raise invalid(f"ComponentName {name!r} is unusable")
    if not (isinstance(version, str) and _VERSION.fullmatch(version) and len(version) <= 64):
        raise invalid(f"ComponentVersion {version!r} is no version number")
    manifests = recipe.get("Manifests")
    if not (isinstance(manifests, list) and manifests):
        raise invalid("the recipe has no Manifests")
    return recipe


class Components:
    """All versions of an account's components in a region.

    Args:
        scope: beginning of their ARNs, such as ``arn:aws:greengrass:eu-central-1:123456789012``.
        artifact: the bytes at an ``s3://`` address; None where there is nothing.
        clock: gives the time.
    """

    def __init__(
        self,
        scope: str,
        artifact: Callable[[str], bytes | None],
        clock: Callable[[], dt.datetime],
    ) -> None:
        self._scope = scope
        self._artifact = artifact
        self._clock = clock
        self._found: dict[str, dict[str, Component]] = {}

    def arn(self, name: str, version: str | None = None) -> str:
        """The ARN of a component, or of a version of it."""
        start = f"{self._scope}:components:{name}"
        return start if version is None else f"{start}:versions:{version}"

    def get(self, name: str, version: str) -> Component | None:
        """A version."""
        return self._found.get(name, {}).get(version)

    def clear(self) -> None:
        """Forget them all."""
        self._found.clear()

    def kept(self) -> Any:  # noqa: ANN401 - JSON
        """Every version, oldest first."""
        return [
            {**one._asdict(), "created": one.created.isoformat()}
            for versions in self._found.values()
            for one in versions.values()
        ]

    def restore(self, kept: Any) -> None:  # noqa: ANN401 - JSON
        """Have these versions; their artifacts were looked up when they were made."""
        for told in kept:
            one = Component(**{**told, "created": dt.datetime.fromisoformat(told["created"])})
            self._found.setdefault(one.name, {})[one.version] = one

    def operations(self) -> dict[str, Any]:
        """The service's operations on components."""
        return {
            "CreateComponentVersion": self._create,
            "DescribeComponent": self._describe,
            "GetComponent": self._recipe,
            "ListComponents": self._list,
            "ListComponentVersions": self._versions,
            "DeleteComponent": self._delete,
        }

    def _create(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if "inlineRecipe" not in request:
            raise invalid("the mock takes inline recipes only")
        recipe = read_recipe(request["inlineRecipe"])
        name, version = recipe["ComponentName"], recipe["ComponentVersion"]
        if self.get(name, version) is not None:
            raise Fault(
                "ConflictException",
                f"Component [{name} : {version}] for account already exists",
                409,
                resourceId=self.arn(name, version),
                resourceType="ComponentVersion",
            )
        component = Component(
            name,
            version,
            recipe,
            self._clock(),
            dict(request.get("tags") or {}),
            self._digests(recipe),
        )
        self._found.setdefault(name, {})[version] = component
        return {
            "arn": self.arn(name, version),
            "componentName": name,
            "componentVersion": version,
            "creationTimestamp": component.created,
            "status": {"componentState": "REQUESTED", "message": "NONE", "errors": {}},
        }

    def _digests(self, recipe: Mapping[str, Any]) -> dict[str, str]:
        digests: dict[str, str] = {}
        for manifest in recipe["Manifests"]:
            for artifact in manifest.get("Artifacts") or ():
                uri = artifact.get("Uri", artifact.get("URI", ""))
                data = self._artifact(uri)
                if data is None:
                    raise invalid(
                        f"Cannot validate artifact {uri}: it doesn't exist, or can't be read"
                    )
                digests[uri] = base64.b64encode(hashlib.sha256(data).digest()).decode()
        return digests

    def _describe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        component = self.by_arn(request["arn"])
        return {
            "arn": self.arn(component.name, component.version),
            "componentName": component.name,
            "componentVersion": component.version,
            "creationTimestamp": component.created,
            "publisher": str(component.recipe.get("ComponentPublisher", "")),
            "description": str(component.recipe.get("ComponentDescription", "")),
            "status": {"componentState": "DEPLOYABLE", "message": "NONE", "errors": {}},
            "platforms": _platforms(component.recipe),
            "tags": component.tags or None,
        }

    def _recipe(self, request: Mapping[str, Any]) -> dict[str, Any]:
        component = self.by_arn(request["arn"])
        kind = request.get("recipeOutputFormat", "YAML")
        text = json.dumps(component.recipe) if kind == "JSON" else yaml.safe_dump(component.recipe)
        return {
            "recipeOutputFormat": kind,
            "recipe": text.encode(),
            "tags": component.tags or None,
        }

    def _list(self, request: Mapping[str, Any]) -> dict[str, Any]:
        if request.get("scope") == "PUBLIC":
            return {"components": []}
        found = []
        for name in sorted(self._found):
            newest = max(self._found[name].values(), key=lambda one: version_key(one.version))
            latest = {
                "arn": self.arn(name, newest.version),
                "componentVersion": newest.version,
                "creationTimestamp": newest.created,
            }
            found.append({"arn": self.arn(name), "componentName": name, "latestVersion": latest})
        return paged("components", found, request)

    def _versions(self, request: Mapping[str, Any]) -> dict[str, Any]:
        name = request["arn"].rpartition(":components:")[2]
        versions = sorted(self._found.get(name, {}), key=version_key, reverse=True)
        if not versions:
            raise self._missing(request["arn"])
        found = [
            {
                "componentName": name,
                "componentVersion": version,
                "arn": self.arn(name, version),
            }
            for version in versions
        ]
        return paged("componentVersions", found, request)

    def _delete(self, request: Mapping[str, Any]) -> None:
        component = self.by_arn(request["arn"])
        del self._found[component.name][component.version]
        if not self._found[component.name]:
            del self._found[component.name]

    def by_arn(self, arn: str) -> Component:
        """The version of that ARN.

        Raises:
            Fault: there is none.
        """
        name, _, version = arn.rpartition(":components:")[2].partition(":versions:")
        component = self.get(name, version)
        if component is None:
            raise self._missing(arn)
        return component

    @staticmethod
    def _missing(arn: str) -> Fault:
        return Fault(
            "ResourceNotFoundException",
            f"{arn} not found",
            404,
            resourceId=arn,
            resourceType="ComponentVersion",
        )


def version_key(version: str) -> tuple[tuple[int, ...], bool, str]:
    """Orders versions: 1.10.0 after 1.9.0, and 1.0.0-beta before 1.0.0."""
    numbers, _, before = version.partition("-")
    return tuple(map(int, numbers.split("."))), not before, before


def paged(
    name: str, items: list[dict[str, Any]], request: Mapping[str, Any], size: int = 50
) -> dict[str, Any]:
    """A page of a listing, with the token of the next."""
    start = request.get("nextToken", "0")
    if not start.isdigit():
        raise invalid("nextToken is none that was given")
    begin, count = int(start), int(request.get("maxResults", size))
    more = begin + count < len(items)
    return {
        name: items[begin : begin + count],
        "nextToken": str(begin + count) if more else None,
    }


def _platforms(recipe: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"attributes": {key: str(value) for key, value in manifest["Platform"].items()}}
        for manifest in recipe["Manifests"]
        if isinstance(manifest.get("Platform"), dict)
    ]
