"""What a device says of itself, read from its twins: its report, and what edgeAgent makes of it.

Pure. Whatever a device wrote there, nothing is raised.
"""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.report import read_report
from edgefleet_azure.manifests import MODULE, WANTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgefleet.protocol.report import Report

MAX_PIECES = 16
_TAKEN = 200
_STALE = "as IoT Hub's queries had it, which may be minutes old"


class Said(NamedTuple):
    """What a module twin holds of a device.

    Attributes:
        problem: why a report that is there can't be read.
        came: when the report did, by the hub's clock.
        connected: whether the module is; None where the hub doesn't say yes.
    """

    report: Report | None = None
    problem: str | None = None
    came: datetime | None = None
    connected: bool | None = None

    def evidence(self, *, listed: bool) -> dict[str, str]:
        """What of it is for people.

        Args:
            listed: whether it came from a query.
        """
        found = {"status": _STALE} if listed else {}
        return found if self.problem is None else {**found, "report": self.problem}


class Agent(NamedTuple):
    """What edgeAgent says of a device.

    Attributes:
        evidence: in words.
        blocked: why it didn't take the newest deployment; None for taken, or not yet.
    """

    evidence: dict[str, str]
    blocked: str | None = None


def read_module(twin: Mapping[str, Any] | None) -> Said:
    """What the runtime's module twin says."""
    if twin is None:
        return Said()
    connected = True if twin.get("connectionState") == "Connected" else None
    reported = _at(twin, "properties", "reported")
    text = _text(_at(reported, WANTED, "report"))
    if text is None:
        return Said(connected=connected)
    came = _time(_at(reported, "$metadata", WANTED, "report", "$lastUpdated"))
    try:
        report = read_report(text.encode())
    except (EdgeFleetError, UnicodeEncodeError) as error:
        said = error.message if isinstance(error, EdgeFleetError) else "it is no text"
        return Said(problem=said, came=came, connected=connected)
    return Said(report, came=came, connected=connected)


def _text(pieces: Any) -> str | None:  # noqa: ANN401 - JSON
    """A report, put together: a twin's values are too short for one."""
    if not isinstance(pieces, dict):
        return None
    found = []
    for number in range(MAX_PIECES):
        piece = pieces.get(str(number))
        if not isinstance(piece, str):
            break
        found.append(piece)
    return "".join(found) or None


def read_agent(twin: Mapping[str, Any] | None) -> Agent:
    """What edgeAgent's twin says of the deployment and of the runtime's module."""
    if twin is None:
        return Agent({"edgeAgent": "none: the device has no IoT Edge"})
    reported, desired = _at(twin, "properties", "reported"), _at(twin, "properties", "desired")
    evidence: dict[str, str] = {}
    version = _at(reported, "version", "version")
    state = str(twin.get("connectionState", "unknown")).lower()
    evidence["edgeAgent"] = f"{version if isinstance(version, str) else 'unknown'}, {state}"
    code = _at(reported, "lastDesiredStatus", "code")
    why = _at(reported, "lastDesiredStatus", "description")
    told = _at(reported, "lastDesiredVersion")
    if not isinstance(code, int):
        return Agent({**evidence, "deployment": "not reported yet"})
    said = f"status {code}" + (f": {why}" if isinstance(why, str) and why else "")
    if told != _at(desired, "$version"):
        return Agent({**evidence, "deployment": f"a newer one is on its way; last: {said}"})
    evidence["deployment"] = said
    module = _module(reported)
    if module:
        evidence["module"] = module
    if code == _TAKEN:
        return Agent(evidence)
    return Agent(evidence, f"its edgeAgent didn't take the deployment: {said}")


def _module(reported: Any) -> str:  # noqa: ANN401 - JSON
    """How edgeAgent says that the runtime's container does."""
    found = _at(reported, "modules", MODULE)
    if not isinstance(found, dict):
        return ""
    words = [str(found.get("runtimeStatus", "unknown"))]
    restarts, code = found.get("restartCount"), found.get("exitCode")
    if isinstance(restarts, int) and restarts:
        words.append(f"restarted {restarts} times")
    if isinstance(code, int) and code:
        words.append(f"last exit code {code}")
    why = found.get("statusDescription")
    if isinstance(why, str) and why:
        words.append(why[:200])
    return ", ".join(words)


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _at(content: Any, *keys: str) -> Any:  # noqa: ANN401 - JSON
    for key in keys:
        content = content.get(key) if isinstance(content, dict) else None
    return content
