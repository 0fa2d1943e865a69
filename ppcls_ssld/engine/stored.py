"""A teacher's stored answers in the place of the teacher."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import targets
from ..config.schema import RunConfig
from ..data import ImageList
from ..data.files import Archives, read_bytes
from ..errors import DataError
from ..loss import CombinedLoss, SoftTargets
from ..structs import Batch
from ..targets.header import teacher_of

_IMAGES = 64  # compared byte for byte when training starts


@dataclass(frozen=True)
class StoredTeacher:
    """What is stored of the frozen network `role`; the reader brings it with each batch."""

    role: str
    store: targets.TargetStore

    def answer(self, batch: Batch) -> SoftTargets:
        return SoftTargets.on_device(batch.targets, self.store.tail, self.store.temperature)

    def check(self, config: RunConfig, loss: CombinedLoss, lists: Sequence[ImageList]) -> list[str]:
        """Sentences for the log. lists: of DataLoader.Train.

        ConfigError where the losses need more than a soft answer, or the store is another run's. DataError where images
        have the names but not the bytes of those that the targets were written for; a few, spread evenly, are read.
        """
        expected = targets.expect(config, loss.soft_target_temperature(self.role), lists)
        notices = targets.check(self.store.header, expected, str(self.store.folder))
        self._check_images(lists)
        return notices

    def _check_images(self, lists: Sequence[ImageList]) -> None:
        starts = np.cumsum([0, *map(len, lists)])
        with Archives() as archives:
            for sample in np.unique(np.linspace(0, starts[-1] - 1, _IMAGES).round().astype(int)).tolist():
                source = int(np.searchsorted(starts, sample, side="right")) - 1
                path, known = lists[source].path(sample - int(starts[source])), self.store.image_checksum(sample)
                try:
                    same = not known or zlib.crc32(read_bytes(path, archives)) == known
                except DataError:
                    continue  # that is the reader's business, which knows on_corrupt
                if not same:
                    raise DataError(f"{path}: is not the image that {self.store.folder} was written for, only its name "
                                    "is; correct the root folders of DataLoader.Train, restore the image, or write "
                                    "the targets again")

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
