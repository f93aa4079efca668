"""What works on this device: engines and their providers, channels, hardware, and what to do."""

from __future__ import annotations

from typing import Any

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.target import TARGET_LABEL, target_of
from edgefleet_runtime import __version__
from edgefleet_runtime.channels.discovery import channel_named, installed_channels
from edgefleet_runtime.engines.installed import installed_engines
from edgefleet_runtime.report import host


def facts() -> dict[str, Any]:
    """Everything worth knowing, as plain data; imports what is installed, starts nothing."""
    engines: list[dict[str, Any]] = [
        {
            "name": engine.name,
            "formats": sorted(engine.formats),
            "providers": list(engine.providers),
            "problem": engine.problem,
        }
        for engine in installed_engines()
    ]
    providers = [provider for engine in engines for provider in engine["providers"]]
    labels = host.labels(providers=providers)
    advice = [f"engine {e['name']}: {e['problem']}" for e in engines if e["problem"]]
    if not providers:
        advice.append("no engine works here; install one: pip install 'edgefleet-runtime[cpu]'")
    wanted = target_of(labels).providers
    missing = [provider for provider in wanted if provider not in providers]
    if missing and providers:
        advice.append(
            f"target {labels.get(TARGET_LABEL, 'any')} would use {', '.join(missing)}, which no "
            f"engine here lists: models run on what there is"
        )
    channels = []
    for name in installed_channels():
        channel, problem = _channel(name)
        channels.append({"name": name, "options": channel, "problem": problem})
        if problem:
            advice.append(f"channel {name}: {problem}")
    return {
        "runtime": __version__,
        "labels": labels,
        "engines": engines,
        "channels": channels,
        "advice": advice,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts for people."""
    text = [f"edgefleet-runtime {found['runtime']}", "", "this device"]
    text += [f"  {name}: {value}" for name, value in found["labels"].items()]
    text += ["", "engines"]
    for engine in found["engines"]:
        text.append(f"  {engine['name']}: opens {', '.join(engine['formats']) or 'nothing'}")
        text += [f"    runs on {provider}" for provider in engine["providers"]]
    text += ["", "channels"]
    for channel in found["channels"]:
        text.append(f"  {channel['name']}")
        text += [f"    -o {name}=…  {about}" for name, about in channel["options"].items()]
    text += ["", "what to do" if found["advice"] else "nothing to do"]
    text += [f"  {advice}" for advice in found["advice"]]
    return text


def _channel(name: str) -> tuple[dict[str, str], str | None]:
    try:
        return dict(channel_named(name).options), None
    except EdgeFleetError as error:
        return {}, str(error)
