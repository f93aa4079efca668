"""What works on this device: engines and their providers, channels, hardware, and what to do."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from edgefleet.errors import EdgeFleetError
from edgefleet.protocol.target import TARGET_LABEL, target_of
from edgefleet_runtime import __version__
from edgefleet_runtime.channels.discovery import channel_named, installed_channels
from edgefleet_runtime.engines.builds import installed_builds
from edgefleet_runtime.engines.installed import NOT_INSTALLED, installed_engines
from edgefleet_runtime.report import host
from edgefleet_runtime.report.jetson import detect_jetson

WATCHING = {"drift": "datasketches", "rules": "cel", "mqtt": "paho"}
"""The module that each extra of the watch brings: a policy may ask for any of them."""


def facts(root: Path = Path("/")) -> dict[str, Any]:
    """Everything worth knowing, as plain data; imports what is installed, starts nothing.

    Args:
        root: where ``/proc`` and ``/etc`` lie.
    """
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
    labels = host.labels(providers=providers, root=root)
    # One engine is enough: that others could be installed is no problem.
    advice = [
        f"engine {e['name']}: {e['problem']}"
        for e in engines
        if e["problem"] and not (providers and e["problem"] == NOT_INSTALLED)
    ]
    if not providers:
        advice.append("no engine works here; install one: pip install 'edgefleet-runtime[cpu]'")
    wanted = target_of(labels).providers
    missing = [provider for provider in wanted if provider not in providers]
    if missing and providers:
        advice.append(
            f"target {labels.get(TARGET_LABEL, 'any')} would use {', '.join(missing)}, which no "
            f"engine here lists: models run on what there is"
        )
    builds = installed_builds()
    if len(builds) > 1:
        advice.append(
            f"{' and '.join(builds)} overwrite each other: pip uninstall {' '.join(builds)}, then "
            "install the one that fits"
        )
    jetson = detect_jetson(root)
    how = jetson and jetson.advice(gpu_engine="CUDAExecutionProvider" in providers)
    if how:
        advice.append(how)
    channels = []
    for name in installed_channels():
        channel, problem = _channel(name)
        channels.append({"name": name, "options": channel, "problem": problem})
        if problem:
            advice.append(f"channel {name}: {problem}")
    return {
        "runtime": __version__,
        "labels": labels,
        "jetson": jetson and msgspec.to_builtins(jetson),
        "engines": engines,
        "channels": channels,
        "extras": {extra: find_spec(module) is not None for extra, module in WATCHING.items()},
        "advice": advice,
    }


def lines(found: dict[str, Any]) -> list[str]:
    """The facts for people."""
    text = [f"edgefleet-runtime {found['runtime']}", "", "this device"]
    text += [f"  {name}: {value}" for name, value in found["labels"].items()]
    if jetson := found["jetson"]:
        text.append(
            f"  JetPack: {jetson['jetpack'] or 'unknown'} (L4T {jetson['l4t'] or 'unknown'})"
        )
    text += ["", "engines"]
    for engine in found["engines"]:
        text.append(f"  {engine['name']}: opens {', '.join(engine['formats']) or 'nothing'}")
        text += [f"    runs on {provider}" for provider in engine["providers"]]
    text += ["", "channels"]
    for channel in found["channels"]:
        text.append(f"  {channel['name']}")
        text += [f"    -o {name}=…  {about}" for name, about in channel["options"].items()]
    text += ["", "what a telemetry policy may ask for"]
    for extra, there in found["extras"].items():
        cure = f"not installed; for that: pip install 'edgefleet-runtime[{extra}]'"
        text.append(f"  {extra}: {'installed' if there else cure}")
    text += ["", "what to do" if found["advice"] else "nothing to do"]
    text += [f"  {advice}" for advice in found["advice"]]
    return text


def _channel(name: str) -> tuple[dict[str, str], str | None]:
    try:
        return dict(channel_named(name).options), None
    except EdgeFleetError as error:
        return {}, str(error)
