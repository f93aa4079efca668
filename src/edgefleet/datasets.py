"""Datasets of a fleet: made from its telemetry, numbered in its state store."""

from __future__ import annotations

import shutil
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edgefleet.actor import current_actor
from edgefleet.errors import AlreadyExistsError, ConflictError, InvalidInputError
from edgefleet.interfaces.progress import Status
from edgefleet.lineage import Lineage
from edgefleet.origins import FleetOrigins
from edgefleet.protocol.files import translate_full
from edgefleet.protocol.names import check_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from edgefleet.analysis.dataset import Dataset
    from edgefleet.analysis.dataset_records import Choice, Manifest, Strategy
    from edgefleet.groups import GroupEditor
    from edgefleet.services import Services

FOLDER = Path("datasets")


class Datasets:
    """The part of a fleet that turns what devices captured into data to train on."""

    _services: Services
    _groups: GroupEditor

    @property
    def lineage(self) -> Lineage:
        """From an answer back to the data, and from a sample on to the devices."""
        return Lineage(self._services, self._groups)

    def dataset(
        self,
        model: str,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        strategy: Strategy = "all",
        max: int | None = None,  # noqa: A002 - what it is called where it is asked for
        balance: bool = False,
        labels: Path | str | None = None,
        labelled: bool = False,
        device: str | None = None,
        to: Path | str | None = None,
        numbered: bool = True,
        progress: bool = True,
    ) -> Dataset:
        """A versioned dataset of the samples that devices captured of a model, in a folder here.

        Samples with the same inputs are one. The same samples make the same digest, which keeps its
        number. A call that is interrupted leaves what it fetched, and called again it goes on from
        there; but in a folder that holds another dataset it leaves nothing. One that holds the same
        dataset is given back.

        Args:
            model: its name.
            since: not before this time, time zone required.
            until: before this time.
            strategy: ``all``, the newest first; ``uniform``, by chance; ``hard-examples``, those
                that the model was least sure of, without ``max`` those below 0.6; ``drifted``,
                those of windows whose sketches a device found moved; ``rare``, those of the classes
                with fewest samples, without ``max`` of classes with less than half an even share.
            max: most samples; the first of the strategy's order.
            balance: as many of each class (the label, or else what the model gave) as of the
                smallest; with ``max``, one of each in turn.
            labels: a dataset's folder or a file of labels, as `Dataset.import_labels` writes it.
            labelled: only samples that have a label; strategy, balance and ``max`` go by these.
            device: only samples of this one.
            to: the folder; None for ``datasets/MODEL-NUMBER`` here.
            numbered: have the fleet remember it as a version. A fleet remembers so many of a
                model's: what nothing is trained on needn't be among them.
            progress: show it where a person looks.

        Raises:
            NotFoundError: no sample fits, or there are no such labels.
            AlreadyExistsError: the folder holds another dataset, or other things.
            ConflictError: without ``to``, another process makes one of this model here.
            StorageFullError: no room; what was fetched stays.
            MissingExtraError: pyarrow isn't installed.
        """
        from edgefleet.analysis.dataset import Dataset  # noqa: PLC0415 - the extra `analysis`
        from edgefleet.analysis.dataset_making import Maker  # noqa: PLC0415
        from edgefleet.analysis.labelling import given_labels  # noqa: PLC0415

        check_name("model", model)
        choice = _checked(
            strategy, since=since, until=until, most=max, balance=balance, labelled=labelled
        )
        held = {} if labels is None else given_labels(labels, model)

        def make(where: Path) -> Dataset:
            with Status(f"dataset of {model}", enabled=progress) as line:
                Maker(
                    self._services.telemetry,
                    FleetOrigins(self._services, self._groups),
                    model=model,
                    choice=choice,
                    labels=held,
                    device=device,
                    tell=line.update,
                ).make(where, lambda made: self._number(where, made) if numbered else None)
            return Dataset.open(where)

        return _in_its_own(model, make) if to is None else make(Path(to))

    def _number(self, folder: Path, manifest: Manifest) -> int:
        """Keep a version's table where everybody finds it, then give the version its number."""
        from edgefleet.analysis.dataset_versions import remember  # noqa: PLC0415

        state, blobs = self._services.state, self._services.registry.blobs
        return remember(state, blobs, folder, manifest, by=current_actor()).number


def _checked(
    strategy: Strategy,
    *,
    since: datetime | None,
    until: datetime | None,
    most: int | None,
    balance: bool,
    labelled: bool,
) -> Choice:
    from edgefleet.analysis.dataset_records import STRATEGIES, Choice  # noqa: PLC0415

    if strategy not in STRATEGIES:
        cure = f"use one of {', '.join(STRATEGIES)}"
        raise InvalidInputError(f"no strategy {strategy!r}", cure=cure)
    if most is not None and most < 1:
        raise InvalidInputError(f"max is at least 1, not {most}")
    return Choice(
        strategy=strategy, since=since, until=until, max=most, balance=balance, labelled=labelled
    )


def _in_its_own(model: str, make: Callable[[Path], Dataset]) -> Dataset:
    """A dataset in a folder that has its number, made beside it by one process at a time.

    What an interrupted call left is gone on from: its files stay, but it is no dataset yet, even
    where nothing was missing but the name.
    """
    from edgefleet.analysis.dataset_records import MANIFEST  # noqa: PLC0415

    where = FOLDER / f".{model}.partial"
    with _alone(where):
        (where / MANIFEST).unlink(missing_ok=True)
        made = make(where)
        final = FOLDER / made.reference.replace(":", "-")
        if final.exists():
            return _same(made.open(final), made)
        where.rename(final)
        return made.open(final)


@contextmanager
def _alone(where: Path) -> Iterator[None]:
    """Nobody else works in a folder meanwhile.

    Raises:
        ConflictError: somebody does.
    """
    from filelock import FileLock, Timeout  # noqa: PLC0415 - only where something is made

    lock = where.with_name(where.name + ".lock")
    with translate_full(where):
        where.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(lock, timeout=0):
            try:
                yield
            finally:
                with suppress(OSError):  # Windows lets nobody remove it while it is held
                    lock.unlink()
    except Timeout as error:
        msg = f"another process makes a dataset in {where}"
        raise ConflictError(msg, cure="let it, and call again; or name a folder") from error
    finally:
        with suppress(OSError):  # it holds something
            where.parent.rmdir()


def _same(there: Dataset, made: Dataset) -> Dataset:
    """What is there already, in place of what was made, if it is the same."""
    if there.manifest.digest != made.manifest.digest:
        msg = f"{there.path} holds another dataset, {there.manifest.digest}"
        raise AlreadyExistsError(msg, cure="give another folder with to=…")
    shutil.rmtree(made.path)
    return there
