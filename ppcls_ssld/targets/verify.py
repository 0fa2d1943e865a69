"""Is a store whole, and does the teacher still say what is stored?"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..atomic import write_atomic
from ..config.schema import RunConfig
from ..data import ViewReader
from ..data.files import Archives, read_bytes
from ..errors import ConfigError, DataError
from ..rng import Stream, generator
from .answers import largest_step, log_softmax
from .header import HEADER, check, expect, read_header
from .parts import is_intact, part_path
from .store import TargetStore
from .write import Views, load_teacher, prepare

TOLERANCE = 0.01  # of a probability, beside what the stored bits lose: engines, devices, libraries round differently


@dataclass(frozen=True)
class Verified:
    """What was found. largest, mean: absolute errors of stored probabilities, over views and kept classes; log_largest:
    largest error of a log-probability above 1e-3. agree: share of views whose likeliest class is the teacher's.
    allowed: for `largest`. replaced: images whose encoded bytes are not those of then.
    """

    parts: int
    views: int
    largest: float
    mean: float
    log_largest: float
    agree: float
    allowed: float
    replaced: tuple[str, ...]


def verify_parts(store: TargetStore) -> None:
    """Read every byte. DataError names the part files that do not have their checksum."""
    damaged = []
    for part in range(store.parts):
        if not is_intact(store.part(part)):
            damaged.append(str(part_path(store.folder, part)))
    if damaged:
        raise DataError(f"{len(damaged):,} of {store.parts:,} parts are damaged: {', '.join(damaged[:10])}"
                        f"{', ...' if len(damaged) > 10 else ''}; delete them and run `ppcls-ssld targets write` "
                        "again, which makes them anew")


def verify_targets(folder: str, config: RunConfig, temperature: float, samples: int = 256, tolerance: float = TOLERANCE,
                   accept: bool = False, say: Callable[[str], None] = print) -> Verified:
    """Checksums of all parts; then `samples` random views are shown to the teacher again, replayed from the store.

    accept: take the transforms as they are now, if the answers agree: their hash goes to the header's `accepted`.
    Errors: ConfigError (made for another run), DataError (damaged, replaced images, answers beyond the tolerance).
    """
    if samples < 1 or not 0 <= tolerance < math.inf:
        raise ConfigError(f"expected --samples from 1 and --tolerance from 0, found {samples} and {tolerance:g}")
    prepare(config)
    store = TargetStore(folder)
    verify_parts(store)
    say(f"{store.parts:,} parts have their checksums")
    expected = expect(config, temperature)
    compared = {key: value for key, value in expected.items() if not (accept and key == "code")}
    for notice in check(store.header, compared, folder):
        say(notice)
    found = _recompute(config, store, samples, tolerance)
    say(f"{found.views:,} views again: probabilities differ by {found.largest:.2g} at most ({found.allowed:.2g} is "
        f"allowed) and {found.mean:.2g} on average, log-probabilities above {np.log(1e-3):.1f} by "
        f"{found.log_largest:.2g}; the likeliest class agrees in {found.agree:.1%}")
    if found.replaced:
        raise DataError(f"{len(found.replaced):,} images are not those that the targets were made from, "
                        f"{found.replaced[0]} first; restore them, or write the targets again")
    if found.largest > found.allowed:
        raise DataError(f"{folder}: the teacher's answers differ from the stored ones by {found.largest:.2g}, allowed "
                        f"are {found.allowed:.2g} (--tolerance {tolerance:g} and what {store.answers.bits} bits lose); "
                        "is it the same teacher, and are transforms and libraries those of then? Else write "
                        "the targets again")
    if accept and expected["code"] is not None:
        _accept(Path(folder), expected["code"])
    return found


def _recompute(config: RunConfig, store: TargetStore, samples: int, tolerance: float) -> Verified:
    teacher, _ = load_teacher(config)
    reader = ViewReader(config.DataLoader.Train, config.Arch.class_num, store.header["seed"], stored=store,
                        multilabel=config.Global.use_multilabel)
    rows, views, counts = _sample(store, samples)
    probabilities, logs, agree, replaced = [], [], [], []
    with Archives() as archives:
        for places, ids, batch, logits in Views(config, store, reader, teacher).answered(rows, views):
            kept = counts[places]
            log_probs, stored = log_softmax(logits, store.temperature)[kept], batch.targets.log_probs[kept]
            wanted = np.take_along_axis(log_probs, batch.targets.classes[kept].astype(np.int64), 1)
            probabilities.append(np.abs(np.exp(stored) - np.exp(wanted)))
            logs.append(np.where(wanted > np.log(1e-3), np.abs(stored - wanted), 0.0).ravel())
            # The likeliest of a tie is a matter of rounding.
            agree.append(wanted[:, 0] >= log_probs.max(1) - 1e-4)
            for sample in dict.fromkeys(ids.tolist()):
                if zlib.crc32(read_bytes(reader.name(sample), archives)) != store.image_checksum(sample):
                    replaced.append(reader.name(sample))
    if not probabilities:
        raise DataError(f"{store.folder}: none of the views asked for can be read; is the root folder right?")
    errors = np.concatenate(probabilities)
    return Verified(store.parts, len(errors), float(errors.max()), float(errors.mean()),
                    float(np.concatenate(logs).max()), float(np.concatenate(agree).mean()),
                    tolerance + largest_step(store.answers.bits, 1.0),
                    tuple(dict.fromkeys(replaced)))


def _sample(store: TargetStore, samples: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(rows, views, which of them to compare): single views, or whole batches where the answers depend on the batch."""
    rng = generator(store.header["seed"], samples, 0, Stream.VERIFY)
    if store.header["rows"]["order"] == "sample_id":
        count = store.samples * store.views
        addresses = np.sort(rng.choice(count, min(samples, count), replace=False))
        return addresses // store.views, addresses % store.views, np.ones(len(addresses), bool)
    size = store.header["batch_size"]
    batches = []
    for _ in range(-(-samples // size)):
        plan = store.rows.plan(int(rng.integers(store.parts)), size)
        start = size * int(rng.integers(len(plan[0]) // size))
        batches.append([column[start:start + size] for column in plan])
    return tuple(map(np.concatenate, zip(*batches)))


def _accept(folder: Path, code: str) -> None:
    header = read_header(folder)
    accepted = list(dict.fromkeys([*header.get("accepted", []), code]))
    text = json.dumps({**header, "accepted": accepted}, indent=1, ensure_ascii=False) + "\n"
    write_atomic(folder / HEADER, text.encode())
