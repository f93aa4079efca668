"""``edgefleet demo``: a fleet of its own around the story, the table and the picture at its end."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.demo.narration import Narrator
from edgefleet.cli.options import common, json_option
from edgefleet.cli.output import print_json
from edgefleet.cli.output import say as diagnose
from edgefleet.errors import InvalidInputError, MissingExtraError
from edgefleet.interfaces.amounts import size_text

if TYPE_CHECKING:
    from edgefleet.cli.demo.facts import Facts, Swap

NEEDED = ("matplotlib", "numpy", "onnx", "onnxruntime", "skl2onnx", "sklearn")
SCRIPT = "train_digits.py"
PROFILE = "demo"
_CONFIG = f"""\
[profiles.{PROFILE}]
provider = "local"
require_approval = true

[profiles.{PROFILE}.recorded]  # the demo can't wait a minute for its events
segment_max_age_s = 0.5

[profiles.{PROFILE}.local]
root = "."
"""


@click.command()
@click.option(
    "--output",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("demo-out"),
    show_default=True,
    help="Where the picture, the facts and the training script go.",
)
@click.option("--keep", is_flag=True, help="Keep the fleet too, in DIR/fleet, to look around in.")
@json_option
@common
@click.pass_context
def demo(ctx: click.Context, *, output: Path, keep: bool, as_json: bool) -> None:
    """Show a model's whole way on this machine.

    On scikit-learn's scanned digits, as a stand-in for visual inspection on a line: trains,
    optimizes, pushes and approves two versions; delivers the first to three device processes with
    different hardware labels; sends them the images that training never saw; changes the version
    under load and goes back; reads an event for every request. Writes demo.png and demo.json.

    No account, no server; nothing is left running.
    """
    _check_extras()
    begun = time.perf_counter()
    say = Narrator(to_stderr=as_json)
    output.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        folder = _fleet_folder(output, stack, keep=keep)
        facts = _run(folder, output, say)
    facts.seconds = time.perf_counter() - begun
    (output / "demo.json").write_text(json.dumps(facts.plain(), indent=2) + "\n", encoding="utf-8")
    if as_json:
        print_json(facts.plain())
    else:
        _print_end(facts, output, say, keep=keep)
    swaps = [swap for swap in (facts.update, facts.rollback) if swap is not None]
    if any(swap.failed or not swap.same_processes for swap in swaps):
        diagnose("error: requests were dropped or a process was restarted while versions changed")
        ctx.exit(1)


def _check_extras() -> None:
    """Say what to install before anything is begun.

    Raises:
        MissingExtraError: something isn't there.
    """
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        msg = f"the demo needs {', '.join(missing)}"
        raise MissingExtraError(msg, cure="install it with: pip install 'edgefleet[demo]'")


def _fleet_folder(output: Path, stack: ExitStack, *, keep: bool) -> Path:
    """A new folder for the fleet; without ``keep`` it goes when the stack does.

    Raises:
        InvalidInputError: an earlier demo's fleet is there.
    """
    if not keep:
        folder = Path(tempfile.mkdtemp(prefix="edgefleet-demo-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder
    folder = output / "fleet"
    try:
        folder.mkdir()
    except FileExistsError as error:
        msg = f"{folder} is there already"
        raise InvalidInputError(msg, cure="remove it, or name another --output") from error
    return folder


def _run(folder: Path, output: Path, say: Narrator) -> Facts:
    from edgefleet.cli.demo import picture, steps
    from edgefleet.fleet import connect

    config = folder / "edgefleet.toml"
    config.write_text(_CONFIG, encoding="utf-8")
    script = output.absolute() / SCRIPT
    shutil.copyfile(Path(__file__).with_name(SCRIPT), script)
    say.chapter("A fleet in a folder")
    say.code("import edgefleet as ef", f'fleet = ef.connect("{PROFILE}")')
    with connect(PROFILE, config=config) as fleet:
        story = steps.Story(fleet, script, say)
        say.chapter("A model, made for the hardware it will meet")
        first = story.make(steps.SMALL)
        say.chapter("Three devices, each a process of its own")
        story.deploy_first(first)
        say.chapter("Real requests to every device")
        story.serve(first)
        say.chapter("A better version, delivered under load, and back")
        second = story.make(steps.LARGE)
        story.swap_under_load(second)
        say.chapter("What the devices recorded")
        story.read_telemetry()
    path = output / "demo.png"
    picture.draw(story, path)
    story.facts.picture = str(path)
    return story.facts


def _print_end(facts: Facts, output: Path, say: Narrator, *, keep: bool) -> None:
    from edgefleet.interfaces.tables import text_table

    say.chapter("What came of it")
    versions = [version.reference for version in facts.versions]
    columns = ("device", "target", "variant", "runs on", "p50", "p99", *versions, "fetched")
    rows = [
        (
            d.device,
            d.target,
            d.variant,
            d.execution_provider.removesuffix("ExecutionProvider"),
            f"{d.p50_ms:.2f} ms",
            f"{d.p99_ms:.2f} ms",
            *(f"{share:.1%}" for share in d.accuracy.values()),
            " + ".join(size_text(count) for count in d.bytes_fetched.values()),
        )
        for d in facts.devices
    ]
    say.table(text_table(columns, rows))
    for name, swap in (("update", facts.update), ("rollback", facts.rollback)):
        if swap is not None:
            say.table(f"{name:<9} {_swap_text(swap)}")
    if facts.telemetry is not None:
        say.table(
            f"telemetry {facts.telemetry.events} events of {facts.telemetry.requests_sent} requests"
        )
    say.table(f"picture   {facts.picture}")
    say.table(f"facts     {output / 'demo.json'}")
    if keep:
        say.table(f"fleet     cd {output / 'fleet'} && edgefleet devices up")
    say.table(f"took      {facts.seconds:.1f} s")


def _swap_text(swap: Swap) -> str:
    return (
        f"to {swap.to}: attested in {swap.attested_s:.2f} s, "
        f"{size_text(swap.bytes_fetched)} fetched, "
        f"{swap.failed} of {swap.requests} requests dropped, "
        + ("no process restarted" if swap.same_processes else "A PROCESS WAS RESTARTED")
    )
