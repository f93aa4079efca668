"""The mock's Azure ML: which call is answered by what, on the host of Azure Resource Manager.

One workspace; what lies below other names isn't there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgefleet.testing.cloud.calls import Refused, Reply
from edgefleet_azure.cloud.ml_assets import KINDS, Assets
from edgefleet_azure.cloud.ml_jobs import Jobs
from edgefleet_azure.cloud.ml_workspace import LOCATION, Workspace, sizes
from edgefleet_azure.cloud.server import Route

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from edgefleet_azure.cloud.calls import Call
    from edgefleet_azure.cloud.ml_calls import Storage
    from edgefleet_azure.cloud.server import Handle

ENVIRONMENT = ("python", "3")  # environment that is there from the start: its image is never pulled
CALLER = "operator@mock"
METADATA = "/metadata/endpoints"
_ML = "/providers/Microsoft.MachineLearningServices"
_WORKSPACE = (
    f"/subscriptions/{{subscription}}/resourceGroups/{{group}}{_ML}/workspaces/{{workspace}}"
)


class AzureMl:
    """The workspace and all that is in it.

    Args:
        folder: for what jobs need while they run.
        storage: the account.
        given: gives the variables that reach the mock cloud as the compute's identity.
        group: resource id of the resource group.
        name: of the workspace.

    Attributes:
        watch: is told each operation that puts something, and the request's body.
    """

    def __init__(
        self,
        folder: Path,
        storage: Storage,
        given: Callable[[], Mapping[str, str]],
        *,
        group: str,
        name: str,
    ) -> None:
        self.storage = storage
        self.workspace = Workspace(storage.account, group, name)
        self.assets = Assets(self.workspace.scope, CALLER)
        self.assets.put("environments", *ENVIRONMENT, {"image": "mock/python", "osType": "Linux"})
        self.watch: Callable[[str, Any], object] = _nothing
        self.jobs = Jobs(folder, storage, self.workspace, self.assets, given)

    def kept(self) -> dict[str, Any]:
        """What there is, as JSON."""
        return {
            "datastores": self.workspace.kept(),
            "assets": self.assets.kept(),
            "jobs": self.jobs.kept(),
        }

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Go on with what an earlier run of the mock kept."""
        self.workspace.restore(kept["datastores"])
        self.assets.restore(kept["assets"])
        self.jobs.restore(kept["jobs"])

    def close(self) -> None:
        """End what runs; may be called twice."""
        self.jobs.close()

    @property
    def routes(self) -> Sequence[Route]:
        """What is answered here."""
        locations = f"/subscriptions/{{subscription}}{_ML}/locations/{{location}}/vmSizes"
        return (
            Route("arm.GetClouds", "GET", METADATA, self._clouds, open=True),
            Route("ml.Discover", "GET", "/discovery", self._discover, open=True),
            Route("ml.ListSizes", "GET", locations, lambda _: sizes()),
            self._route("GetWorkspace", "GET", "", lambda c: self.workspace.told(c.base)),
            self._route("GetCompute", "GET", "/computes/{name}", self._compute),
            self._route("GetDatastore", "GET", "/datastores/{name}", self._datastore),
            self._route("PutDatastore", "PUT", "/datastores/{name}", self._datastore),
            *self._routes_of_jobs(),
            *(route for kind in KINDS for route in self._routes_of(kind)),
        )

    def _routes_of_jobs(self) -> Sequence[Route]:
        runs = f"/history/v1.0{_WORKSPACE}/runs/{{name}}"
        named = f"/history/v1.0{_WORKSPACE}/experiments/{{experiment}}/runs/{{name}}"
        return (
            self._route("ListJobs", "GET", "/jobs", self._job),
            self._route("GetJob", "GET", "/jobs/{name}", self._job),
            self._route("PutJob", "PUT", "/jobs/{name}", self._job),
            self._route("CancelJob", "POST", "/jobs/{name}/{action}", self._job),
            self._route("GetCancel", "GET", "/jobs/{name}/{action}", self._job),
            Route("ml.GetRun", "GET", runs, self._here(self._run)),
            Route("ml.GetRunPart", "GET", f"{runs}/{{action}}", self._here(self._run)),
            Route("ml.PatchRun", "PATCH", named, self._here(self._run)),
        )

    def _routes_of(self, kind: str) -> Sequence[Route]:
        def answer(call: Call) -> Reply:
            return self.assets.answer(call, kind, call.parts["name"], call.parts.get("version"))

        def versions(call: Call) -> Reply:
            return self.assets.answer(call, kind, call.parts["name"], "")

        one = kind.removesuffix("s").capitalize()
        below = f"/{kind}/{{name}}"
        version = f"{below}/versions/{{version}}"
        return (
            self._route(f"Get{one}", "GET", below, answer),
            self._route(f"List{one}Versions", "GET", f"{below}/versions", versions),
            self._route(f"Get{one}Version", "GET", version, answer),
            self._route(f"Put{one}Version", "PUT", version, answer),
        )

    def _route(
        self, operation: str, method: str, below: str, handle: Callable[[Call], Reply | Any]
    ) -> Route:
        def checked(call: Call) -> Reply:
            if "api-version" not in call.query:
                raise Refused(
                    400,
                    "MissingApiVersionParameter",
                    "The api-version query parameter (?api-version=) is required.",
                )
            if call.method == "PUT":
                self.watch(operation, call.json())
            found = handle(call)
            return found if isinstance(found, Reply) else Reply(200, found)

        return Route(f"ml.{operation}", method, f"{_WORKSPACE}{below}", self._here(checked))

    def _here(self, handle: Handle) -> Handle:
        """A handler for calls about this workspace, and no other."""

        def checked(call: Call) -> Reply:
            parts = call.parts
            asked = (
                f"/subscriptions/{parts['subscription']}/resourceGroups/{parts['group']}{_ML}"
                f"/workspaces/{parts['workspace']}"
            )
            if asked.lower() != self.workspace.scope.lower():
                raise Refused(404, "ResourceNotFound", f"The resource '{asked}' was not found.")
            return handle(call)

        return checked

    @staticmethod
    def _clouds(call: Call) -> Reply:
        """The cloud's endpoints, as Azure Resource Manager tells them."""
        cloud = {
            "name": "EdgeFleetMock",
            "portal": "https://portal.azure.com",  # Azure ML's audience is made from its last part
            "resourceManager": f"{call.base}/",
            "authentication": {
                "loginEndpoint": f"{call.base}/",
                "audiences": [f"{call.base}/"],
                "tenant": "common",
            },
            "suffixes": {"storage": "core.windows.net"},
            "location": LOCATION,
        }
        return Reply(200, [cloud])

    @staticmethod
    def _discover(call: Call) -> Reply:
        return Reply(200, dict.fromkeys(("api", "history", "mlflow", "studio"), call.base))

    def _compute(self, call: Call) -> Reply:
        return Reply(200, self.workspace.compute(call.parts["name"]))

    def _datastore(self, call: Call) -> Reply:
        return self.workspace.datastore(call, call.parts["name"])

    def _job(self, call: Call) -> Reply:
        return self.jobs.answer(call, call.parts.get("name"), call.parts.get("action"))

    def _run(self, call: Call) -> Reply:
        return self.jobs.history(call, call.parts["name"], call.parts.get("action"))


def _nothing(operation: str, body: object) -> None:
    """Nobody watches."""
