"""Images -> classes or attributes, by an exported network (Predictor) or by anything that gives probabilities."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import numpy as np
import yaml

from ppcls_ssld.attributes import GENERIC, NAMED, Attributes, attributes_of, label_list
from ppcls_ssld.data.pixels import pipeline, read
from ppcls_ssld.errors import ConfigError, DataError
from ppcls_ssld.inference import InferenceEngine

Image = str | os.PathLike | np.ndarray  # a file, or uint8 RGB [H, W, 3]


@dataclass(frozen=True)
class Prediction:
    """The most likely classes of one image, best first; or all its attributes, in the order of the network.

    path: its file, None for an array. scores: probabilities. labels: names of class_ids; empty when nobody gave names.
    yes: of attributes, whether each score reaches its threshold; empty for classes.
    """

    path: str | None
    class_ids: tuple[int, ...]
    scores: tuple[float, ...]
    labels: tuple[str, ...]
    yes: tuple[bool, ...] = ()


class Classifier:
    """Preprocessing, a network, top-k or the thresholds of attributes.

    forward: float32 [N, 3, H, W] -> probabilities [N, C]. transform_ops: PaddleClas's list of `{Name: arguments}`.
    attributes: when each of the C probabilities is of its own yes. labels: class names; instead of the attributes'.
    """

    def __init__(self, forward: Callable[[np.ndarray], np.ndarray], transform_ops: Sequence[Mapping[str, Any]],
                 topk: int = 5, labels: Sequence[str] = (), attributes: Attributes | None = None):
        if topk < 1:
            raise ConfigError(f"topk {topk}: expected 1 or more")
        self.topk = topk
        self.attributes = attributes
        self.labels = tuple(labels) or (attributes.names if attributes else ())
        self._forward = forward
        self._preprocess = pipeline(transform_ops)

    def predict(self, images: Iterable[Image], batch_size: int = 32) -> list[Prediction]:
        """One Prediction per image, in order. DataError at the first image that cannot be read."""
        return list(self.stream(images, batch_size))

    def stream(self, images: Iterable[Image], batch_size: int = 32,
               on_corrupt: Callable[[DataError], None] | None = None) -> Iterator[Prediction]:
        """Predictions, batch by batch. on_corrupt: is told of an unreadable image, which is then left out."""
        paths: list[str | None] = []
        batch: list[np.ndarray] = []
        for image in images:
            try:
                path, pixels = self._prepare(image)
            except DataError as e:
                if on_corrupt is None:
                    raise
                on_corrupt(e)
                continue
            # Without a crop, images keep their proportions: a new shape opens a new batch.
            if batch and (len(batch) == batch_size or pixels.shape != batch[0].shape):
                yield from self._classify(paths, np.stack(batch))
                paths, batch = [], []
            paths.append(path)
            batch.append(pixels)
        if batch:
            yield from self._classify(paths, np.stack(batch))

    def _prepare(self, image: Image) -> tuple[str | None, np.ndarray]:
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
                raise DataError(f"expected an RGB image, uint8 [H, W, 3]; found {image.dtype} {list(image.shape)}")
            return None, self._preprocess(image)
        path = os.fspath(image)
        pixels = read(path)
        try:
            return path, self._preprocess(pixels)
        except DataError as e:
            raise DataError(f"{path}: {e}") from e

    def _classify(self, paths: Sequence[str | None], images: np.ndarray) -> Iterator[Prediction]:
        probabilities = self._forward(images)
        outputs = probabilities.shape[1]
        if self.labels and len(self.labels) != outputs:
            raise ConfigError(f"{len(self.labels)} class names for a network with {outputs} classes")
        if self.attributes:
            yield from self._attributes(paths, probabilities)
            return
        if not np.allclose(probabilities.sum(axis=1), 1, atol=0.01) or probabilities.min() < 0:
            raise ConfigError("the network does not give probabilities (its rows do not sum to 1): it was exported "
                              "without softmax, or its weights are damaged; export it with tools/export_model.py")
        for path, row in zip(paths, probabilities):
            best = np.argsort(-row, kind="stable")[:self.topk]
            yield Prediction(path, tuple(best.tolist()), tuple(row[best].tolist()),
                             tuple(self.labels[i] for i in best) if self.labels else ())

    def _attributes(self, paths: Sequence[str | None], probabilities: np.ndarray) -> Iterator[Prediction]:
        outputs = probabilities.shape[1]
        if not (probabilities.min() >= 0 and probabilities.max() <= 1):  # not the other way round: NaN
            raise ConfigError("the network does not give probabilities (0 to 1): it was exported without sigmoid, or "
                              "its weights are damaged; export it with tools/export_model.py")
        self.attributes.check(outputs)
        for path, row in zip(paths, probabilities):
            yes = row >= np.asarray(self.attributes.thresholds, row.dtype)
            yield Prediction(path, tuple(range(outputs)), tuple(row.tolist()), self.labels, tuple(yes.tolist()))


class Predictor(Classifier):
    """The network of an export folder, with the preprocessing and class names of its `inference.yml`.

    Folders of PaddleClas's own export serve as well. device, threads: see InferenceEngine. topk, labels: instead of
    those in inference.yml; attributes: the same of thresholds and names, where they are not empty. Whether it tells
    one class or several attributes, inference.yml says as well.
    predict(paths or uint8 RGB arrays, batch_size) -> list of Prediction.
    """

    def __init__(self, model_dir: str | os.PathLike, device: str = "cpu", threads: int | None = None,
                 topk: int | None = None, labels: Sequence[str] | None = None, attributes: Attributes | None = None):
        own = read_inference_yml(model_dir)
        if own.attributes and topk is not None:
            raise ConfigError(f"topk {topk}: {model_dir} holds a network of attributes, each a yes or no; leave it out")
        if attributes:
            if not own.attributes:
                raise ConfigError(f"{model_dir} holds a network of classes, not of attributes; leave thresholds out")
            attributes = Attributes(attributes.thresholds or own.attributes.thresholds,
                                    attributes.names or own.attributes.names)
        super().__init__(InferenceEngine(model_dir, device, threads), own.transform_ops,
                         own.topk if topk is None else topk, own.labels if labels is None else labels,
                         attributes or own.attributes)


@dataclass(frozen=True)
class InferenceYml:
    """What a predictor is told by a file. attributes: None for a network that tells one class."""

    transform_ops: list[Mapping[str, Any]]
    topk: int
    labels: tuple[str, ...]
    attributes: Attributes | None


def read_inference_yml(model_dir: str | os.PathLike) -> InferenceYml:
    """The folder's inference.yml; ConfigError when it does not say how images are prepared, or says it wrongly.

    Of several sections of PostProcess, the one that its `main_indicator` names says what the outputs are; without one,
    those of attributes go before Topk.
    """
    path = Path(model_dir) / "inference.yml"
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
        transform_ops = list(tree["PreProcess"]["transform_ops"])
        sections = tree.get("PostProcess") or {}
        post = sections.get("Topk") or {}
        kinds = [name for name in (*NAMED, GENERIC) if name in sections]
        main = sections.get("main_indicator")
        if main in sections:
            kinds = [main] if main in kinds else []
        return InferenceYml(transform_ops, int(post.get("topk", 5)), label_list(post),
                            attributes_of(kinds[0], sections[kinds[0]] or {}) if kinds else None)
    except ConfigError as e:
        raise ConfigError(f"{path}: PostProcess: {e}") from e
    except OSError as e:
        raise ConfigError(f"{path}: cannot be read ({e.strerror}); it holds the preprocessing that belongs to the "
                          f"network and is written by tools/export_model.py") from e
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as e:
        raise ConfigError(f"{path}: expected PreProcess.transform_ops (a list) and PostProcess with Topk or a section "
                          f"of attributes ({', '.join((*NAMED, GENERIC))}); found {type(e).__name__}: {e}") from e
