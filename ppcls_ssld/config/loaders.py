"""DataLoader.Train and DataLoader.Eval in their two forms -> LoaderConfig.

PaddleClas  {dataset: {name: ImageNetDataset, cls_label_path: ..., transform_ops: [...]}, sampler: {...}, loader: {...}}
ours        {sources: [{name: ..., list: ...}, {name: ..., folder: ..., labelled: false}], transform_ops: [...], ...}

With several labels an image (multilabel: Global.use_multilabel) lists are PaddleClas's MultiLabelDataset's.
"""

from __future__ import annotations

import math
from typing import Any

from ..registry import nearest
from .check import Section, fail
from .paddleclas import DATASETS
from .schema import DataConfig, LoaderConfig, SourceConfig

_CLASS_DATASETS = ("ImageNetDataset", "ClsDataset")  # the second is PaddleX's name of the first
_MULTILABEL_DATASET = "MultiLabelDataset"
_SAMPLERS = ("DistributedBatchSampler", "BatchSampler")


def read_data(section: Section, multilabel: bool = False) -> DataConfig:
    loaders = {}
    for mode in ("Train", "Eval"):
        if section.has(mode):
            part = section.section(mode, "DataLoader.*")
            loaders[mode] = _read_loader(part, mode, multilabel)
    section.done()
    lists = {mode: {source.list for source in loader.sources if source.list} for mode, loader in loaders.items()}
    for shared in sorted(lists.get("Train", set()) & lists.get("Eval", set())):
        section.notices.append(f"DataLoader.Eval has the list of DataLoader.Train, {shared}: accuracy, and with it the "
                               "choice of the best model, is of images that were trained on")
    return DataConfig(**loaders)


def _read_loader(part: Section, mode: str, multilabel: bool) -> LoaderConfig:
    if part.has("dataset"):
        values = _paddleclas_form(part, mode, multilabel)
    else:
        values = {"sources": _sources(part, multilabel), **part.fields(LoaderConfig, *_all_but_sources())}
    part.done()
    loader = LoaderConfig(**values)
    _check_sources(part, loader, mode)
    if mode == "Train" and not loader.shuffle:
        part.notices.append(f"{part.path}: shuffle is false, images come in the order of their lists")
    return loader


def _paddleclas_form(part: Section, mode: str, multilabel: bool) -> dict[str, Any]:
    if part.has("sources"):
        fail(part.at("sources"), "beside `dataset`; keep one of them (several lists: `sources`)")
    dataset, sampler, loader = part.section("dataset", "dataset"), part.section("sampler"), part.section("loader")
    name = dataset.value("name", str, _MULTILABEL_DATASET if multilabel else _CLASS_DATASETS[0])
    if name not in (*_CLASS_DATASETS, _MULTILABEL_DATASET):
        reason = DATASETS.get(name)
        fail(dataset.at("name"), f"'{name}' cannot be read here: {reason}" if reason else
             f"no dataset '{name}'{nearest(name, (_CLASS_DATASETS[0], _MULTILABEL_DATASET, *DATASETS))}")
    if (name == _MULTILABEL_DATASET) != multilabel:
        fail(dataset.at("name"), f"'{name}', but Global.use_multilabel is {str(multilabel).lower()}; make them agree")
    if multilabel:
        dataset.value("label_ratio", bool)  # the shares of yes are counted where a loss asks for them (weight_ratio)
    sampler_name = sampler.value("name", str, _SAMPLERS[0])
    if sampler_name not in _SAMPLERS:
        fail(sampler.at("name"), f"expected one of {', '.join(_SAMPLERS)}, found '{sampler_name}': every image of a "
                                 "batch is drawn alike and has one size; several lists with set shares: `sources`")
    source = SourceConfig(mode.lower(), list=dataset.required("cls_label_path", str),
                          root=dataset.value("image_root", str, SourceConfig.root),
                          **dataset.fields(SourceConfig, "delimiter"))
    values = {"sources": (source,), **dataset.fields(LoaderConfig, "transform_ops", "batch_transform_ops"),
              **sampler.fields(LoaderConfig, "batch_size", "shuffle", "drop_last"),
              **loader.fields(LoaderConfig, "num_workers", "use_shared_memory", "prefetch_factor"),
              **part.fields(LoaderConfig, "on_corrupt", "epoch_of")}
    for section in (dataset, sampler, loader):
        section.done()
    return values


def _sources(part: Section, multilabel: bool) -> tuple[SourceConfig, ...]:
    sources = []
    for path, item in part.items("sources"):
        section = Section(item, path, part.notices)
        sources.append(SourceConfig(**section.fields(SourceConfig)))
        section.done()
        if (sources[-1].list is None) == (sources[-1].folder is None):
            fail(path, f"source '{sources[-1].name}' needs either `list` or `folder`")
        if multilabel and sources[-1].folder is not None and sources[-1].labelled:
            fail(f"{path}.folder", "sub-folders are one class an image, and Global.use_multilabel is true; give a "
                                   "`list` with lines `path<TAB>1,0,-1`, or set labelled: false")
        if sources[-1].weights is not None and sources[-1].list is None:
            fail(f"{path}.weights", "one number for each line of a `list`, but this is a folder; list its images")
    if not sources:
        fail(part.at("sources"), "missing; give `sources: [{name: ..., list: ...}]`, or PaddleClas's `dataset`")
    return tuple(sources)


def _check_sources(part: Section, loader: LoaderConfig, mode: str) -> None:
    names = [source.name for source in loader.sources]
    for name in names:
        if names.count(name) > 1:
            fail(part.at("sources"), f"two sources are called '{name}'; give each its own name")
    if loader.epoch_of is not None and loader.epoch_of not in names:
        fail(part.at("epoch_of"), f"no source '{loader.epoch_of}'{nearest(loader.epoch_of, names)}")
    ratios = [source.ratio for source in loader.sources if source.ratio is not None]
    if mode == "Eval":
        _check_eval(part, loader, ratios)
    elif ratios and len(ratios) < len(names):
        lacking = next(source.name for source in loader.sources if source.ratio is None)
        fail(part.at("sources"), f"source '{lacking}' has no ratio and others have; give one to all or to none")
    elif ratios and not math.isclose(sum(ratios), 1, abs_tol=1e-6):
        fail(part.at("sources"), f"ratios {', '.join(map(str, ratios))} sum to {sum(ratios):g}, expected 1")


def _check_eval(part: Section, loader: LoaderConfig, ratios: list[float]) -> None:
    """Evaluation counts every image once, as it is, against its label."""
    for i, source in enumerate(loader.sources):
        if not source.labelled:
            fail(f"{part.at('sources')}.{i}.labelled", "false, but accuracy needs labels; leave this source out")
        if source.weights is not None:
            fail(f"{part.at('sources')}.{i}.weights", "for Train; evaluation counts every image once")
    if ratios:
        fail(part.at("sources"), "ratio is for Train; evaluation counts every image of every source once")
    if loader.drop_last:
        fail(part.path, "drop_last is true, but evaluation counts every image once; set it to False")
    if loader.batch_transform_ops:
        fail(part.path, "batch_transform_ops is for Train; evaluation takes images as they are")


def _all_but_sources() -> list[str]:
    return [name for name in LoaderConfig.__dataclass_fields__ if name != "sources"]
