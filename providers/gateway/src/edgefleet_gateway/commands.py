"""``edgefleet gateway``: run the service that devices pull from."""

# ruff: noqa: PLC0415 - the help needs none of what serving needs

from __future__ import annotations

import gc
import ipaddress
import resource
import socket
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgefleet.cli.options import common, help_without_command, profile
from edgefleet_gateway.fleet_folder import profile_of_folder
from edgefleet_gateway.rotation import rotate

if TYPE_CHECKING:
    from edgefleet.profile import Profile
    from edgefleet_gateway.server.running import Serving

SPARE_FILES = 600  # beside connections: blobs that are sent, parts that come, stores, outboxes
FULL_COLLECTIONS = 1000  # collections of middle age from one full collection to the next
EVERYWHERE = "0.0.0.0"  # noqa: S104 - only with --public
_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


def _networks(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    for one in given:
        try:
            ipaddress.ip_network(one)
        except ValueError as error:
            raise click.BadParameter(f"{error}; name one such as 10.0.0.0/8") from error
    return given


@click.group(invoke_without_command=True)
@common
@click.pass_context
def gateway(ctx: click.Context) -> None:
    """Run the service that plain Linux devices pull from."""
    help_without_command(ctx)


gateway.add_command(rotate)


@gateway.command()
@click.option(
    "--root",
    metavar="DIR",
    type=_FOLDER,
    help="Keep a whole fleet in this folder; begins with an edgefleet.toml for its operators.",
)
@click.option("--host", help="Address to listen at; without it 127.0.0.1, with --public all.")
@click.option("--port", type=click.IntRange(0, 65535), default=8443, show_default=True)
@click.option("--public", is_flag=True, help="Listen where other machines can connect.")
@click.option(
    "--scratch",
    metavar="DIR",
    type=_FOLDER,
    help="Folder for what devices are still sending; each gateway has its own.",
)
@click.option(
    "--audit-log", metavar="FILE", type=click.Path(path_type=Path), help="Write who did what."
)
@click.option(
    "--runtime",
    "archives",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    help="Archive that devices which join install, by edgefleet runtime build; one a platform.",
)
@click.option("--tls-cert", metavar="FILE", type=_FILE, help="Serve with this certificate, PEM.")
@click.option("--tls-key", metavar="FILE", type=_FILE, help="And with its key.")
@click.option(
    "--observers",
    metavar="CIDR",
    multiple=True,
    callback=_networks,
    help="Network that may read /metrics and /health; without it this machine alone.",
)
@common
def serve(
    *,
    root: Path | None,
    host: str | None,
    port: int,
    public: bool,
    scratch: Path | None,
    audit_log: Path | None,
    archives: tuple[Path, ...],
    tls_cert: Path | None,
    tls_key: Path | None,
    observers: tuple[str, ...],
) -> None:
    """Serve devices until Ctrl-C.

    Several gateways may stand before one fleet: give each the same profile and a copy of the
    authority's folder. What a device sends to one, the others know.
    """
    if (tls_cert is None) != (tls_key is None):
        raise click.UsageError("--tls-cert and --tls-key go together")
    if root is not None and profile() is not None:
        raise click.UsageError("--root goes without --profile")
    host = host or (EVERYWHERE if public else "127.0.0.1")
    if not public and not _is_loopback(host):
        raise click.UsageError(f"{host} can be reached from other machines: say --public, too")
    _check_installed()
    from edgefleet.services import Services
    from edgefleet_gateway.server.assembly import (
        assemble,
        give_runtime,
        given_certificate,
        own_certificate,
        settings_in,
    )
    from edgefleet_gateway.server.running import LOOPBACK, Options, Serving
    from edgefleet_gateway.server.scratch import sole
    from edgefleet_gateway.server.wire import Limits
    from edgefleet_gateway.sinks.running import Forwarding

    chosen = _profile(root, port, public=public)
    sinks = settings_in(chosen).sinks
    scratch = (scratch or chosen.base / ".edgefleet" / "gateway").absolute()
    with (
        sole(scratch),
        closing(Services(chosen)) as services,
        closing(Forwarding(sinks, scratch, base=chosen.base)) as forwards,
    ):
        parts = assemble(services, forwards=forwards)
        material = (
            own_certificate(parts, host)
            if tls_cert is None or tls_key is None
            else given_certificate(parts, tls_cert, tls_key)
        )
        options = Options(
            host=host,
            port=port,
            scratch=scratch,
            audit_log=audit_log,
            observers=observers or LOOPBACK,
            limits=Limits(connections=allow_connections(Limits().connections)),
        )
        if archives:
            offer = give_runtime(parts, archives)
            click.echo(f"devices that join install the runtime {offer.runtime}", err=True)
        serving = Serving(parts.backends, parts.settings, material, options)
        _teach(chosen, serving, parts.settings.addresses, root)
        _collect_rarely()
        serving.run()


def _profile(root: Path | None, port: int, *, public: bool) -> Profile:
    from edgefleet.profile import FILE_NAME, load_profile

    if root is None:
        return load_profile(profile())
    config = root.absolute() / FILE_NAME
    if not config.exists():
        config.parent.mkdir(parents=True, exist_ok=True)
        address = f"https://{socket.getfqdn() if public else 'localhost'}:{port or 8443}"
        config.write_text(profile_of_folder(address), encoding="utf-8")
        click.echo(f"wrote {config}", err=True)
    return load_profile(config=config)


def _teach(
    chosen: Profile, serving: Serving, addresses: tuple[str, ...], root: Path | None
) -> None:
    """Say where it listens, and what to do next."""
    from edgefleet.profile import CONFIG_VARIABLE, FILE_NAME

    command = "edgefleet device enroll cam-1 --group line-1"
    if root is not None:
        command = f"{CONFIG_VARIABLE}='{root.absolute() / FILE_NAME}' {command}"
    elif profile() is not None:
        command += f" --profile {chosen.name}"
    for line in (
        f"listening at {serving.address}",
        f"devices reach it at {', '.join(addresses)}, as the profile's `addresses` say",
        f"health and figures: {serving.address}/health and /metrics",
        f"enrol the first device, in another terminal: {command}",
        "end it with Ctrl-C",
    ):
        click.echo(line, err=True)


def allow_connections(most: int) -> int:
    """Let the process open as many files as the system allows; how many connections that is.

    Some are kept for stores, blobs and outboxes, which must be opened while devices are waiting.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return most if hard == resource.RLIM_INFINITY else max(1, min(most, hard - SPARE_FILES))


def _collect_rarely() -> None:
    """Have the garbage collector look through everything rarely, and never through what stands now.

    A full collection stops the event loop for as long as there are connections to look through,
    and a gateway makes next to no garbage that goes in circles.
    """
    gc.collect()
    gc.freeze()
    young, middle, _ = gc.get_threshold()
    gc.set_threshold(young, middle, FULL_COLLECTIONS)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_installed() -> None:
    from importlib.util import find_spec

    from edgefleet.errors import MissingExtraError

    lacking = [
        name
        for name in ("uvicorn", "starlette", "httptools", "uvloop", "prometheus_client")
        if find_spec(name) is None
    ]
    if lacking:
        raise MissingExtraError(
            f"serving needs {', '.join(lacking)}",
            cure="install it with: pip install 'edgefleet-gateway[serve]'",
        )
