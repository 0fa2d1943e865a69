"""The stages of a mining run. Each can be started again; all but select are spread over processes. See blocks.py."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..atomic import replacing
from ..errors import ConfigError, DataError
from . import colour, overlay
from . import protected as features
from .alignment import AlignmentConfig
from .blocks import Blocks
from .choose import Choice, choose
from .dedup import Cascade, Task, Thresholds, columns_of, tasks_of
from .embedding import Embedding, embedding_settings
from .false_alarms import calibrate
from .geometry import GeometryConfig
from .keypoint_index import IndexConfig
from .keypoints import KeypointConfig
from .outputs import write_json
from .protected import Protected
from .score import load_teacher, score_blocks, score_settings
from .store import missing, parts, read_part, read_parts, write_part
from .within import Copies, find_copies
from .workspace import ALGORITHM, Workspace, digest_of, read_json

_TASK = 16  # images that one reading process takes at a time
_AT_ONCE = 64  # blocks that one set of reading processes serves, so that memory does not grow with the pool
_STAGES = ("method", "bytes", "pixels", "hash", "keypoints", "thumbnail", "embedding", "candidates")


def protect(ws: Workspace) -> Protected:
    """Make the features of the protected images, in all processes, and open the indexes over them."""
    if ws.protected is None:
        ws.say("warning: nothing is protected (--protect); copies of your validation images may stay in the pool")
        return Protected(None, None)
    if unlistable := ws.about["protected"]["unlistable"]:
        ws.say(f"warning: {len(unlistable):,} protected files or folders cannot be listed, so copies of the images in "
               f"them may stay in the pool; see quarantine.csv. The first: {unlistable[0][0]}: {unlistable[0][1]}")
    folder, config = ws.folder / "protected", ws.config
    settings, done = _protected_settings(ws), folder / "protected.json"
    if not _is_protected(ws):
        made_in, blocks = folder / f"parts-{digest_of(settings)}", Blocks(len(ws.protected))
        mine = ws.mine(sorted(set(range(len(blocks))) - features.finished(made_in, len(blocks))))
        work = features.Features(KeypointConfig(), config.max_pixels, config.min_side)
        tasks = [tasks_of(ws.names(ws.protected, blocks.range(b)), blocks.range(b).start, _TASK, features.Task)
                 for b in mine]
        with ws.clock("protect"), ws.bar("protected", blocks, mine) as bar:
            for block, arrays in ws.by_block(work, mine, tasks):
                features.write_features(made_in, block, features.joined(arrays))
                bar.update(len(blocks.range(block)))
            if ws.rank == 0:
                ws.wait(lambda: len(features.finished(made_in, len(blocks))) == len(blocks))
                done.unlink(missing_ok=True)  # until all files are those of the new settings
                unreadable = features.join(folder, made_in, len(blocks), ws.say)
                write_json(done, {"settings": settings, "unreadable": unreadable})
                shutil.rmtree(made_in, ignore_errors=True)  # what is joined is there twice
    ws.wait(lambda: _is_protected(ws))
    unreadable = read_json(done)["unreadable"]
    if len(unreadable) == len(ws.protected):
        raise DataError(f"none of the {len(ws.protected):,} protected images can be read, {unreadable[0][0]} first: "
                        f"{unreadable[0][1]}")
    if unreadable:
        ws.say(f"warning: {len(unreadable):,} protected images cannot be read, so nothing can be a copy of them; see "
               f"quarantine.csv. The first: {unreadable[0][0]}: {unreadable[0][1]}")
    return Protected(ws.protected, folder)


def open_protected(ws: Workspace) -> Protected:
    """The indexes that `protect` has made; ConfigError when they are gone."""
    if not _is_protected(ws):
        raise ConfigError(f"{ws.folder / 'protected'}: not what dedup was made with; run `mine dedup` again")
    return Protected(ws.protected, ws.folder / "protected")


def _is_protected(ws: Workspace) -> bool:
    try:
        return read_json(ws.folder / "protected" / "protected.json")["settings"] == _protected_settings(ws)
    except ConfigError:  # not there yet, or gone again: rank 0 takes an old one away before it makes the new index
        return False


def _protected_settings(ws: Workspace) -> dict[str, Any]:
    return {"algorithm": ALGORITHM, "listing": ws.about["protected"]["digest"], **_feature_settings(ws)}


def dedup(ws: Workspace) -> None:
    """Compare every pool image with the protected ones, and if asked with each other."""
    protected, config = protect(ws), ws.config
    if config.Dedup.method == "paper":
        features.check_groups(protected, ws.pool)
    embedding = Embedding(ws) if config.Dedup.embedding and ws.protected is not None else None
    thresholds = thresholds_of(ws, protected)
    settings, folder = dedup_settings(ws, thresholds), ws.folder / "dedup"
    mine = ws.mine(missing(folder, len(ws.blocks), "dedup", settings))
    ws.keep_config()
    cascade = Cascade(config.Dedup, protected, thresholds, config.max_pixels, config.min_side)
    with ws.clock("dedup"), ws.bar("dedup", ws.blocks, mine) as bar:
        for block, rows in ws.by_block(cascade, mine, _dedup_tasks(ws, embedding, mine)):
            write_part(folder, block, columns_of([row for task in rows for row in task]), "dedup", settings)
            bar.update(len(ws.blocks.range(block)))
    _wait_for_parts(ws, folder, "dedup", settings)
    if config.Dedup.within_pool:
        if ws.rank == 0:
            with ws.clock("within the pool"):
                _find_copies(ws, thresholds, settings)
        ws.wait(lambda: _copies_key(ws) == digest_of(settings))


def thresholds_of(ws: Workspace, protected: Protected | None = None) -> Thresholds:
    """Given ones, else those calibrated on the user's negatives (it takes `protected`), else the measured defaults."""
    config, file = ws.config.Dedup, ws.folder / "thresholds.json"
    cells, correlation = config.min_cells, config.min_correlation
    if config.negatives and ws.protected is not None:
        asked = [list(config.negatives), config.false_alarms, digest_of(evidence_settings(ws))]

        def is_done() -> bool:
            return file.is_file() and read_json(file)["asked"] == asked

        if not is_done():
            if protected is None:
                raise ConfigError(f"{ws.folder}: the thresholds are not calibrated yet; run `mine dedup` first")
            if ws.rank == 0:
                with ws.clock("calibrate"):
                    write_json(file, {"asked": asked, **calibrate(ws, protected)})
        ws.wait(is_done)
        found = read_json(file)
        cells, correlation = cells or found["cells"], correlation or found["correlation"]
    return Thresholds(cells or GeometryConfig().cells, correlation or AlignmentConfig().min_score, config.min_matches)


def dedup_settings(ws: Workspace, thresholds: Thresholds) -> dict[str, Any]:
    """All that the dedup parts depend on, as JSON."""
    return {"pool": ws.about["pool"]["digest"], "block_size": ws.blocks.size, **asdict(thresholds),
            **evidence_settings(ws)}


def evidence_settings(ws: Workspace) -> dict[str, Any]:
    """All that an image's evidence against the protected ones depends on, as JSON; thresholds apart."""
    config = ws.config.Dedup
    embedding = embedding_settings(ws) if config.embedding and ws.protected is not None else {}
    return {"algorithm": ALGORITHM, "protected": ws.about["protected"]["digest"],
            **{stage: getattr(config, stage) for stage in _STAGES}, **_feature_settings(ws),
            "geometry": asdict(GeometryConfig()), "agreement": overlay.LEAST, "colour": colour.LEAST,
            "alignment": asdict(AlignmentConfig()), **embedding}


def _feature_settings(ws: Workspace) -> dict[str, Any]:
    return {"max_pixels": ws.config.max_pixels, "min_side": ws.config.min_side, "extraction": asdict(KeypointConfig()),
            "index": asdict(IndexConfig())}


def _dedup_tasks(ws: Workspace, embedding: Embedding | None, blocks: Sequence[int]) -> Iterator[list[Task]]:
    """Tasks of each block, with what an embedding proposes if there is one."""
    for i in range(0, len(blocks), _AT_ONCE):
        ranges = [ws.blocks.range(block) for block in blocks[i:i + _AT_ONCE]]
        proposed = embedding.propose(ws.pool, ranges) if embedding else ((),) * len(ranges)
        for positions, near in zip(ranges, proposed):
            yield tasks_of(ws.names(ws.pool, positions), positions.start, _TASK, Task, near)


def _wait_for_parts(ws: Workspace, folder: Path, kind: str, settings: dict[str, Any]) -> None:
    """Until every block's part is there and whole."""
    ws.wait(lambda: len(parts(folder)) >= len(ws.blocks) and not missing(folder, len(ws.blocks), kind, settings))


def _find_copies(ws: Workspace, thresholds: Thresholds, settings: dict[str, Any]) -> None:
    if _copies_key(ws) == digest_of(settings):
        return
    columns = ("index", "id", "pixels", "hash", "width", "height", "status")
    copies = find_copies(read_parts(ws.folder / "dedup", range(len(ws.blocks)), "dedup", settings, columns), ws.pool,
                         thresholds.correlation, ws.config.max_pixels, ws.config.min_side, ws.all_workers,
                         ws.stop.check)
    target = ws.folder / "within.npz"
    with replacing(target) as file:
        np.savez(file, settings=digest_of(settings), **vars(copies))
    ws.say(f"within the pool: {len(copies.index):,} images are copies of another one that stays")


def _copies_key(ws: Workspace) -> str | None:
    """Digest of the settings of dedup that the copies inside the pool were found under."""
    target = ws.folder / "within.npz"
    if not target.is_file():
        return None
    with np.load(target) as arrays:
        return str(arrays["settings"])


def copies_of(ws: Workspace, settings: dict[str, Any]) -> Copies | None:
    """Images that go because of another image of the pool; None when that was not asked for. settings: of dedup."""
    if not ws.config.Dedup.within_pool:
        return None
    if _copies_key(ws) != digest_of(settings):
        raise ConfigError(f"{ws.folder}: the copies inside the pool are not found yet; run `mine dedup` with "
                          "--within-pool first")
    with np.load(ws.folder / "within.npz") as arrays:
        return Copies(arrays["index"], arrays["keeper"], arrays["stage"], arrays["score"])


def finished_dedup(ws: Workspace) -> dict[str, Any]:
    """The settings of a dedup that is complete, else ConfigError."""
    if not parts(ws.folder / "dedup"):
        raise ConfigError(f"{ws.folder}: there are no results of dedup; run `mine dedup`, or `mine` for all stages")
    settings = dedup_settings(ws, thresholds_of(ws))
    _check_complete(ws, "dedup", missing(ws.folder / "dedup", len(ws.blocks), "dedup", settings))
    return settings


def left_settings(ws: Workspace, dedup: dict[str, Any]) -> dict[str, Any]:
    """All that the score parts depend on, as JSON."""
    known = {"pool": dedup["pool"], "within_pool": ws.config.Dedup.within_pool, "block_size": dedup["block_size"],
             **{f"dedup {key}": value for key, value in dedup.items() if key not in ("pool", "block_size")}}
    return {**known, **score_settings(ws.config)}


def score(ws: Workspace) -> None:
    """Ask the teacher about every image that is left."""
    dedup_of = finished_dedup(ws)
    settings, folder = left_settings(ws, dedup_of), ws.folder / "score"
    copies = copies_of(ws, dedup_of)
    mine = ws.mine(missing(folder, len(ws.blocks), "score", settings))
    ws.keep_config()

    def left(block: int) -> tuple[np.ndarray, np.ndarray]:
        part = read_part(ws.folder / "dedup", block, "dedup", dedup_of, ("index", "id", "status"))
        stays = part["status"] == "kept"
        if copies is not None:
            stays &= ~np.isin(part["index"], copies.index)
        return part["index"][stays], part["id"][stays]

    def count(block: int) -> None:
        bar.update(len(ws.blocks.range(block)))
        ws.stop.check()

    if mine:
        with ws.clock("load the teacher"):
            teacher = load_teacher(ws.config, settings["class_num"])
        ws.say(f"teacher: {ws.config.Teacher.name}, {settings['class_num']} classes, {teacher.engine} engine "
               f"({teacher.reason})")
        with ws.clock("score"), ws.bar("score", ws.blocks, mine) as bar:
            for i in range(0, len(mine), _AT_ONCE):
                score_blocks(ws.config, ws.pool, {b: left(b) for b in mine[i:i + _AT_ONCE]}, teacher, folder, settings,
                             ws.workers, count)
    if ws.rank == 0:
        _wait_for_parts(ws, folder, "score", settings)


def select(ws: Workspace) -> tuple[Choice, dict[str, Any], dict[str, Any]]:
    """(what is chosen, settings of dedup, settings of score). For one process."""
    dedup_of = finished_dedup(ws)
    settings, folder = left_settings(ws, dedup_of), ws.folder / "score"
    _check_complete(ws, "score", missing(folder, len(ws.blocks), "score", settings))

    def score_parts(columns: Sequence[str]) -> Iterator[dict[str, Any]]:
        return read_parts(folder, range(len(ws.blocks)), "score", settings, columns)

    with ws.clock("select"):
        chosen = choose(ws.config, score_parts, settings["class_num"])
    return chosen, dedup_of, settings


def _check_complete(ws: Workspace, stage: str, lacking: Sequence[int]) -> None:
    if lacking:
        raise ConfigError(f"{ws.folder}: {stage} has not finished, {len(lacking):,} of {len(ws.blocks):,} blocks are "
                          f"missing; run `mine {stage}` with the same --output again")
