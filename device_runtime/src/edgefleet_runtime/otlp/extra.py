"""The option ``--otlp``, and the export that it asks for, or the extra that it comes with."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from edgefleet.errors import InvalidInputError, MissingExtraError

if TYPE_CHECKING:
    import argparse

    from edgefleet_runtime.otlp.export import OtlpExport

BY_ENVIRONMENT = ""
"""Stands for the endpoint that OpenTelemetry's variables name."""


def add_otlp(parser: argparse.ArgumentParser) -> None:
    """Declare the option."""
    parser.add_argument(
        "--otlp",
        nargs="?",
        const=BY_ENVIRONMENT,
        metavar="URL",
        help="send metrics and traces to an OpenTelemetry collector over OTLP/HTTP, such as "
        "http://127.0.0.1:4318; without URL to where OTEL_EXPORTER_OTLP_… say; needs the extra "
        "[otlp]",
    )


def otlp_export(url: str, *, instance: str | None = None) -> OtlpExport:
    """The export, not started.

    Args:
        url: the collector's address, or `BY_ENVIRONMENT`.
        instance: tells this runtime from others: the device's name.

    Raises:
        InvalidInputError: that is no address.
        MissingExtraError: OpenTelemetry's libraries are not installed.
    """
    if url != BY_ENVIRONMENT:
        try:
            parts = urlsplit(url)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            valid = False
        if not valid:
            raise InvalidInputError(
                f"not the address of a collector: {url[:200]!r}",
                cure="write http://HOST:PORT, usually with port 4318",
            )
    try:
        from edgefleet_runtime.otlp.export import OtlpExport  # noqa: PLC0415 - the extra
    except ImportError as error:
        raise MissingExtraError(
            f"--otlp needs what isn't installed here: {error}",
            cure="pip install 'edgefleet-runtime[otlp]'",
        ) from error
    return OtlpExport(url or None, instance=instance)
