"""A file that was made elsewhere, as one more variant of a bundle.

The new variant has the interface and steps of the bundle's first one: it is the same model in
another form. Where its format can be opened here, that is proven: it is run on the recorded inputs,
its answers must lie near the original's, and they become its own self-test vectors. Otherwise the
device proves it before it serves, by the original's vectors and a wider tolerance, and lineage says
so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edgefleet.errors import InvalidInputError
from edgefleet.optimization import checking
from edgefleet.optimization.artifact import ONNX, Artifact, of_onnx
from edgefleet.optimization.elsewhere import ENDINGS, format_of
from edgefleet.optimization.onnx_file import inspect
from edgefleet.optimization.packaging import CHOSEN_PRECISIONS, add_artifact
from edgefleet.optimization.report import CandidateRow, OutputRow
from edgefleet.protocol.bundle import Index, variants_of
from edgefleet.protocol.layout import BundleLayout, BundleWriter
from edgefleet.protocol.names import check_name
from edgefleet.protocol.target_problems import check_variants

if TYPE_CHECKING:
    from edgefleet.optimization.checking import Checked
    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.protocol.bundle import Details, Interface

OPENVINO = "openvino"
MAX_FILES = 256  # of one variant


class Added(BundleLayout):
    """A bundle with one more variant.

    Args:
        root: its folder.
        row: what the report says of the new variant.
    """

    def __init__(self, root: Path, *, row: CandidateRow) -> None:
        super().__init__(root)
        self.row = row


def add_variant(
    bundle: BundleLayout,
    file: Path | Sequence[Path],
    to: Path,
    *,
    model: str,
    target: str,
    model_format: str | None = None,
    precision: str = "fp32",
    name: str | None = None,
    evaluate: Evaluate | None = None,
    max_accuracy_drop: float = 0.01,
    check: bool = True,
) -> Added:
    """A new bundle in the folder ``to``: the variants there are, and the file as one more.

    Args:
        bundle: what to start from; it stays as it is.
        file: what an engine opens; or several files, that one first; or a folder of them. The
            weights of an OpenVINO or ONNX file are found beside it.
        to: a folder that doesn't exist yet; it appears whole or not at all.
        model: the model's name.
        target: the hardware target that the file was made for.
        model_format: decides the engine; only devices that have one for it choose the variant.
            None for what the file's ending says.
        precision: what targets are asked for: ``fp32``, ``fp16`` or ``int8``.
        name: of the variant; None for target and format.
        evaluate: as of `optimize`; asked where the file runs here.
        max_accuracy_drop: what it may lose against the bundle's first variant.
        check: whether to open and run it where that is possible here.

    Raises:
        InvalidInputError: there is no such file, no such precision, or a variant of that name; or
            the target can never run it.
        InvalidModelError: it doesn't open here, or isn't the same model.
        AccuracyGateError: it lost more accuracy than allowed.
    """
    check_name("model", model)
    if precision not in CHOSEN_PRECISIONS:
        known = ", ".join(CHOSEN_PRECISIONS)
        raise InvalidInputError(f"no target asks for {precision}", cure=f"choose one of {known}")
    first = bundle.details(bundle.variants[0].name)
    artifact = _artifact(file, model_format, precision, first.interface)
    chosen = name or f"{target}-{artifact.format}"
    if chosen in {variant.name for variant in bundle.variants}:
        msg = f"the bundle has a variant {chosen!r}"
        raise InvalidInputError(msg, cure="give the new one another name")
    found = _checked(bundle, artifact, first, evaluate, max_accuracy_drop, check=check)
    details = msgspec.structs.replace(
        first,
        variant=chosen,
        entry=artifact.entry,
        self_test=found.self_test.vectors,
        tolerance=found.self_test.tolerance,
        metrics={} if found.scores is None else {"accuracy": found.scores.accuracy},
        lineage={**first.lineage, "added_to": bundle.digest, "checked": found.note},
    )
    with BundleWriter(to) as writer:
        for variant in bundle.variants:
            writer.adopt(bundle, variant.name)
        added = add_artifact(writer, artifact, details, name=model, targets=(target,))
        check_variants(variants_of(Index(manifests=(added,))))
        made = writer.finish()
    return Added(made.root, row=_row(artifact, found, chosen, target))


def _checked(
    bundle: BundleLayout,
    artifact: Artifact,
    first: Details,
    evaluate: Evaluate | None,
    max_drop: float,
    *,
    check: bool,
) -> Checked:
    if not check:
        return checking.unchecked(first, artifact.precision, checking.UNASKED)
    reason = checking.why_not(artifact)
    if reason:
        return checking.unchecked(first, artifact.precision, f"not checked here: {reason}")
    return checking.checked(bundle, artifact, evaluate=evaluate, max_drop=max_drop)


def _artifact(
    file: Path | Sequence[Path], model_format: str | None, precision: str, interface: Interface
) -> Artifact:
    """The files as an engine finds them, and which of them it opens."""
    files = _files(file, model_format)
    entry = next(iter(files))
    found = model_format or format_of(files[entry])
    if found == ONNX:
        whole = of_onnx(inspect(files[entry]), precision=precision)
        checking.refuse_other_callers(whole.interface, interface)
        beside = {name: path for name, path in files.items() if name != entry}
        files = {**beside, **whole.files}
        size = sum(path.stat().st_size for path in files.values())
        return replace(whole, files=files, size_bytes=size, interface=interface)
    if found == OPENVINO and len(files) == 1:
        weights = files[entry].with_suffix(".bin")
        if not weights.is_file():
            cure = f"it has the weights of {entry}: put it there"
            raise InvalidInputError(f"no file at {weights}", cure=cure)
        files[Path(entry).with_suffix(".bin").as_posix()] = weights
    return Artifact(
        format=found,
        precision=precision,
        entry=entry,
        files=files,
        size_bytes=sum(path.stat().st_size for path in files.values()),
        interface=interface,
        notes={},
    )


def _files(file: Path | Sequence[Path], model_format: str | None) -> dict[str, Path]:
    """Path in the bundle -> file, the one that an engine opens first."""
    if isinstance(file, Sequence):
        found = {path.name: path for path in file}
        if not file or len(found) < len(file):
            msg = f"{len(file)} files have {len(found)} names"
            raise InvalidInputError(msg, cure="give at least one, each with a name of its own")
    elif file.is_dir():
        found = {p.relative_to(file).as_posix(): p for p in sorted(file.rglob("*")) if p.is_file()}
        entry = _entry(list(found), file, model_format)
        found = {entry: found[entry], **found}
    else:
        found = {file.name: file}
    for path in found.values():
        if not path.is_file():
            cure = "give the file that an engine opens, or a folder of files"
            raise InvalidInputError(f"no file at {path}", cure=cure)
    if len(found) > MAX_FILES:
        raise InvalidInputError(f"{len(found)} files, a variant has at most {MAX_FILES}")
    return found


def _entry(names: list[str], folder: Path, model_format: str | None) -> str:
    """The one that an engine opens: the only file, or the only one of the first known ending."""
    top = [name for name in names if "/" not in name]
    endings = [end for end, form in ENDINGS.items() if model_format in {None, form}]
    ranked = [[name for name in top if name.lower().endswith(end)] for end in endings]
    fitting = next(filter(None, ranked), names)
    if len(fitting) == 1:
        return fitting[0]
    raise InvalidInputError(
        f"{folder} doesn't tell which file an engine opens",
        cure="give the files as a list, that one first",
    )


def _row(artifact: Artifact, found: Checked, name: str, target: str) -> CandidateRow:
    scores = found.scores
    return CandidateRow(
        variant=name,
        precision=artifact.precision,
        format=artifact.format,
        outcome="shipped",
        why=f"made elsewhere; {found.note}",
        targets=(target,),
        size_bytes=artifact.size_bytes,
        accuracy=None if scores is None else scores.accuracy,
        accuracy_drop=found.drop,
        outputs=tuple(OutputRow.of(one) for one in found.closeness),
    )
