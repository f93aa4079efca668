"""``edgefleet dataset …``: make, show, export and label datasets of what devices captured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.events import moment
from edgefleet.cli.options import common, help_without_command, json_option, open_fleet
from edgefleet.cli.output import print_json, print_table, say, when

if TYPE_CHECKING:
    from datetime import datetime

    from edgefleet.analysis.dataset import Dataset

_FOLDER = click.Path(path_type=Path, file_okay=False)
_STRATEGIES = ("all", "hard-examples", "uniform", "drifted", "rare")

folder_argument = click.argument("folder", metavar="DIR", type=_FOLDER)
input_option = click.option("--input", "name", help="The input; not needed where there is one.")
shape_option = click.option(
    "--shape", metavar="H,W", help="Shape of an image that the input holds laid flat: 8,8."
)


@click.group(invoke_without_command=True)
@common
@click.pass_context
def dataset(ctx: click.Context) -> None:
    """Make, show, export and label datasets.

    Of the samples that devices captured. DIR is a dataset's folder.
    """
    help_without_command(ctx)


@dataset.command()
@click.argument("model")
@click.option("--since", metavar="TIME", type=moment, help="1h (ago), or ISO 8601.")
@click.option("--until", metavar="TIME", type=moment, help="Likewise; not included.")
@click.option(
    "--strategy",
    type=click.Choice(_STRATEGIES),
    default="all",
    show_default=True,
    help="Which samples come first.",
)
@click.option("--max", "most", metavar="N", type=click.IntRange(1), help="At most so many.")
@click.option("--balance", is_flag=True, help="As many of each class.")
@click.option(
    "--labels",
    metavar="PATH",
    type=click.Path(path_type=Path),
    help="A dataset's folder, or a file, with labels that people gave.",
)
@click.option("--labelled", is_flag=True, help="Only samples that have a label.")
@click.option("--device", metavar="NAME", help="Only samples of this device.")
@click.option("--to", metavar="DIR", type=_FOLDER, help="Without it datasets/MODEL-NUMBER.")
@json_option
@common
def make(
    *,
    model: str,
    since: datetime | None,
    until: datetime | None,
    strategy: Any,  # noqa: ANN401 - one of the choices
    most: int | None,
    balance: bool,
    labels: Path | None,
    labelled: bool,
    device: str | None,
    to: Path | None,
    as_json: bool,
) -> None:
    """Make a dataset of a model's samples.

    Samples with the same inputs are one; the same samples are the same version. An interrupted call
    goes on where it stopped.
    """
    with open_fleet() as fleet:
        made = fleet.dataset(
            model,
            since=since,
            until=until,
            strategy=strategy,
            max=most,
            balance=balance,
            labels=labels,
            labelled=labelled,
            device=device,
            to=to,
        )
    _print(made, as_json=as_json)


@dataset.command()
@folder_argument
@json_option
@common
def show(*, folder: Path, as_json: bool) -> None:
    """Show a dataset: what it holds, and what was missing."""
    from edgefleet.analysis.dataset import Dataset

    _print(Dataset.open(folder), as_json=as_json)


def _print(found: Dataset, *, as_json: bool) -> None:
    if as_json:
        print_json(found.facts())
        return
    click.echo(f"{found.reference}  {found.manifest.digest}")
    click.echo(f"  folder   {found.path}")
    click.echo(f"  made     {when(found.manifest.made)}, {found.manifest.choice.strategy}")
    for name, count in _gaps(found).items():
        click.echo(f"  {name:<8} {count}")
    rows = [
        (name or "unknown", str(held), str(labelled)) for name, held, labelled in _counts(found)
    ]
    print_table(("class", "samples", "labelled"), rows, empty="no samples")


def _gaps(found: Dataset) -> dict[str, int]:
    held = found.manifest.found
    counts = {
        "missing": held.missing,
        "damaged": held.damaged,
        "left out": held.lost,
        "segments unreadable": held.unreadable,
    }
    return {name: count for name, count in counts.items() if count}


def _counts(found: Dataset) -> list[tuple[str, int, int]]:
    from collections import Counter

    samples = Counter(row.known_class for row in found)
    labels = Counter(row.label for row in found if row.label)
    return [(name, count, labels[name]) for name, count in sorted(samples.items())]


@dataset.command()
@folder_argument
@click.argument("to", type=click.Path(path_type=Path))
@click.option(
    "--as",
    "form",
    type=click.Choice(("images", "parquet", "label-studio")),
    required=True,
    help="PNG files in a folder a class; one Parquet file with the inputs in it; tasks for people.",
)
@input_option
@shape_option
@click.option(
    "--by",
    type=click.Choice(("known", "label", "predicted")),
    default="known",
    show_default=True,
    help="What images are sorted by; known: the label, or else what the model gave.",
)
@click.option("--address", help="What Label Studio finds a picture's file name behind.")
@json_option
@common
def export(
    *,
    folder: Path,
    to: Path,
    form: str,
    name: str | None,
    shape: str | None,
    by: Any,  # noqa: ANN401 - one of the choices
    address: str | None,
    as_json: bool,
) -> None:
    """Write a dataset in another form."""
    from edgefleet.analysis.dataset import Dataset

    found, lengths = Dataset.open(folder), _lengths(shape)
    if form == "images":
        counts = found.export_images(to, name=name, by=by, shape=lengths)
        written = sum(counts.values())
    else:
        written = len(found)
        if form == "parquet":
            found.export_parquet(to)
        else:
            found.export_label_studio(to, name=name, address=address, shape=lengths)
    if as_json:
        print_json({"to": str(to), "as": form, "samples": written})
    else:
        click.echo(f"{written} samples as {form} in {to}")


def _lengths(shape: str | None) -> tuple[int, ...] | None:
    if shape is None:
        return None
    try:
        return tuple(int(length) for length in shape.split(","))
    except ValueError as error:
        raise click.BadParameter(
            f"{shape!r} is no shape; write 8,8", param_hint="--shape"
        ) from error


@dataset.command()
@folder_argument
@click.argument("exported", metavar="FILE", type=click.Path(path_type=Path))
@click.option(
    "--prefer",
    type=click.Choice(("latest", "most")),
    default="latest",
    show_default=True,
    help="What holds where people differ.",
)
@click.option("--by", metavar="NAME", help="Who labelled; without it whom the export names.")
@json_option
@common
def label(*, folder: Path, exported: Path, prefer: Any, by: str | None, as_json: bool) -> None:  # noqa: ANN401 - one of the choices
    """Take over labels from Label Studio's export.

    As JSON, JSON_MIN or CSV. They are kept by sample in DIR/labels: make the next dataset with
    --labels DIR.
    """
    from edgefleet.analysis.dataset import Dataset

    brought = Dataset.open(folder).import_labels(exported, prefer=prefer, by=by)
    if as_json:
        print_json(brought._asdict())
        return
    click.echo(str(brought))
    for sample, labels in brought.conflicts.items():
        say(f"{sample}: {', '.join(labels)}")
