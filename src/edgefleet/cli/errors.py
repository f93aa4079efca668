"""What a failure looks like on the command line: one line, its cure, a documented exit code."""

from __future__ import annotations

import errno
import traceback

import click

from edgefleet import errors as e
from edgefleet.cli.options import is_verbose

FAILURE = 1
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
UNAVAILABLE = 5
DEPLOYMENT_FAILED = 6
LOOP_WAITS = 7
LOOP_HELD = 8
INTERRUPTED = 130  # 128 + SIGINT, as shells say it
BROKEN_PIPE = 141  # 128 + SIGPIPE
TERMINATED = 143  # 128 + SIGTERM

EXIT_CODES = {
    0: "done",
    FAILURE: "failure",
    USAGE: "the command line is wrong",
    NOT_FOUND: "a model, version, group, device, run or provider isn't there",
    REFUSED: "refused: a conflict, a policy, or no permission",
    UNAVAILABLE: "a service or device can't be reached, or waiting took too long",
    DEPLOYMENT_FAILED: "devices rejected the release",
    LOOP_WAITS: "a loop waits for something outside: run it again later",
    LOOP_HELD: "another process works at the loop",
    INTERRUPTED: "interrupted",
    BROKEN_PIPE: "the reader of the output went away",
    TERMINATED: "terminated",
}
"""Every code that the command line exits with; ``edgefleet mock`` gives its command's own."""

# The first that fits counts.
_CODES: tuple[tuple[type[Exception], int], ...] = (
    (e.NotFoundError, NOT_FOUND),
    (e.ProviderNotFoundError, NOT_FOUND),
    (e.LoopHeldError, LOOP_HELD),
    (e.ConflictError, REFUSED),
    (e.PolicyError, REFUSED),
    (PermissionError, REFUSED),  # of a service, which is AccessDeniedError, or of a file
    (e.UnavailableError, UNAVAILABLE),
    (e.WaitTimeoutError, UNAVAILABLE),
    (e.DeploymentFailedError, DEPLOYMENT_FAILED),
)


class Terminated(KeyboardInterrupt):
    """SIGTERM came: whatever cleans up after Ctrl-C does so now."""


def exit_codes_text() -> str:
    """The table, a line a code."""
    return "\n".join(f"{code:>5}  {meaning}" for code, meaning in EXIT_CODES.items())


def exit_code(error: BaseException) -> int:
    """The exit code of a failure."""
    if isinstance(error, click.UsageError):
        return USAGE
    if isinstance(error, KeyboardInterrupt | click.Abort):
        cause = error.__cause__ if isinstance(error, click.Abort) else error
        return TERMINATED if isinstance(cause, Terminated) else INTERRUPTED
    return next((code for kind, code in _CODES if isinstance(error, kind)), FAILURE)


def report(error: BaseException) -> int:
    """Print a failure to standard error, with ``--verbose`` its traceback, and return its code."""
    if is_verbose():
        click.echo("".join(traceback.format_exception(error)), err=True, nl=False)
    click.echo(_text(error), err=True)
    return exit_code(error)


def _text(error: BaseException) -> str:
    if isinstance(error, click.UsageError):
        where = "" if error.ctx is None else f"{error.ctx.get_usage()}\n"
        path = "edgefleet" if error.ctx is None else error.ctx.command_path
        return f"{where}error: {error.format_message()}\n  cure: {path} --help"
    if isinstance(error, click.ClickException):
        return f"error: {error.format_message()}"
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return "interrupted" if exit_code(error) == INTERRUPTED else "terminated"
    if isinstance(error, e.EdgeFleetError):
        return f"error: {error}"
    notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
    if isinstance(error, OSError):
        return _of_the_system(error) + notes
    return (
        f"error: {type(error).__name__}: {error}{notes}\n"
        "  cure: this is a defect; run it again with --verbose and report what it prints"
    )


# By the number of the system's error, what to do about the file that it names.
_CURES = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "give this user the right to it, or name another place",
    ),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free space there and repeat the command"),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP),
        "look at how the path is written",
    ),
}


def _of_the_system(error: OSError) -> str:
    """What the system says of a file, without its numbers."""
    named = [str(one) for one in (error.filename, error.filename2) if one is not None]
    if not named or error.strerror is None:
        return f"error: {error}"
    cure = _CURES.get(error.errno or 0)
    told = f"error: {' -> '.join(named)}: {error.strerror}"
    return told if cure is None else f"{told}\n  cure: {cure}"
