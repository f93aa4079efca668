"""The page about IoT Edge: its module is one, and the runtime takes what the module gives it."""

from __future__ import annotations

import json
import re
from pathlib import Path

from edgefleet_azure.cloud.edge_manifest import modules_of
from edgefleet_azure.manifests import MODULE
from edgefleet_runtime.cli import _parser

PAGE = (Path(__file__).parents[2] / "docs/how-to/run-under-iot-edge.md").read_text("utf-8")
BLOCK = re.compile(r"```json\n(.*?)```", re.DOTALL)


def test_the_runtime_takes_what_the_module_gives_it_and_writes_to_the_hosts_folders() -> None:
    [text] = BLOCK.findall(PAGE)
    desired = {
        "schemaVersion": "1.1",
        "runtime": {"type": "docker"},
        "systemModules": {"edgeAgent": {}, "edgeHub": {}},
        "modules": {MODULE: json.loads(text)},
    }
    spec = modules_of(desired)[MODULE]
    # The image's own program has options of its own, which this command would come behind.
    program, *words = spec.command(("sh", "-c", 'exec edgefleet-runtime run "$@"'))
    assert program == "edgefleet-runtime"
    given = _parser("run").parse_args(words)
    assert given.channel == "iotedge"
    assert spec.binds.keys() == {str(given.root), str(Path(given.uds).parent)}
