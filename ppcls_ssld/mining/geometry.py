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
    """When two images count as one. Lengths are pixels of the working images.

    cells: distinct cells, in both images, that must be matched; what `Match.score` is compared with.
    ratio: largest distance to the nearest descriptor over distance to the second nearest.
    similarity: smallest cosine of two matched descriptors.
    scale, shear: largest plausible change of size, and of one axis against the other, either way.
    residual: largest distance of a matched point from where the transform puts it.
    cell: side of a cell.
    spread: smallest standard deviation of the matched points across their narrowest direction.
    share: smallest share of matched cells among the keypoints where the images overlap, in the poorer of the two.
    """

    cells: int = 8
    ratio: float = 0.9
    similarity: float = 0.7
    scale: float = 6.0
    shear: float = 2.2
    residual: float = 4.0
    cell: float = 8.0
    spread: float = 6.0
    share: float = 0.1


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
    q, r = tentative(query.descriptors, reference.descriptors, config.ratio, config.similarity)
    if len(q) < config.cells:
        return None
    source, target = query.points[q].astype(np.float64), reference.points[r].astype(np.float64)
    inside, affine = _best_transform(source, target, query.sizes[q], reference.sizes[r],
                                     query.angles[q], reference.angles[r], config)
    score = min(_cells(source[inside], config.cell), _cells(target[inside], config.cell))
    if score < config.cells:
        return None
    if min(_spread(source[inside]), _spread(target[inside])) < config.spread:
        return None
    if score < config.share * _overlap(query, reference, affine, config.cell):
        return None
    sizes = np.array([query.width, query.height]), np.array([reference.width, reference.height])
    pairs = np.hstack([(source[inside] + 0.5) / sizes[0], (target[inside] + 0.5) / sizes[1]])
    return Match(float(score), _relative(affine, *sizes).astype(np.float32), False, pairs.astype(np.float32))


def tentative(query: np.ndarray, reference: np.ndarray, ratio: float,
              similarity: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices (of query, of reference) of mutual nearest neighbours that pass the ratio test in both directions.

    Descriptors are uint8 [n, 128]. Distances are those of vectors of length 1.
    """
    if min(len(query), len(reference)) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    cosine = query.astype(np.float32) @ reference.astype(np.float32).T  # whole numbers below 2^24: exact
    nearest, back = cosine.argmax(axis=1), cosine.argmax(axis=0)
    rows = np.flatnonzero((back[nearest] == np.arange(len(query)))
                          & (cosine.max(axis=1) >= similarity * DESCRIPTOR_SCALE**2))
    columns = nearest[rows]
    one = 2.0 * DESCRIPTOR_SCALE**2
    best = one - 2.0 * cosine[rows, columns].astype(np.float64)
    second = np.maximum(np.partition(cosine[rows], -2, axis=1)[:, -2],
                        np.partition(cosine[:, columns], -2, axis=0)[-2]).astype(np.float64)
    passed = best <= ratio**2 * (one - 2.0 * second)
    return rows[passed], columns[passed]


def paper_match_count(query: Keypoints, reference: Keypoints, ratio: float = 0.75) -> int:
    """What is known of SSLD's own filter (arXiv 2103.05959): SIFT matches, here those that pass Lowe's ratio test one
    way, counted without any geometry."""
    if len(query) < 1 or len(reference) < 2:
        return 0
    cosine = query.descriptors.astype(np.float32) @ reference.descriptors.astype(np.float32).T
    second, best = np.partition(cosine, (-2, -1), axis=1)[:, -2:].astype(np.float64).T
    one = DESCRIPTOR_SCALE**2
    return int(np.count_nonzero(one - best < ratio**2 * (one - second)))


def _best_transform(source: np.ndarray, target: np.ndarray, source_size: np.ndarray, target_size: np.ndarray,
                    source_angle: np.ndarray, target_angle: np.ndarray,
                    config: GeometryConfig) -> tuple[np.ndarray, np.ndarray]:
    """(indices of the pairs that agree, affine [2, 3] from source to target); no indices when nothing agrees."""
    nothing = np.zeros(0, np.int64), np.eye(2, 3)
    ratio = target_size.astype(np.float64) / source_size
    turn = np.deg2rad(target_angle.astype(np.float64) - source_angle)
    a = (ratio * np.exp(1j * turn))  # similarity of pair h: z -> a[h] z + b[h]
    z, w = source @ (1, 1j), target @ (1, 1j)
    plausible = (ratio <= config.scale) & (ratio >= 1 / config.scale)
    # Pair i agrees with the proposal of pair h when its point is near and its own similarity is alike. A proposal is
    # as exact as one keypoint's size and angle: a few per cent and degrees, so what is far from it may be off by more.
    reach = np.abs(z[None] - z[:, None])
    near = np.abs(a[:, None] * (z[None] - z[:, None]) + w[:, None] - w[None]) <= (
        config.residual + 0.15 * reach * ratio[:, None])
    alike = np.abs(np.log(a[None] / a[:, None])) <= 0.6
    agree = near & alike & plausible[:, None] & plausible[None]
    support = agree.sum(axis=1)
    best, best_affine = nothing
    for proposal in np.argsort(-support, kind="stable")[:4]:
        if support[proposal] <= max(len(best), config.cells - 1):
            break
        inside = np.flatnonzero(agree[proposal])
        for _ in range(4):
            affine = _fit(source[inside], target[inside])
            if affine is None or not _sound(affine, config):
                inside = nothing[0]
                break
            residual = np.linalg.norm(source @ affine[:, :2].T + affine[:, 2] - target, axis=1)
            limit = config.residual * max(1.0, np.sqrt(abs(np.linalg.det(affine[:, :2]))))
            grown = np.flatnonzero((residual <= limit) & (np.abs(np.log(a / a[proposal])) <= 0.8))
            if len(grown) < config.cells or np.array_equal(grown, inside):
                inside = grown
                break
            inside = grown
        if len(inside) > len(best):
            best, best_affine = inside, affine
    return best, best_affine


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


def _overlap(query: Keypoints, reference: Keypoints, affine: np.ndarray, cell: float) -> int:
    """Cells with keypoints where the two images overlap, in the image with fewer of them."""
    def seen(points: np.ndarray, to: np.ndarray, width: int, height: int) -> int:
        there = points @ to[:, :2].T + to[:, 2]
        inside = ((there >= 0) & (there <= (width - 1, height - 1))).all(axis=1)
        return _cells(points[inside], cell)

    back = np.linalg.inv(np.vstack([affine, [0, 0, 1]]))[:2]
    return min(seen(query.points, affine, reference.width, reference.height),
               seen(reference.points, back, query.width, query.height))


def _relative(affine: np.ndarray, source_size: np.ndarray, target_size: np.ndarray) -> np.ndarray:
    """The affine between pixel centres as one between images of width and height 1."""
    linear, shift = affine[:, :2], affine[:, 2] + 0.5 - affine[:, :2] @ (0.5, 0.5)
    return np.hstack([linear * source_size / target_size[:, None], (shift / target_size)[:, None]])
