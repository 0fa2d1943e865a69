"""What a store was made from and how it is laid out: header.json, and its comparison with a config.

A key that is in both headers compared must be equal in both. `expect` gives the keys that a training run decides; a
store has more: what `targets write` was asked for, and what is for people alone.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..config import plain
from ..config.schema import LoaderConfig, NetworkConfig, RunConfig
from ..data.lists import ImageList, read_source
from ..errors import ConfigError
from ..registry import one_key
from .answers import FLOOR, TAILS, AnswerCodec
from .code import code_digest
from .drawn import DrawnCodec
from .record import Layout
from .rows import Rows

FORMAT = 1
HEADER = "header.json"
FOR_PEOPLE = ("made_with", "notes", "accepted")  # no part's content depends on them
UNKNOWN = None  # a hash that cannot be taken here; it is not compared
_CHUNK = 1 << 16
_COUNT, _ANY = range(1, 1 << 62), range(0, 1 << 62)
_NUMBER, _TABLE, _HASH = (int, float), (dict, type(None)), (str, type(None))
_KINDS = {str: "text", _NUMBER: "a number", _TABLE: "a table or null", _HASH: "text or null"}
_OP = {"name": str, "arguments": _TABLE, "version": _COUNT}
_FORM = {  # what reading relies on
    "samples": {"count": _COUNT, "list": str}, "class_num": _COUNT, "views": _COUNT, "batch_size": _COUNT,
    "seed": _ANY, "tail": frozenset(TAILS), "code": _HASH, "temperature": _NUMBER, "transforms": [_OP], "mix": [_OP],
    "teacher": [{"name": str, "weights": _HASH, "bn_mode": str, "share": _NUMBER}],
    "answer": {"k": _COUNT, "bits": _COUNT}, "rows": {"order": frozenset(("sample_id", "shuffled")), "block": _COUNT},
    "record": {},  # its `descr` is compared by a store
}
_ADVICE = {
    "samples": "the store belongs to another list; take the list that it was made from, or write targets for this one",
    "code": "this version of the transforms, or of OpenCV, Pillow or NumPy, makes other pixels; run `ppcls-ssld "
            "targets verify DIR -c FILE --accept`, which looks how far the teacher's answers are from the stored ones",
    "temperature": "set the loss's temperature to the store's, or write the targets again",
    "format": "use the version of ppcls_ssld that wrote it, or write the targets again",
}


def expect(config: RunConfig, temperature: float, lists: Sequence[ImageList] | None = None) -> dict[str, Any]:
    """What the header of a store must say that is to serve a run. As JSON takes it.

    temperature: at which the loss reads the teacher. lists: of DataLoader.Train, where they are open already.
    ConfigError: no single frozen network, or a transform that cannot be recorded.
    """
    loader = _loader(config)
    if lists is None:
        lists = [read_source(source, config.Arch.class_num, "DataLoader.Train", config.Global.use_multilabel)
                 for source in loader.sources]
    codec = DrawnCodec(loader.transform_ops, loader.batch_transform_ops)
    ops = [*loader.transform_ops, *loader.batch_transform_ops]
    named = [one_key(plain(entry), "transform_ops") for entry in ops]
    recorded = [{"name": name, "arguments": arguments, "version": version}
                for (name, arguments), version in zip(named, codec.versions, strict=True)]
    own = len(loader.transform_ops)
    teacher = teacher_of(config)
    return json.loads(json.dumps({
        "format": FORMAT,
        "samples": {"count": sum(map(len, lists)), "list": list_digest(lists)},
        "class_num": config.Arch.class_num,
        "transforms": recorded[:own], "mix": recorded[own:],
        "code": code_digest(loader),
        "teacher": [{"name": n.name, "arguments": _arguments(n), "weights": weights_digest(n),
                     "bn_mode": n.bn_mode, "share": n.weight / sum(m.weight for m in teacher.members or (teacher,))}
                    for n in teacher.members or (teacher,)],
        "temperature": float(temperature),
    }))


def complete(expected: Mapping[str, Any], config: RunConfig, views: int, top_k: int, bits: int, tail: str, block: int,
             amp: str | None) -> dict[str, Any]:
    """The whole header of a store that `write` is to make: `expect`'s and what it was asked for."""
    loader = _loader(config)
    teacher = teacher_of(config)
    by_batch = any(network["bn_mode"] == "batch_stats" for network in expected["teacher"])
    samples = expected["samples"]["count"]
    header = {
        **expected, "views": views, "seed": config.Global.seed, "tail": tail,
        "answer": {"k": min(top_k, config.Arch.class_num), "bits": bits, "floor": FLOOR},
        "rows": {"order": "shuffled" if by_batch else "sample_id", "block": block,
                 "parts": Rows(samples, views, block).parts},
        "batch_size": loader.batch_size, "engine": [n.engine for n in teacher.members or (teacher,)],
        "device": config.Global.device.partition(":")[0], "fast_cpu": config.Global.on_fast_cpu, "amp": amp,
    }
    answers, layout = open_layout(header)
    header["answer"]["id_bits"] = answers.id_bits
    header["record"] = {"bytes": layout.dtype.itemsize, "descr": layout.dtype.descr}
    return json.loads(json.dumps(header))


def open_layout(header: Mapping[str, Any]) -> tuple[AnswerCodec, Layout]:
    answers = AnswerCodec(header["class_num"], header["answer"]["k"], header["answer"]["bits"])
    drawn = DrawnCodec([{t["name"]: t["arguments"]} for t in header["transforms"]],
                       [{t["name"]: t["arguments"]} for t in header["mix"]], "header.json")
    return answers, Layout(answers, drawn)


def rows_of(header: Mapping[str, Any]) -> Rows:
    return Rows(header["samples"]["count"], header["views"], header["rows"]["block"],
                header["seed"] if header["rows"]["order"] == "shuffled" else None)


def check(header: Mapping[str, Any], expected: Mapping[str, Any], where: str) -> list[str]:
    """Compare a store's header with what is expected; returns sentences for the log about what could not be compared.

    ConfigError names each field that differs, what the store in folder `where` says, and what was expected.
    """
    different, notices = [], []
    accepted = header.get("accepted", [])
    for key, found, wanted in _differences(header, expected):
        if key.endswith(".weights") and UNKNOWN in (found, wanted):
            notices.append(f"{where}: the weights of {key.removesuffix('.weights')} are not at hand, so that it is the "
                           "same teacher was not checked")
        elif key != "code" or (UNKNOWN not in (found, wanted) and wanted not in accepted):
            different.append((key, found, wanted))
    named = {key.partition(".")[0] for key, _, _ in different}
    if named & {"transforms", "mix"}:  # they make other pixels, of course: no reason to advise --accept
        different = [one for one in different if one[0] != "code"]
        named.discard("code")
    if different:
        lines = [f"{key} is {_short(found)} there, {_short(wanted)} here" for key, found, wanted in different]
        advice = [text for key, text in _ADVICE.items() if key in named]
        raise ConfigError(f"{where}: these targets were not made for this run: {'; '.join(lines)}. "
                          f"{(advice or ['make the config agree, or write the targets again to another folder'])[0]}")
    if "code" in expected and UNKNOWN in (header["code"], expected["code"]):
        notices.append(f"{where}: no test image fits the transforms, so that they make the same pixels was not "
                       "checked; `targets verify` compares answers")
    return notices


def _differences(found: Any, wanted: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        inside = path.startswith(("transforms", "mix", "teacher"))  # there an absent key is a difference of its own
        for key in [*wanted, *(key for key in found if inside and key not in wanted)]:
            yield from _differences(found.get(key, "absent"), wanted.get(key, "absent"), f"{path}.{key}".strip("."))
    elif isinstance(found, list) and isinstance(wanted, list) and len(found) == len(wanted):
        for i, (one, other) in enumerate(zip(found, wanted)):
            yield from _differences(one, other, f"{path}.{i}")
    elif found != wanted:
        yield path, found, wanted


def read_header(folder: Path) -> dict[str, Any]:
    """ConfigError when there is none, or of a format that this version does not read."""
    file = folder / HEADER
    try:
        header = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:
        raise ConfigError(f"{file}: cannot be read ({e}); expected a folder that `ppcls-ssld targets write` "
                          "made") from e
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        found = header.get("format") if isinstance(header, dict) else None
        raise ConfigError(f"{file}: format is {found!r}, this version reads {FORMAT}; {_ADVICE['format']}")
    _check_form(header, _FORM, str(file))
    return header


def _check_form(found: Any, form: Any, file: str, path: str = "") -> None:
    """ConfigError names the first entry that is not of its kind: a type, bounds, or each of these in a tree."""
    if isinstance(form, Mapping):
        good, what = isinstance(found, Mapping), "a table"
    elif isinstance(form, list):
        good, what = isinstance(found, list), "a list"
    elif isinstance(form, range):
        good, what = type(found) is int and found in form, f"a whole number from {form.start} on"
    elif isinstance(form, frozenset):
        good, what = isinstance(found, str) and found in form, " or ".join(sorted(form))
    else:
        good, what = isinstance(found, form), _KINDS[form]
    if not good:
        raise ConfigError(f"{file}: {path} is {_short(found)}, expected {what}; the file is damaged: restore it, or "
                          "write the targets again to another folder")
    if isinstance(form, Mapping):
        for key, inner in form.items():
            _check_form(found.get(key), inner, file, f"{path}.{key}".strip("."))
    elif isinstance(form, list):
        for i, one in enumerate(found):
            _check_form(one, form[0], file, f"{path}.{i}")


def identity(header: Mapping[str, Any]) -> bytes:
    """16 bytes that stand in each part for all that its content depends on."""
    decisive = {key: value for key, value in header.items() if key not in FOR_PEOPLE}
    return hashlib.blake2b(json.dumps(decisive, sort_keys=True).encode(), digest_size=16).digest()


def teacher_of(config: RunConfig) -> NetworkConfig:
    frozen = [network for network in config.Arch.networks if network.frozen]
    if len(frozen) != 1:
        names = ", ".join(network.role for network in frozen) or "none"
        raise ConfigError(f"Arch: expected one frozen network, whose answers are stored, found {names}; several "
                          "teachers are one `Teacher: {name: Ensemble, teachers: [...]}`")
    return frozen[0]


def list_digest(lists: Sequence[ImageList]) -> str:
    """Hash of all paths as they are listed, in order; roots, labels and the sources' names have no part in it."""
    digest = hashlib.blake2b(digest_size=16)
    for images in lists:
        for start in range(0, len(images), _CHUNK):
            starts, lengths = images.starts[start:start + _CHUNK], images.lengths[start:start + _CHUNK]
            digest.update(b"".join(images.buffer[s:s + n] + b"\n" for s, n in zip(starts.tolist(), lengths.tolist())))
    return digest.hexdigest()


def _arguments(network: NetworkConfig) -> dict[str, Any]:
    """What makes the network's answers besides its name and weights."""
    return {**plain(network.arguments), **({"output_stride": network.output_stride} if network.output_stride else {})}


def weights_digest(network: NetworkConfig) -> str | None:
    """Hash of the weights file; UNKNOWN when it is not there; the text itself for PaddleClas's released weights or a
    URL."""
    path = network.pretrained
    if not isinstance(path, str) or path.startswith(("http://", "https://")):
        return f"{path}{' ssld' if network.use_ssld else ''}"
    file = path if os.path.isfile(path) else f"{path}.pdparams"
    if not os.path.isfile(file):
        return UNKNOWN
    digest = hashlib.blake2b(digest_size=16)
    with open(file, "rb") as content:
        while chunk := content.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _loader(config: RunConfig) -> LoaderConfig:
    if config.DataLoader.Train is None:
        raise ConfigError("DataLoader.Train: missing; its images and transforms are those that targets are stored for")
    return config.DataLoader.Train


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
