"""A registry whose versions are shown in a vendor's model registry, too, for people to look at.

Rules kept here:

- A version's record is a document, created if absent: of two pushers one wins, whatever else fails.
- What shows it follows its record: it is made after it, and where it is missing, when the version
  is pushed again or changed.
- Approval counts wherever it was given. A decision made here stands in the record; what shows it
  says which decision that was, so that one that a person made over there is told from ours, and
  holds.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from edgefleet.errors import AlreadyExistsError
from edgefleet.interfaces.document_registry import DocumentRegistry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from edgefleet.interfaces.values import Approval, ModelVersion


class ShownRegistry(DocumentRegistry):
    """Versions as documents, each shown by something in a vendor's registry."""

    # Records first, what shows them after

    def _create(self, record: ModelVersion) -> None:
        try:
            super()._create(record)
        except AlreadyExistsError:
            there = super()._get(record.name, record.version)
            if there is not None and there.digest == record.digest and not self._shown_of(there):
                self._show(there)  # a push that ended before it did
            raise
        self._show(record)

    def _update(
        self, name: str, version: str, change: Callable[[ModelVersion], ModelVersion]
    ) -> ModelVersion:
        def on_what_holds(record: ModelVersion) -> ModelVersion:
            return change(self._with_decision(record, self._shown_of(record)))

        changed = super()._update(name, version, on_what_holds)
        while True:
            self._show(changed)
            now = super()._get(name, version)
            if now is None or now == changed:  # else somebody changed it meanwhile: show that
                return changed
            changed = now

    def _delete(self, name: str, version: str) -> None:
        record = super()._get(name, version)
        if record is not None:
            self._hide(record)
        super()._delete(name, version)

    # Reading: the record, and what a person decided over there

    def _get(self, name: str, version: str) -> ModelVersion | None:
        record = super()._get(name, version)
        return None if record is None else self._with_decision(record, self._shown_of(record))

    def _versions(self, name: str) -> Iterator[ModelVersion]:
        records = list(super()._versions(name))
        shown = self._shown(name) if records else {}
        for record in records:
            yield self._with_decision(record, shown.get(record.version))

    def _with_decision(self, record: ModelVersion, shown: Any | None) -> ModelVersion:  # noqa: ANN401
        approval = None if shown is None else self._decided(record, shown)
        return record if approval is None else record.model_copy(update={"approval": approval})

    def _shown_of(self, record: ModelVersion) -> Any | None:  # noqa: ANN401 - the vendor's
        """What shows a record; None for nothing yet."""
        return self._shown(record.name).get(record.version)

    @abstractmethod
    def _shown(self, name: str) -> Mapping[str, Any]:
        """Version -> what shows it, of all versions of a model."""

    @abstractmethod
    def _decided(self, record: ModelVersion, shown: Any) -> Approval | None:  # noqa: ANN401
        """What a person decided over there; None where that is our own decision, or none."""

    @abstractmethod
    def _show(self, record: ModelVersion) -> None:
        """Have something tell what the record says, made now where there is nothing."""

    @abstractmethod
    def _hide(self, record: ModelVersion) -> None:
        """Take away what shows a record; no error where there is nothing."""
