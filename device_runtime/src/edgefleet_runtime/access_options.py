"""The options that say who may use an address, the same for every command that serves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse

_NAMES = (
    "allow_remote",
    "token_file",
    "tls_cert",
    "tls_key",
    "tls_client_ca",
    "open_health",
    "open_metrics",
    "allow_hosts",
)


def add_access(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    options = parser.add_argument_group("who may use the addresses of --http and --grpc")
    options.add_argument(
        "--allow-remote",
        action="store_true",
        help="allow addresses that other machines reach; needs --token-file or --tls-client-ca",
    )
    options.add_argument(
        "--token-file",
        type=Path,
        metavar="FILE",
        help="let in only who sends 'Authorization: Bearer TOKEN'; a file that others can't read",
    )
    options.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve under TLS: PEM chain")
    options.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM, no password")
    options.add_argument(
        "--tls-client-ca",
        type=Path,
        metavar="FILE",
        help="let in only who has a certificate of these authorities, PEM",
    )
    options.add_argument(
        "--open-health",
        action="store_true",
        help="answer /v2/health/…, ServerLive and ServerReady without the token",
    )
    options.add_argument(
        "--open-metrics",
        action="store_true",
        help="answer /metrics without the token, for scrapers that have none",
    )
    options.add_argument(
        "--allow-host",
        action="append",
        dest="allow_hosts",
        metavar="NAME",
        help="serve without token and certificate whoever asks by this name as well, such as a "
        "proxy on this machine that passes on by which name it was asked; others than names "
        "without a dot, addresses and this machine's own are refused there, for they may be a web "
        "page's; may be given several times",
    )


def access_settings(arguments: argparse.Namespace) -> dict[str, object]:
    """What was given, as `edgefleet_runtime.serve.access.Access` names it."""
    return {name: value for name in _NAMES if (value := getattr(arguments, name))}
