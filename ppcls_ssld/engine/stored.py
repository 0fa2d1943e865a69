"""A teacher's stored answers in the place of the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import targets
from ..config.schema import RunConfig
from ..data import ImageList
from ..loss import CombinedLoss, SoftTargets
from ..structs import Batch
from ..targets.header import teacher_of


@dataclass(frozen=True)
class StoredTeacher:
    """What is stored of the frozen network `role`; the reader brings it with each batch. bn_modes: the teacher's."""

    role: str
    store: targets.TargetStore

    def answer(self, batch: Batch) -> SoftTargets:
        return SoftTargets.on_device(batch.targets, self.store.tail, self.store.temperature)

    def check(self, config: RunConfig, loss: CombinedLoss, lists: Sequence[ImageList]) -> list[str]:
        """Sentences for the log. ConfigError where the losses need more than a soft answer, or the store is another's."""
        expected = targets.expect(config, loss.soft_target_temperature(self.role), lists)
        return targets.check(self.store.header, expected, str(self.store.folder))

    def describe(self) -> str:
        """The line about the teacher in the log."""
        names = ", ".join(f"{t['name']} (bn_mode {t['bn_mode']})" for t in self.store.header["teacher"])
        return f"{self.role}: not loaded; its answers come from {self.store.describe()}, by {names}"

    def row(self) -> dict:
        """What a result says about the targets it was made with."""
        store = self.store
        return {"folder": str(store.folder), "digest": store.digest, "views": store.views, "k": store.k,
                "tail": store.tail, "bn_mode": sorted({t["bn_mode"] for t in store.header["teacher"]})}


def open_stored(config: RunConfig) -> StoredTeacher | None:
    """The targets that Global.targets names; None when it names none. ConfigError when they are not complete."""
    if not config.Global.targets:
        return None
    return StoredTeacher(teacher_of(config).role, targets.TargetStore(config.Global.targets))
