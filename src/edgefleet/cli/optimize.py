"""``edgefleet optimize``: from an ONNX file to a bundle, data and evaluation from files."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgefleet.cli.options import common, json_option, open_fleet, profile
from edgefleet.cli.output import print_json
from edgefleet.errors import InvalidInputError
from edgefleet.optimization.functions import load_function

if TYPE_CHECKING:
    from edgefleet.protocol.hardware_target import HardwareTarget


@click.command()
@click.argument("model")
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
@click.option(
    "--min-class-accuracy",
    "floors",
    multiple=True,
    metavar="[CLASS=]X",
    help="Floor of every class's accuracy, or of one; --evaluate then tells classes.",
)
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="NAME",
    help="What to try instead of what the targets would take: int8, fp16, int8* for all that "
    "begin so, all for everything; any number of times.",
)
@click.option(
    "--thorough",
    is_flag=True,
    help="Try what seldom pays, too: pruning, dynamic int8, signed activations.",
)
@click.option(
    "--exclude",
    multiple=True,
    metavar="NODE",
    help="Name of a node that stays in floats, or op:TYPE for all of a type.",
)
@click.option(
    "--device",
    metavar="NAME",
    help="A device of one of the targets, to test and time on what passes the gate.",
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
@click.option(
    "--cache",
    "cache_folder",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep what was made and judged there rather than in your own cache folder.",
)
@click.option("--no-cache", is_flag=True, help="Keep nothing, and judge everything anew.")
@json_option
@common
def optimize(
    *,
    model: str,
    targets: tuple[str, ...],
    calibration: Path | None,
    evaluate: str | None,
    max_accuracy_drop: float,
    floors: tuple[str, ...],
    candidates: tuple[str, ...],
    thorough: bool,
    exclude: tuple[str, ...],
    device: str | None,
    name: str | None,
    labels: tuple[str, ...],
    seed: int,
    output: Path,
    cache_folder: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Make a bundle for hardware targets.

    MODEL is an ONNX file, or MODULE:FUNCTION or PATH.py:FUNCTION that gives a fitted estimator.

    The model as given is always in it. Reduced precisions join it where they pass the accuracy
    gate: with --calibration and --evaluate, and only for targets that run them better.

    \b
    cat > judge.py <<EOF
    import numpy as np
    from edgefleet import classification
    data = np.load("digits.npz")
    rate = classification(data["images"], data["labels"])
    EOF
    edgefleet optimize net.onnx -o net --target x86-cpu --calibration x.npy --evaluate judge.py:rate

    What was interrupted goes on where it was: candidates that were judged on the same data are
    not judged again. Accuracies are kept for data that is loaded outside of the function, as above.
    """  # noqa: D301 - click looks for the backspace itself
    if no_cache and cache_folder is not None:
        msg = "--cache and --no-cache exclude each other"
        raise click.UsageError(msg)
    import edgefleet

    with ExitStack() as held:
        bundle = edgefleet.optimize(
            _model(model),
            targets=_targets(targets),
            calibration=None if calibration is None else _arrays(calibration),
            evaluate=None if evaluate is None else load_function(evaluate),
            max_accuracy_drop=max_accuracy_drop,
            min_class_accuracy=_floors(floors),
            candidates=candidates or None,
            thorough=thorough,
            exclude=exclude,
            device=None if device is None else held.enter_context(open_fleet()).device(device),
            name=name,
            labels=labels,
            seed=seed,
            output=output,
            cache=cache_folder or not no_cache,
        )
    if as_json:
        print_json(
            {
                "output": str(output),
                "digest": bundle.digest,
                "variants": [
                    {
                        "name": v.name,
                        "format": v.format,
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


def _model(given: str) -> Any:  # noqa: ANN401 - a path, or an estimator of any library
    """A path, or what the function that is named gives."""
    if Path(given).exists() or ":" not in given:
        return Path(given)
    return load_function(given)()


def _targets(names: tuple[str, ...]) -> tuple[HardwareTarget, ...]:
    """Targets by name: the built-in ones and those that the profile's plugins add."""
    from edgefleet.plugins import discovery
    from edgefleet.profile import load_profile
    from edgefleet.protocol.target import find_target

    known = discovery.usable_targets(load_profile(profile()).listeners())
    return tuple(find_target(name, known) for name in names)


def _floors(texts: tuple[str, ...]) -> float | dict[str, float] | None:
    """A floor for every class, or floors by class.

    Raises:
        InvalidInputError: one is no number, or both kinds are mixed.
    """
    found: dict[str, float] = {}
    for text in texts:
        name, _, number = text.rpartition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            msg = f"--min-class-accuracy {text!r} is no number"
            raise InvalidInputError(msg, cure="write 0.8, or cat=0.8") from error
    if "" in found and len(texts) > 1:
        msg = "--min-class-accuracy is given for every class and more than once"
        raise InvalidInputError(msg, cure="write it once, or CLASS=X for each class")
    return found.get("", found or None)


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
