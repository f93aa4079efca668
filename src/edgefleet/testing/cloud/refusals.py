"""What a mock cloud says where it can't start, or is asked before it has."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edgefleet.errors import ConfigurationError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def made_of_extra(vendor: str, distribution: str) -> Iterator[None]:
    """A context for imports of what a mock is made of.

    Args:
        vendor: the mock's, for people.
        distribution: whose extra ``mock`` has it.

    Raises:
        MissingExtraError: something isn't installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"the mock of {vendor} needs {error.name}, which isn't installed",
            cure=f"pip install '{distribution}[mock]'",
        ) from error


def not_running(vendor: str) -> ConfigurationError:
    """What is raised where a mock isn't running."""
    return ConfigurationError(f"the mock of {vendor} isn't running", cure="start it first")
