"""Is one image an edit of another? Keypoints that are each other's nearest, under one plausible affine transform.

Nothing is drawn at random: every tentative pair proposes the similarity that its positions, sizes and angles imply, and
all of them are tried. The same two images always give the same answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .keypoints import DESCRIPTOR_SCALE, mirrored
from .types import Keypoints, Match


@dataclass(frozen=True)
class GeometryConfig:
    """When two images count as one. Lengths are pixels of the working images. What passes is still to be confirmed by
    its pixels (overlay.py), which lets these limits be wide enough for small and plain crops.

    cells: distinct cells, in both images, that must be matched; what `Match.score` is compared with.
    seeds: pairs that must agree on a transform before it is looked at closely.
    ratio: largest distance to the nearest descriptor over distance to the second nearest, of seeds.
    similarity: smallest cosine of two matched descriptors.
    scale, shear: largest plausible change of size, and of one axis against the other, either way.
    residual: largest distance of a matched point from where the transform puts it.
    cell: side of a cell.
    spread: smallest standard deviation of the matched points across their narrowest direction.
    share: smallest share of matched cells among those with keypoints where the images overlap, in the poorer image.
    coverage: smallest share of 4 x 4 blocks of the overlap with a match, of those with two keypoints in both images.
    """

    cells: int = 6
    seeds: int = 4
    ratio: float = 0.9
    similarity: float = 0.88
    scale: float = 6.0
    shear: float = 3.0
    residual: float = 3.5
    cell: float = 7.0
    spread: float = 3.0
    share: float = 0.12
    coverage: float = 0.3


def verify(query: Keypoints, reference: Keypoints, config: GeometryConfig = GeometryConfig(),
           mirror: bool | None = None) -> Match | None:
    """The better match of the query and of its mirror image with the reference; None with fewer than `config.cells`.

    Match.score is the number of distinct cells; query is the pool's image, reference the protected one.
    mirror: True or False tries only the mirror image or only the image, when a vote has told which it is.
    """
    direct = None if mirror is True else verify_oriented(query, reference, config)
    turned = None if mirror is False else verify_oriented(mirrored(query), reference, config)
    if turned is None or (direct is not None and direct.score >= turned.score):
        return direct
    pairs = turned.pairs.copy()
    pairs[:, 0] = 1 - pairs[:, 0]
    transform = turned.transform.copy()  # of u' = 1 - u
    transform[:, 2] += transform[:, 0]
    transform[:, 0] *= -1
    return Match(turned.score, transform, True, pairs)


def verify_oriented(query: Keypoints, reference: Keypoints, config: GeometryConfig = GeometryConfig()) -> Match | None:
    """`verify` without the mirror."""
    if min(len(query), len(reference)) < max(2, config.cells):
        return None
    distances = _squared_distances(query.descriptors, reference.descriptors)
    q, r = _nearest(distances, config.ratio, config.similarity)
    if len(q) < config.seeds:
        return None
    affine = _best_transform(query, reference, q, r, config)
    if affine is None:
        return None
    q, r = _guided(query, reference, distances, affine, config)
    source, target = query.points[q].astype(np.float64), reference.points[r].astype(np.float64)
    score = min(_cells(source, config.cell), _cells(target, config.cell))
    if score < config.cells or min(_spread(source), _spread(target)) < config.spread:
        return None
    affine = _fit(source, target)
    if affine is None or not _sound(affine, config):
        return None
    cells, coverage = _agreement(query, reference, q, r, affine, config.cell)
    if score < config.share * cells or coverage < config.coverage:
        return None
    sizes = np.array([query.width, query.height]), np.array([reference.width, reference.height])
    pairs = np.hstack([(source + 0.5) / sizes[0], (target + 0.5) / sizes[1]])
    return Match(float(score), _relative(affine, *sizes).astype(np.float32), False, pairs.astype(np.float32))


def tentative(query: np.ndarray, reference: np.ndarray, ratio: float,
              similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices (of query, of reference) of mutual nearest neighbours that pass the ratio test in both directions.

    Descriptors are uint8 [n, 128]; similarity: smallest cosine.
    """
    if min(len(query), len(reference)) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return _nearest(_squared_distances(query, reference), ratio, similarity)


def _squared_distances(query: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """float32 [n, m], exact: whole numbers below 2^24."""
    a, b = query.astype(np.float32), reference.astype(np.float32)
    return np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b) - 2 * (a @ b.T)


def _nearest(distances: np.ndarray, ratio: float, similarity: float) -> tuple[np.ndarray, np.ndarray]:
    nearest, back = distances.argmin(axis=1), distances.argmin(axis=0)
    rows = np.flatnonzero(back[nearest] == np.arange(len(nearest)))
    best = distances[rows, nearest[rows]]
    close = best <= 2 * (1 - similarity) * DESCRIPTOR_SCALE**2
    rows, best = rows[close], best[close]
    columns = nearest[rows]
    second = np.minimum(np.partition(distances[rows], 1, axis=1)[:, 1],
                        np.partition(distances[:, columns], 1, axis=0)[1])
    passed = best < ratio**2 * second
    return rows[passed], columns[passed]


def paper_match_count(query: Keypoints, reference: Keypoints, ratio: float = 0.75) -> int:
    """What is known of SSLD's own filter (arXiv 2103.05959): SIFT matches, here those that pass Lowe's ratio test one
    way, counted without any geometry."""
    if len(query) < 1 or len(reference) < 2:
        return 0
    best, second = np.partition(_squared_distances(query.descriptors, reference.descriptors), 1, axis=1)[:, :2].T
    return int(np.count_nonzero(best < ratio**2 * second))


def _best_transform(query: Keypoints, reference: Keypoints, q: np.ndarray, r: np.ndarray,
                    config: GeometryConfig) -> np.ndarray | None:
    """Affine [2, 3] that most pairs (q, r) agree on; None when fewer than `config.seeds` do."""
    source, target = query.points[q].astype(np.float64), reference.points[r].astype(np.float64)
    ratio = reference.sizes[r].astype(np.float64) / query.sizes[q]
    turn = np.deg2rad(reference.angles[r].astype(np.float64) - query.angles[q])
    a = ratio * np.exp(1j * turn)  # pair h proposes z -> w[h] + a[h] (z - z[h])
    z, w = source @ (1, 1j), target @ (1, 1j)
    plausible = (ratio <= config.scale) & (ratio >= 1 / config.scale)
    # Pair i agrees with the proposal of pair h when its point is near and its own similarity is alike. A proposal is
    # as exact as one keypoint's size and angle: a few per cent and degrees, so what is far from it may be off by more.
    offset = z[None] - z[:, None]
    near = np.abs(a[:, None] * offset + w[:, None] - w[None]) <= (
        config.residual + 0.15 * np.abs(offset) * ratio[:, None])
    size, angle = np.log(ratio), turn
    alike = (size[None] - size[:, None])**2 + _wrapped(angle[None] - angle[:, None])**2 <= 0.6**2
    agree = near & alike & plausible[:, None] & plausible[None]
    support = agree.sum(axis=1)
    best, most = None, config.seeds - 1
    for proposal in np.argsort(-support, kind="stable")[:4]:
        if support[proposal] <= most:
            break
        inside = np.flatnonzero(agree[proposal])
        affine = None
        for _ in range(4):
            fitted = _fit(source[inside], target[inside])
            if fitted is None or not _sound(fitted, config):
                break
            affine = fitted
            grown = np.flatnonzero((_residual(source, target, affine) <= _limit(affine, config))
                                   & ((size - size[proposal])**2 + _wrapped(angle - angle[proposal])**2 <= 0.8**2))
            if len(grown) < config.seeds or np.array_equal(grown, inside):
                inside = grown
                break
            inside = grown
        if affine is not None and len(inside) > most:
            best, most = affine, len(inside)
    return best


def _guided(query: Keypoints, reference: Keypoints, distances: np.ndarray, affine: np.ndarray,
            config: GeometryConfig) -> tuple[np.ndarray, np.ndarray]:
    """Indices (of query, of reference) of the keypoints that are each other's nearest among those where the transform
    puts them, at about the size and angle it gives them. No ratio test: what looks alike elsewhere does not matter."""
    linear = affine[:, :2]
    there = query.points.astype(np.float64) @ linear.T + affine[:, 2]
    here = reference.points.astype(np.float64)
    apart = (there[:, :1] - here[:, 0])**2 + (there[:, 1:] - here[:, 1])**2
    turned = _directions(query.angles) @ linear.T
    turned /= np.linalg.norm(turned, axis=1, keepdims=True)
    size = np.log(query.sizes.astype(np.float64)) + 0.5 * np.log(np.linalg.det(linear))
    possible = apart <= _limit(affine, config)**2
    possible &= turned @ _directions(reference.angles).T >= 0.8
    possible &= np.abs(size[:, None] - np.log(reference.sizes.astype(np.float64))) <= 0.6
    possible &= distances <= 2 * (1 - config.similarity) * DESCRIPTOR_SCALE**2
    allowed = np.where(possible, distances, np.inf)
    nearest, back = allowed.argmin(axis=1), allowed.argmin(axis=0)
    q = np.flatnonzero((back[nearest] == np.arange(len(nearest))) & possible.any(axis=1))
    return q, nearest[q]


def _directions(angles: np.ndarray) -> np.ndarray:
    turns = np.deg2rad(angles.astype(np.float64))
    return np.stack([np.cos(turns), np.sin(turns)], axis=1)


def _wrapped(turn: np.ndarray) -> np.ndarray:
    """Radians in [-pi, pi]."""
    return turn - 2 * np.pi * np.rint(turn / (2 * np.pi))


def _residual(source: np.ndarray, target: np.ndarray, affine: np.ndarray) -> np.ndarray:
    return np.linalg.norm(source @ affine[:, :2].T + affine[:, 2] - target, axis=1)


def _limit(affine: np.ndarray, config: GeometryConfig) -> float:
    """Largest residual in the reference's pixels; larger where the query's pixels are."""
    return config.residual * max(1.0, float(np.sqrt(np.linalg.det(affine[:, :2]))))


def _fit(source: np.ndarray, target: np.ndarray) -> np.ndarray | None:
    """Least-squares affine [2, 3]; None when the points lie on a line."""
    if len(source) < 3:
        return None
    centre, goal = source.mean(axis=0), target.mean(axis=0)
    x, y = source - centre, target - goal
    moments = x.T @ x
    if np.linalg.det(moments) <= 1e-6 * np.trace(moments)**2:
        return None
    linear = np.linalg.solve(moments, x.T @ y).T
    return np.hstack([linear, (goal - linear @ centre)[:, None]])


def _sound(affine: np.ndarray, config: GeometryConfig) -> bool:
    """True when neither axis is scaled beyond reason, one not much more than the other, and nothing is mirrored."""
    large, small = np.linalg.svd(affine[:, :2], compute_uv=False)
    return bool(np.linalg.det(affine[:, :2]) > 0 and large <= config.scale and small >= 1 / config.scale
                and large <= config.shear * small)


def _cells(points: np.ndarray, cell: float) -> int:
    """Number of distinct square cells that hold a point."""
    return len(np.unique(np.floor(points / cell) @ (1, 4096)))


def _spread(points: np.ndarray) -> float:
    """Standard deviation across the narrowest direction, pixels."""
    return float(np.sqrt(max(np.linalg.eigvalsh(np.cov(points.T))[0], 0.0)))


def _agreement(query: Keypoints, reference: Keypoints, q: np.ndarray, r: np.ndarray, affine: np.ndarray,
               cell: float) -> tuple[int, float]:
    """(cells with keypoints in the overlap, of the image with fewer; share of the overlap's blocks with a match).

    Two photographs with the same caption agree in the caption alone; what else there is in the overlap then speaks
    against them. Only blocks of which both images have two keypoints are counted.
    """
    linear = np.linalg.inv(affine[:, :2])
    back = (reference.points - affine[:, 2]) @ linear.T  # the reference's points in the query
    there = query.points @ affine[:, :2].T + affine[:, 2]
    seen = ((there >= 0) & (there <= (reference.width - 1, reference.height - 1))).all(axis=1)
    shown = ((back >= 0) & (back <= (query.width - 1, query.height - 1))).all(axis=1)
    seen[q] = shown[r] = True
    points = query.points[seen], back[shown]
    low = np.minimum(points[0].min(axis=0), points[1].min(axis=0))
    high = np.maximum(points[0].max(axis=0), points[1].max(axis=0))

    def blocks(p: np.ndarray) -> np.ndarray:
        return np.bincount(np.clip((p - low) / (high - low) * 4, 0, 3).astype(np.int64) @ (1, 4), minlength=16)

    counted = np.minimum(blocks(points[0]), blocks(points[1])) >= 2
    matched = (blocks(query.points[q]) > 0) & counted
    cells = min(_cells(points[0], cell), _cells(reference.points[shown], cell))
    return cells, matched.sum() / max(1, counted.sum())


def _relative(affine: np.ndarray, source_size: np.ndarray, target_size: np.ndarray) -> np.ndarray:
    """The affine between pixel centres as one between images of width and height 1."""
    linear, shift = affine[:, :2], affine[:, 2] + 0.5 - affine[:, :2] @ (0.5, 0.5)
    return np.hstack([linear * source_size / target_size[:, None], (shift / target_size)[:, None]])
