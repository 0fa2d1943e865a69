"""The stages of a mining run. Each can be stopped, started again and spread over processes; see blocks.py."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from .. import parallel
from ..errors import ConfigError
from . import protected as features
from .alignment import AlignmentConfig
from .blocks import Blocks, Stoppable
from .choose import Choice, choose
from .dedup import Cascade, Task, Thresholds, columns_of, tasks_of
from .embedding import Embedding
from .false_alarms import calibrate
from .geometry import GeometryConfig
from .keypoint_index import IndexConfig
from .keypoints import KeypointConfig
from .outputs import write_json
from .overlay import LEAST
from .protected import Protected
from .score import load_teacher, score_blocks, score_settings
from .store import missing, parts, read_part, read_parts, write_part
from .within import Copies, find_copies
from .workspace import ALGORITHM, Workspace, digest_of, read_json

_TASK = 16  # images that one reading process takes at a time
_AT_ONCE = 64  # blocks scored with one set of reading processes


def protect(ws: Workspace) -> Protected:
    """Make the features of the protected images, in all processes, and open the indexes over them."""
    if ws.protected is None:
        ws.say("warning: nothing is protected (--protect); copies of your validation images may stay in the pool")
        return Protected(None, None)
    folder, config = ws.folder / "protected", ws.config
    settings = {"algorithm": ALGORITHM, "listing": ws.about["protected"]["digest"], **_feature_settings(ws)}
    done = folder / "protected.json"
    if not (done.is_file() and read_json(done)["settings"] == settings):
        made_in, blocks = folder / f"parts-{digest_of(settings)}", Blocks(len(ws.protected))
        mine = ws.mine(sorted(set(range(len(blocks))) - features.finished(made_in, len(blocks))))
        work = features.Features(KeypointConfig(), config.max_pixels, config.min_side)
        tasks = [tasks_of(ws.names(ws.protected, blocks.range(b)), blocks.range(b).start, _TASK, features.Task)
                 for b in mine]
        with ws.clock("protect"), Stoppable("protected images") as stop, ws.bar("protected", blocks, mine) as bar:
            for block, arrays in ws.by_block(work, mine, tasks):
                features.write_features(made_in, block, features.joined(arrays))
                bar.update(len(blocks.range(block)))
                stop.check()
            ws.wait(lambda: len(features.finished(made_in, len(blocks))) == len(blocks), stop)
            parallel.barrier()
            if ws.rank == 0:
                unreadable = features.join(folder, made_in, len(blocks), config.threads, ws.say)
                write_json(done, {"settings": settings, "unreadable": unreadable})
        parallel.barrier()
    unreadable = read_json(done)["unreadable"]
    if unreadable:
        ws.say(f"warning: {len(unreadable):,} protected images cannot be read, so nothing can be a copy of them; see "
               f"quarantine.csv. The first: {unreadable[0][0]}: {unreadable[0][1]}")
    return Protected(ws.protected, folder, config.threads)


def dedup(ws: Workspace) -> None:
    """Compare every pool image with the protected ones, and if asked with each other."""
    protected, config = protect(ws), ws.config
    if config.Dedup.method == "paper":
        features.check_groups(protected, ws.pool)
    thresholds = thresholds_of(ws, protected)
    settings, folder = dedup_settings(ws, thresholds), ws.folder / "dedup"
    mine = ws.mine(missing(folder, len(ws.blocks), "dedup", settings))
    ws.keep_config()
    cascade = Cascade(config.Dedup, protected, thresholds, config.max_pixels, config.min_side)
    with ws.clock("dedup"), Stoppable("dedup") as stop, ws.bar("dedup", ws.blocks, mine) as bar:
        for block, rows in ws.by_block(cascade, mine, _dedup_tasks(ws, mine)):
            write_part(folder, block, columns_of([row for task in rows for row in task]), "dedup", settings)
            bar.update(len(ws.blocks.range(block)))
            stop.check()
        ws.wait(lambda: len(parts(folder)) >= len(ws.blocks), stop)
    if config.Dedup.within_pool and ws.rank == 0:
        with ws.clock("within the pool"):
            _find_copies(ws, thresholds, settings)
    parallel.barrier()


def thresholds_of(ws: Workspace, protected: Protected | None = None) -> Thresholds:
    """Given ones, else those calibrated on the user's negatives (it takes `protected`), else the measured defaults."""
    config, file = ws.config.Dedup, ws.folder / "thresholds.json"
    cells, correlation = config.min_cells, config.min_correlation
    if config.negatives and ws.protected is not None:
        asked = [list(config.negatives), config.false_alarms, ws.about["protected"]["digest"], ALGORITHM]
        if not (file.is_file() and read_json(file)["asked"] == asked):
            if protected is None:
                raise ConfigError(f"{ws.folder}: the thresholds are not calibrated yet; run `mine dedup` first")
            parallel.barrier()  # all have seen that they are to be made
            if ws.rank == 0:
                with ws.clock("calibrate"):
                    write_json(file, {"asked": asked, **calibrate(ws, protected)})
            parallel.barrier()
        found = read_json(file)
        cells, correlation = cells or found["cells"], correlation or found["correlation"]
    return Thresholds(cells or GeometryConfig().cells, correlation or AlignmentConfig().min_score, config.min_matches)


def dedup_settings(ws: Workspace, thresholds: Thresholds) -> dict[str, Any]:
    """All that the dedup parts depend on, as JSON."""
    config = ws.config.Dedup
    stages = ("method", "bytes", "pixels", "hash", "keypoints", "thumbnail", "embedding", "embedding_weights",
              "candidates")
    return {"algorithm": ALGORITHM, "pool": ws.about["pool"]["digest"], "protected": ws.about["protected"]["digest"],
            "block_size": ws.blocks.size, **asdict(thresholds), **{stage: getattr(config, stage) for stage in stages},
            **_feature_settings(ws), "geometry": asdict(GeometryConfig()), "agreement": LEAST,
            "alignment": asdict(AlignmentConfig())}


def _feature_settings(ws: Workspace) -> dict[str, Any]:
    return {"max_pixels": ws.config.max_pixels, "min_side": ws.config.min_side, "extraction": asdict(KeypointConfig()),
            "index": asdict(IndexConfig())}


def _dedup_tasks(ws: Workspace, blocks: Sequence[int]) -> Iterator[list[Task]]:
    """Tasks of each block, with what an embedding proposes if there is one."""
    ranges = [ws.blocks.range(block) for block in blocks]
    if ws.config.Dedup.embedding and ws.protected is not None and blocks:
        proposed = Embedding(ws).propose(ws.pool, ranges)
    else:
        proposed = ((),) * len(blocks)
    for positions, near in zip(ranges, proposed):
        yield tasks_of(ws.names(ws.pool, positions), positions.start, _TASK, Task, near)


def _find_copies(ws: Workspace, thresholds: Thresholds, settings: dict[str, Any]) -> None:
    target, key = ws.folder / "within.npz", digest_of(settings)
    if target.is_file() and str(np.load(target)["settings"]) == key:
        return
    columns = ("index", "id", "pixels", "hash", "width", "height", "status")
    copies = find_copies(read_parts(ws.folder / "dedup", range(len(ws.blocks)), "dedup", settings, columns), ws.pool,
                         thresholds.correlation, ws.config.max_pixels, ws.config.min_side, ws.workers)
    new = target.with_name(f".{os.getpid()}.npz")
    np.savez(new, settings=key, **vars(copies))
    os.replace(new, target)
    ws.say(f"within the pool: {len(copies.index):,} images are copies of another one that stays")


def copies_of(ws: Workspace) -> Copies | None:
    """Images that go because of another image of the pool; None when that was not asked for."""
    if not ws.config.Dedup.within_pool:
        return None
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
    return score_settings(ws.config, digest_of({**dedup, "within_pool": ws.config.Dedup.within_pool}))


def score(ws: Workspace) -> None:
    """Ask the teacher about every image that is left."""
    dedup_of = finished_dedup(ws)
    settings, folder = left_settings(ws, dedup_of), ws.folder / "score"
    mine, copies = ws.mine(missing(folder, len(ws.blocks), "score", settings)), copies_of(ws)
    ws.keep_config()

    def left(block: int) -> tuple[np.ndarray, np.ndarray]:
        part = read_part(ws.folder / "dedup", block, "dedup", dedup_of, ("index", "id", "status"))
        stays = part["status"] == "kept"
        if copies is not None:
            stays &= ~np.isin(part["index"], copies.index)
        return part["index"][stays], part["id"][stays]

    with Stoppable("score") as stop:
        if mine:
            with ws.clock("load the teacher"):
                teacher = load_teacher(ws.config, settings["class_num"])
            ws.say(f"teacher: {ws.config.Teacher.name}, {settings['class_num']} classes, {teacher.engine} engine "
                   f"({teacher.reason})")
            with ws.clock("score"), ws.bar("score", ws.blocks, mine) as bar:
                def count(block: int) -> None:
                    bar.update(len(ws.blocks.range(block)))
                    stop.check()

                for i in range(0, len(mine), _AT_ONCE):  # so that memory does not grow with the pool
                    score_blocks(ws.config, ws.pool, {b: left(b) for b in mine[i:i + _AT_ONCE]}, teacher, folder,
                                 settings, ws.workers, count)
        ws.wait(lambda: len(parts(folder)) >= len(ws.blocks), stop)
    parallel.barrier()


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
