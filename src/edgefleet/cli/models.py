"""``edgefleet model …``: versions in the profile's registry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import (
    common,
    help_without_command,
    json_option,
    label_option,
    open_fleet,
    yes_option,
)
from edgefleet.cli.output import may_go_on, print_json, print_table, when
from edgefleet.interfaces.amounts import size_text

if TYPE_CHECKING:
    from edgefleet.fleet import Fleet
    from edgefleet.interfaces.values import ModelVersion


@click.group(invoke_without_command=True)
@common
@click.pass_context
def model(ctx: click.Context) -> None:
    """Push, list, pull, approve models.

    REF is NAME, NAME:VERSION, NAME:ALIAS or NAME@DIGEST; a bare name means the newest version.
    """
    help_without_command(ctx)


@model.command()
@click.argument("name")
@click.argument("source", metavar="FILE_OR_BUNDLE", type=click.Path(path_type=Path))
@click.option("--version", help="Without it the next whole number.")
@label_option("A label of the version; any number of times.")
@click.option("--run", metavar="RUN", help="The training run that it came out of.")
@json_option
@common
def push(
    *,
    name: str,
    source: Path,
    version: str | None,
    labels: tuple[tuple[str, str], ...],
    run: str | None,
    as_json: bool,
) -> None:
    """Store a bundle, or a bare .onnx file, as a version.

    A file becomes a bundle of one variant. The same bytes again give the version that is there;
    blobs that are there already aren't sent again.
    """
    with open_fleet() as fleet:
        _print_version(
            fleet.push(source, name, version=version, labels=dict(labels), run=run), as_json=as_json
        )


@model.command("list")
@click.argument("name", required=False)
@json_option
@common
def list_versions(*, name: str | None, as_json: bool) -> None:
    """List models, or the versions of one."""
    with open_fleet() as fleet:
        if name is None:
            _print_models(fleet, as_json=as_json)
            return
        found = fleet.registry.versions(name)
        if not found:
            fleet.registry.get(name)  # raises, and lists what there is
    if as_json:
        print_json({"versions": [version.facts() for version in found]})
        return
    print_table(
        ("version", "created (UTC)", "variants", "size", "approval", "aliases"),
        [
            (
                v.reference,
                when(v.created),
                " ".join(variant.name for variant in v.variants),
                size_text(v.size_bytes),
                v.approval.state.value,
                " ".join(v.aliases) or "-",
            )
            for v in found
        ],
    )


@model.command()
@click.argument("ref")
@json_option
@common
def show(*, ref: str, as_json: bool) -> None:
    """Show a version: variants, approval, metrics, lineage."""
    with open_fleet() as fleet:
        _print_version(fleet.registry.get(ref), as_json=as_json)


@model.command()
@click.argument("ref")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--variant", help="Only this variant.")
@json_option
@common
def pull(*, ref: str, folder: Path, variant: str | None, as_json: bool) -> None:
    """Fetch a version into a new folder, checked. A killed pull goes on where it stopped."""
    from edgefleet.interfaces.progress import Bytes

    with open_fleet() as fleet:
        version = fleet.registry.get(ref)
        with Bytes(f"pulling {version}", version.size_bytes) as advance:
            bundle = fleet.registry.pull(ref, folder, variant=variant, progress=advance)
    if as_json:
        print_json({"reference": version.reference, "digest": bundle.digest, "output": str(folder)})
    else:
        click.echo(f"{version} is in {folder}")


@model.command()
@click.argument("ref")
@click.option("--reason", help="Why; kept with the version.")
@json_option
@common
def approve(*, ref: str, reason: str | None, as_json: bool) -> None:
    """Let a version go to devices."""
    from edgefleet.actor import current_actor

    with open_fleet() as fleet:
        version = fleet.registry.approve(ref, by=current_actor(), reason=reason)
    _print_version(version, as_json=as_json)


@model.command()
@click.argument("ref")
@click.option("--reason", help="Why; kept with the version.")
@json_option
@common
def reject(*, ref: str, reason: str | None, as_json: bool) -> None:
    """Keep a version from devices: a rejected version never deploys."""
    from edgefleet.actor import current_actor

    with open_fleet() as fleet:
        version = fleet.registry.reject(ref, by=current_actor(), reason=reason)
    _print_version(version, as_json=as_json)


@model.command()
@click.argument("ref")
@click.argument("name", metavar="ALIAS")
@json_option
@common
def alias(*, ref: str, name: str, as_json: bool) -> None:
    """Point an alias to a version.

    Such as production. It moves where it exists.
    """
    with open_fleet() as fleet:
        _print_version(fleet.registry.alias(ref, name), as_json=as_json)


@model.command()
@click.argument("ref")
@yes_option
@json_option
@common
def delete(*, ref: str, yes: bool, as_json: bool) -> None:
    """Delete a version's record. Its bytes stay: other versions may share them."""
    with open_fleet() as fleet:
        version = fleet.registry.get(ref)
        may_go_on(f"Delete {version}?", yes=yes)
        fleet.registry.delete(version.reference)
    if as_json:
        print_json({"deleted": version.reference})
    else:
        click.echo(f"deleted {version}")


def _print_models(fleet: Fleet, *, as_json: bool) -> None:
    newest = [fleet.registry.get(name) for name in fleet.registry.list()]
    if as_json:
        print_json({"models": [{"name": v.name, "newest": v.facts()} for v in newest]})
        return
    print_table(
        ("model", "newest", "created (UTC)", "approval"),
        [(v.name, v.version, when(v.created), v.approval.state.value) for v in newest],
        empty="no models yet; push one with: edgefleet model push NAME FILE_OR_BUNDLE",
    )


def _print_version(version: ModelVersion, *, as_json: bool) -> None:
    if as_json:
        print_json(version.facts())
        return
    approval = version.approval
    by = f" by {approval.by} at {when(approval.at)}" if approval.by else ""
    why = f": {approval.reason}" if approval.reason else ""
    click.echo(f"{version} ({version.digest[:19]}…)")
    click.echo(f"  created   {when(version.created)} UTC")
    click.echo(f"  approval  {approval.state.value}{by}{why}")
    if version.aliases:
        click.echo(f"  aliases   {', '.join(version.aliases)}")
    for variant in version.variants:
        targets = ", ".join(variant.targets) or "any"
        click.echo(f"  variant   {variant.name}: {size_text(variant.size_bytes)}, for {targets}")
    for title, table in (
        ("label", version.labels),
        ("metric", {key: f"{value:.6g}" for key, value in version.metrics.items()}),
        ("lineage", version.lineage),
    ):
        for key, value in table.items():
            click.echo(f"  {title:<9} {key} {value}")
