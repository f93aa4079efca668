"""``edgefleet optimize``: from an ONNX file to a bundle, data and evaluation from files."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option
from edgefleet.cli.output import print_json
from edgefleet.errors import InvalidInputError

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "--target",
    "targets",
    multiple=True,
    required=True,
    help="A hardware target, such as x86-cpu; any number of times. See: edgefleet targets",
)
@click.option(
    "--calibration",
    type=click.Path(path_type=Path),
    help="Samples along the first axis: .npy for a model with one input, .npz with arrays by name.",
)
@click.option(
    "--evaluate",
    metavar="MODULE:FUNCTION",
    help="Called with predict for each candidate, returns its accuracy. PATH.py:FUNCTION too.",
)
@click.option(
    "--max-accuracy-drop",
    type=float,
    default=0.01,
    show_default=True,
    help="Accuracy that a candidate may lose, in the unit of what --evaluate gives.",
)
@click.option("--name", help="The model's name in the bundle.")
@click.option("--class", "labels", multiple=True, help="Name of a class; in the classes' order.")
@click.option("--seed", type=int, default=0, show_default=True, help="Chooses self-test vectors.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the bundle; it must not exist yet.",
)
@json_option
@common
def optimize(
    *,
    model: Path,
    targets: tuple[str, ...],
    calibration: Path | None,
    evaluate: str | None,
    max_accuracy_drop: float,
    name: str | None,
    labels: tuple[str, ...],
    seed: int,
    output: Path,
    as_json: bool,
) -> None:
    """Make a bundle for hardware targets.

    The model as given is always in it. Reduced precisions join it where they pass the accuracy
    gate: with --calibration and --evaluate, and only for targets that run them better.
    """
    import edgefleet

    bundle = edgefleet.optimize(
        model,
        targets=targets,
        calibration=None if calibration is None else _arrays(calibration),
        evaluate=None if evaluate is None else load_function(evaluate),
        max_accuracy_drop=max_accuracy_drop,
        name=name,
        labels=labels,
        seed=seed,
        output=output,
    )
    if as_json:
        print_json(
            {
                "output": str(output),
                "digest": bundle.digest,
                "variants": [
                    {
                        "name": v.name,
                        "precision": v.precision,
                        "targets": [*v.targets],
                        "bytes": v.bytes,
                    }
                    for v in bundle.variants
                ],
                "report": bundle.report.to_dict(),
            }
        )
        return
    click.echo(f"{bundle.report}\n\nwrote {output} ({bundle.digest[:19]}…)")


def _arrays(path: Path) -> Any:  # noqa: ANN401 - an array, or arrays by name
    """Calibration data of a file; never unpickles.

    Raises:
        InvalidInputError: it can't be read.
    """
    from edgefleet.optimization.libraries import require

    require("numpy")
    import numpy as np

    try:
        found = np.load(path, allow_pickle=False)
        return found if isinstance(found, np.ndarray) else {name: found[name] for name in found}
    except FileNotFoundError as error:
        msg = f"no calibration data at {path}"
        raise InvalidInputError(msg, cure="give an .npy or .npz file") from error
    except (ValueError, EOFError, OSError) as error:
        msg = f"{path} holds no plain arrays: {error}"
        raise InvalidInputError(msg, cure="write it with numpy.save or numpy.savez") from error


def load_function(reference: str) -> Callable[..., Any]:
    """A function by ``module:name`` (the current folder is searched) or ``path.py:name``.

    Raises:
        InvalidInputError: there is none; what its module raises while it is imported goes through.
    """
    home, colon, name = reference.rpartition(":")
    if not colon or not home or not name.isidentifier():
        msg = f"{reference!r} names no function"
        raise InvalidInputError(msg, cure="write MODULE:FUNCTION or PATH.py:FUNCTION")
    path = Path(home)
    folder, module_name = (path.parent, path.stem) if home.endswith(".py") else (Path(), home)
    if home.endswith(".py") and not path.is_file():
        msg = f"no file {home}"
        raise InvalidInputError(msg, cure="give the path of a Python file")
    sys.path.insert(0, str(folder.absolute()))
    try:
        module = import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name != module_name.split(".", maxsplit=1)[0] and error.name != module_name:
            raise
        msg = f"no module {module_name!r} in this folder or this environment"
        raise InvalidInputError(msg, cure="give its path instead: PATH.py:FUNCTION") from error
    function = getattr(module, name, None)
    if not callable(function):
        msg = f"{home} has no function {name!r}"
        raise InvalidInputError(msg, cure="check the name behind the colon")
    found: Callable[..., Any] = function
    return found
