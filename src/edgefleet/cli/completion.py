"""``edgefleet completion``: the script that a shell needs to complete our commands."""

from __future__ import annotations

import click

from edgefleet.cli.options import common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
@click.pass_context
def completion(ctx: click.Context, *, shell: str) -> None:
    """Print a shell's completion script.

    \b
    bash:  eval "$(edgefleet completion bash)"
    zsh:   eval "$(edgefleet completion zsh)"
    fish:  edgefleet completion fish | source
    """  # noqa: D301 - click looks for the backspace itself
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        msg = f"no completion for {shell}"
        raise click.UsageError(msg)
    click.echo(kind(ctx.find_root().command, {}, "edgefleet", "_EDGEFLEET_COMPLETE").source())
