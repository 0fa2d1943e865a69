"""Arch in its three forms -> ArchConfig.

PaddleClas, two networks    Arch: {name: DistillationModel, models: [{Teacher: {...}}, {Student: {...}}], ...}
PaddleClas, one network     Arch: {name: MobileNetV3_large_x1_0, class_num: 1000, ...}; its role is "Student"
ours                        Arch: {class_num: 10, Teacher: {name: ..., bn_mode: ...}, Student: {name: ...}}

In the last one a teacher can be several:
    Teacher: {name: Ensemble, bn_mode: eval, teachers: [{name: ..., pretrained: ..., weight: 1}, ...]}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from ..registry import nearest
from .check import Section, fail, shown
from .limits import LIMITS
from .paddleclas import MODELS
from .schema import ENSEMBLE, ArchConfig, NetworkConfig

_CLASS_NUM = LIMITS[ArchConfig]["class_num"]
_PADDLECLAS_CLASSES = 1000  # what its factories build when nobody says a class_num


@dataclass(frozen=True)
class _Found:
    """A network and what its own section says about classes (None: nothing)."""

    network: NetworkConfig
    class_num: int | None
    path: str


def read_arch(root: Section, legacy_class_num: int | None, multilabel: bool = False) -> ArchConfig:
    """legacy_class_num: Global.class_num, PaddleClas's older place for Arch.class_num. multilabel: Global's."""
    name = root.section("Arch").value("name", str)
    section = root.section("Arch", "Arch of DistillationModel" if name == "DistillationModel" else "Arch")
    section.take("name")
    if multilabel:
        section.take("infer_add_softmax")  # PaddleClas passes over it as well: the exported program ends in a sigmoid
    class_num = section.value("class_num", int, legacy_class_num, _CLASS_NUM)
    infer_model_name = section.value("infer_model_name", str, "Student")
    values = section.fields(ArchConfig, "use_sync_bn")
    if name == "DistillationModel":
        found = _distillation_model(section)
    elif name:
        found = [_network("Student", section, name)]
    else:
        found = _by_role(section)
    section.done()
    roles = [f.network.role for f in found]
    for role in roles:
        if roles.count(role) > 1:
            fail(section.path, f"two networks are called '{role}'; give each its own name")
    if infer_model_name not in roles:
        fail(section.at("infer_model_name"), f"no network '{infer_model_name}'{nearest(infer_model_name, roles)}")
    for f in found:
        if multilabel and f.network.members:
            fail(f"{f.path}.name", f"'{ENSEMBLE}' is the mean of class probabilities, and with Global.use_multilabel a "
                                   "network answers yes or no to each label; give one teacher")
    return ArchConfig(tuple(f.network for f in found), infer_model_name,
                      _agreed_class_num(section, class_num, found, required=name is None), **values)


def network_section(arch: Mapping, role: str) -> tuple[str, Mapping]:
    """(key path, section) of network `role` in the tree of a valid Arch of any form."""
    if arch.get("name") == "DistillationModel":
        number = next(i for i, model in enumerate(arch["models"]) if role in model)
        return f"Arch.models.{number}.{role}", arch["models"][number][role]
    return ("Arch", arch) if arch.get("name") else (f"Arch.{role}", arch[role])


def _distillation_model(section: Section) -> list[_Found]:
    models = section.items("models")
    frozen = _one_per_model(section, "freeze_params_list", len(models), False)
    pretrained = _one_per_model(section, "pretrained_list", len(models), None)
    found = []
    for (path, item), is_frozen, weights in zip(models, frozen, pretrained):
        if not isinstance(item, Mapping) or len(item) != 1:
            fail(path, f"expected one `Role: {{name: ..., ...}}`, found {shown(item)}")
        (role, _), = item.items()
        model = Section(item, path, section.notices).section(role, "Arch")
        if model.has("frozen"):
            fail(model.at("frozen"), "beside `models`, Arch.freeze_params_list says who is frozen")
        if weights and model.take("pretrained") and weights != model.take("pretrained"):
            fail(model.at("pretrained"), f"{model.take('pretrained')!r} here, but Arch.pretrained_list says "
                                         f"{weights!r}; keep one of them")
        if not isinstance(is_frozen, bool):
            fail(section.at("freeze_params_list"), f"expected true or false, found {shown(is_frozen)}")
        found.append(_network(role, model, model.required("name", str), frozen=is_frozen, weights=weights))
    return found


def _by_role(section: Section) -> list[_Found]:
    found = []
    for role, value in section.unread():
        if value is None:
            section.take(role)  # a role that an inheriting file switched off
        elif isinstance(value, Mapping):
            model = section.section(role, "Arch")
            frozen = model.value("frozen", bool, role == "Teacher")
            if frozen and not model.has("bn_mode"):
                fail(model.at("bn_mode"), "missing; say 'batch_stats' (the frozen network normalises with each batch's "
                                          "own statistics, as in PaddleClas) or 'eval' (with its stored ones; faster)")
            found.append(_network(role, model, model.required("name", str), frozen=frozen))
    section.done()
    if not found:
        fail(section.path, "no network; give `name: X` for one PaddleClas backbone, or `Student: {name: X}`")
    return found


def _network(role: str, model: Section, name: str, frozen: bool | None = None, weights: object = None) -> _Found:
    """One network's section: our own keys, then the arguments of PaddleClas's factory (checked where it is called)."""
    model.take("name")
    if name in MODELS:
        fail(model.at("name"), f"'{name}' cannot be built here: {MODELS[name]}")
    frozen = model.value("frozen", bool, False) if frozen is None else frozen
    if name == ENSEMBLE:
        return _ensemble(role, model, frozen)
    class_num = model.value("class_num", int, limit=_CLASS_NUM)
    pretrained = _pretrained(model.take("pretrained") or weights, model.at("pretrained"))
    values = model.fields(NetworkConfig, "use_ssld", "bn_mode", "engine", "output_stride", "allow_partial")
    if values.get("engine") == "inference" and not frozen:
        fail(model.at("engine"), f"inference is for a frozen network, and {role} is trained; leave it out")
    if values.get("engine") == "inference" and values.get("bn_mode", "batch_stats") == "batch_stats":
        fail(model.at("engine"), "inference needs bn_mode: eval; batch_stats takes the statistics of each batch")
    if frozen and not pretrained:
        model.notices.append(f"{model.path} is frozen and has no weights; give them with "
                             f"-o {model.at('pretrained')}=PATH before training")
    network = NetworkConfig(role, name, model.rest(), pretrained, frozen=frozen, **values)
    return _Found(network, class_num, model.path)


def _ensemble(role: str, model: Section, frozen: bool) -> _Found:
    """Its members are networks of their own; bn_mode and engine hold for those that do not say theirs."""
    if not frozen:
        fail(model.at("frozen"), "an Ensemble is a teacher and cannot learn; set frozen: true")
    shared = {key: model.take(key) for key in ("bn_mode", "engine") if model.has(key)}
    values = model.fields(NetworkConfig, *shared)
    members, class_nums = [], set()
    for i, (path, item) in enumerate(model.items("teachers")):
        member = Section({**shared, **item} if isinstance(item, Mapping) else item, path, model.notices, "Arch")
        weight = member.value("weight", float, NetworkConfig.weight, LIMITS[NetworkConfig]["weight"])
        found = _network(f"{role}.teachers.{i}", member, member.required("name", str), frozen=True)
        if found.network.name == ENSEMBLE:
            fail(f"{path}.name", "an Ensemble within an Ensemble; list its teachers here, with their weights")
        members.append(replace(found.network, weight=weight))
        class_nums.add(found.class_num)
    if len(members) < 2:
        fail(model.at("teachers"), "expected a list of two or more `{name: ..., pretrained: ..., weight: 1.0}`")
    if len(class_nums) > 1:
        fail(model.at("teachers"), f"class_num differs between them ({', '.join(sorted(map(str, class_nums)))})")
    model.done()
    network = NetworkConfig(role, ENSEMBLE, frozen=True, members=tuple(members), **values)
    return _Found(network, class_nums.pop(), model.path)


def _pretrained(value: object, path: str) -> str | bool | None:
    if not value:  # null, false and "" all mean random numbers
        return None
    if value is True or isinstance(value, str):
        return value
    fail(path, f"expected a path, true (PaddleClas's weights) or null, found {shown(value)}")


def _one_per_model(section: Section, key: str, count: int, default: object) -> list:
    items = section.items(key)
    if items and len(items) != count:
        fail(section.at(key), f"{len(items)} items for {count} models; give one per model, in their order, or null")
    return [value for _, value in items] or [default] * count


def _agreed_class_num(section: Section, said: int | None, found: list[_Found], required: bool) -> int:
    """The one class_num of all networks: their logits are compared class by class."""
    counts = [(section.path, said)] if said else []
    counts += [(f.path, f.class_num) for f in found if f.class_num and f.path != section.path]
    if not counts and required:
        fail(section.at("class_num"), f"missing; expected {_CLASS_NUM.text}")
    if not counts:
        section.notices.append(f"{section.at('class_num')} is not given: {_PADDLECLAS_CLASSES}, PaddleClas's default")
        return _PADDLECLAS_CLASSES
    path, count = counts[-1]
    for other_path, other in counts[::-1]:  # networks before their section: the message names two networks if it can
        if other != count:
            fail(f"{path}.class_num", f"{count}, but {other_path}.class_num is {other}; networks that are compared "
                                      "need the same classes")
    return count
