"""`Bundle`: a bundle that was just made, with the report of how, as the user holds it."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.interfaces.amounts import size_text
from edgefleet.interfaces.tables import html_table
from edgefleet.protocol.layout import BundleLayout

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgefleet.optimization.evaluation import Evaluate
    from edgefleet.optimization.report import OptimizationReport

_COLUMNS = ("variant", "format", "size", "targets")


class Bundle(BundleLayout):
    """A bundle in a folder, with the report of the `optimize` call that made it.

    Args:
        root: folder of the bundle.
        report: what was tried and why it was shipped or not.
        temporary: a folder that is removed, with the bundle in it, when this object is no longer
            used or the interpreter ends; None where the caller named the folder and keeps it.
    """

    def __init__(
        self, root: Path | str, *, report: OptimizationReport, temporary: Path | None = None
    ) -> None:
        super().__init__(root)
        self.report = report
        if temporary is not None:
            weakref.finalize(self, shutil.rmtree, temporary, ignore_errors=True)

    def add_variant(
        self,
        file: Path | str | Sequence[Path | str],
        *,
        target: str,
        model_format: str | None = None,
        precision: str = "fp32",
        name: str | None = None,
        evaluate: Evaluate | None = None,
        max_accuracy_drop: float | None = None,
        check: bool = True,
    ) -> Bundle:
        """A new bundle with a file that was made elsewhere as one more variant; this one stays.

        See `edgefleet.optimization.adding.add_variant`. ``max_accuracy_drop`` is the report's
        unless given.
        """
        from edgefleet.optimization.adding import add_variant

        allowed = self.report.max_accuracy_drop if max_accuracy_drop is None else max_accuracy_drop
        files = Path(file) if isinstance(file, str | Path) else tuple(Path(part) for part in file)
        folder = Path(tempfile.mkdtemp(prefix="edgefleet-bundle-"))
        try:
            made = add_variant(
                self,
                files,
                folder / "bundle",
                model=self.report.model,
                target=target,
                model_format=model_format,
                precision=precision,
                name=name,
                evaluate=evaluate,
                max_accuracy_drop=allowed,
                check=check,
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Bundle(made.root, report=self.report.with_row(made.row), temporary=folder)

    def __repr__(self) -> str:
        about = "; ".join(
            f"{variant.name} {size_text(variant.bytes)} for {', '.join(variant.targets) or 'any'}"
            for variant in self.variants
        )
        return f"<bundle {self.digest[7:19]} of {self.report.model}: {about}>"

    def _repr_html_(self) -> str:
        rows = [
            (v.name, v.format, size_text(v.bytes), ", ".join(v.targets) or "any")
            for v in self.variants
        ]
        caption = f"bundle {self.digest[7:19]} of {self.report.model}"
        return html_table(_COLUMNS, rows, caption=caption) + self.report._repr_html_()
