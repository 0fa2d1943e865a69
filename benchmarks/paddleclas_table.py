"""A distillation YAML of PaddleClas in words, and the table of docs/paddleclas_configs.md."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "paddleclas_configs.md"
BEGIN, END = "<!-- written by benchmarks/paddleclas_configs.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Network:
    """One of Arch.models. key: its key path. arguments: what its factory is called with."""

    key: str
    role: str
    name: str
    class_num: int
    pretrained: bool | str | None
    use_ssld: bool
    frozen: bool
    arguments: dict[str, Any] = field(default_factory=dict)


def relative(config: Path, checkout: Path) -> str:
    """Path of a config within ppcls/configs."""
    return config.relative_to(checkout / "ppcls" / "configs").as_posix()


def is_distillation(tree: Any) -> bool:
    """Whether a file has several models or a Distillation* loss."""
    if not isinstance(tree, dict) or not isinstance(tree.get("Arch"), dict):
        return False
    losses = [name for entry in (tree.get("Loss") or {}).get("Train") or [] for name in entry]
    return tree["Arch"].get("name") in ("DistillationModel", "AttentionModel") or any(
        name.startswith("Distillation") for name in losses)


def networks_of(tree: dict[str, Any]) -> list[Network]:
    """The models of a file. Empty where one of them is a construction kit and no backbone."""
    arch = tree["Arch"]
    frozen = arch.get("freeze_params_list") or [False] * len(arch["models"])
    found = []
    for i, model in enumerate(arch["models"]):
        (role, values), = model.items()
        if values["name"] in ("RecModel", "AttentionModel"):
            return []
        rest = {k: v for k, v in values.items() if k not in ("name", "class_num", "pretrained", "use_ssld")}
        found.append(Network(f"Arch.models.{i}.{role}", role, values["name"],
                             values.get("class_num") or arch.get("class_num") or 1000, values.get("pretrained") or None,
                             bool(values.get("use_ssld")), frozen[i], rest))
    return found


def in_words(tree: dict[str, Any]) -> dict[str, str]:
    """{"networks", "loss", "weights", "lists", "classes"} of a file; the last three where its networks are backbones."""
    losses = [pair for entry in tree["Loss"]["Train"] for pair in entry.items()]
    short = [name.removeprefix("Distillation").removesuffix("Loss") + _detail(values or {}) for name, values in losses]
    found = networks_of(tree)
    if not found:
        kits = {next(iter(model.values()))["name"] for model in tree["Arch"]["models"]}
        return {"networks": " and ".join(sorted(kits)), "loss": " + ".join(short)}
    weights = [_weights(network) for network in found if network.pretrained or network.frozen]
    data = [tree["DataLoader"][mode]["dataset"]["cls_label_path"] for mode in ("Train", "Eval")]
    lists = [f"`{path.removeprefix('./').removeprefix('dataset/')}`" for path in data]
    return {"networks": (" → " if found[0].frozen else " ↔ ").join(network.name for network in found),
            "loss": " + ".join(short), "weights": ", ".join(dict.fromkeys(weights)),
            "lists": ", ".join(dict.fromkeys(lists)), "classes": f"{found[0].class_num:,}"}


def _detail(values: dict[str, Any]) -> str:
    base = values.get("base_loss_name", "").removesuffix("Loss")
    tap = values.get("key") or ""
    detail = base or (tap if tap != "logits" else "")
    return f" ({detail})" if detail else ""


def _weights(network: Network) -> str:
    if network.pretrained is True:
        return f"`{network.name}{'_ssld' if network.use_ssld else ''}`"
    if network.pretrained:
        return f"{network.role.lower()}'s `{network.pretrained}`"
    return f"**a {network.name} of the task**"


_TRAIN_LIST = ("The Eval list is the Train list: top-1, and with it the best model, is of images that were trained on. "
               "Give a validation list")
_BY_TOP1 = "The best model is the one with the best top-1; TprAtFpr is not computed"
_ATTRIBUTES = ("A line of a list gives each attribute's yes (1), no (0) or not known (-1). The best model is the one with the "
               "best mean accuracy of attributes")
NOTES = {
    "ImageNet/Distillation/PPLCNet_x1_0_ssld": _TRAIN_LIST,
    "ImageNet/Distillation/PPLCNet_x2_5_ssld": _TRAIN_LIST,
    "ImageNet/Distillation/PPLCNet_x2_5_dml": "Both learn, from scratch: from labels and from each other",
    "ImageNet/Distillation/PPLCNet_x2_5_udml":
        "Both learn, from scratch; their features after blocks5 are drawn together as well",
    "ImageNet/Distillation/mv3_large_x1_0_distill_mv3_small_x1_0": "Soft cross entropy, not the symmetric KL",
    "ImageNet/Distillation/res2net200_vd_distill_pphgnet_base": "Soft cross entropy",
    "ImageNet/PPHGNetV2/PPHGNetV2_B4_ssld_stage1":
        "Soft cross entropy. The Train list is of 5 million images, 4 million of them mined and unlabelled",
    "ImageNet/PPHGNetV2/PPHGNetV2_B4_ssld_stage2":
        "Soft cross entropy. The student's path stands for stage 1's best student",
    "PULC/car_exists/PPLCNet_x1_0_distillation": _BY_TOP1,
    "PULC/person_exists/PPLCNet_x1_0_distillation": _BY_TOP1,
    "PULC/safety_helmet/PPLCNet_x1_0_distillation": f"Both learn, and begin with the same weights. {_BY_TOP1}",
    "PULC/language_classification/PPLCNet_x1_0_distillation":
        "The student's stem keeps its weights (its learning rate is multiplied by 0)",
    "PULC/textline_orientation/PPLCNet_x1_0_distillation":
        "Images 160 wide and 80 high; both networks halve the height more often than the width",
    "PULC/person_attribute/PPLCNet_x1_0_Distillation": _ATTRIBUTES,
    "PULC/table_attribute/PPLCNet_x1_0_distillation": _ATTRIBUTES,
    "PULC/vehicle_attribute/PPLCNet_x1_0_distillation": _ATTRIBUTES,
    "PULC/traffic_sign/PPLCNet_x1_0_distillation": "Lists are divided by tabs",
    "quick_start/professional/R50_vd_distill_MV3_large_x1_0_CIFAR100":
        "Soft cross entropy. It ends in NaN in PaddleClas v2.5.1 and v2.5.2 (PaddleClas #3050)",
}
_CUT = 150


def render(report: dict[str, Any]) -> str:
    """Three tables, as Markdown: what runs, what is refused, and why supervised files of the same folders are."""
    env, rows = report["environment"], report["rows"]
    running, refused = [r for r in rows if r["runs"]], [r for r in rows if not r["runs"]]
    older = Counter(row["commit"] for row in rows if "commit" in row)
    as_before = "".join(f" ({count} files as they were at {commit})" for commit, count in older.items())
    lines = [f"PaddleClas develop {report['paddleclas']}, Paddle {env['paddlepaddle']}, {env['date']}, "
             f"commit {env['commit']}{as_before}.", "",
             f"{len(running)} of {len(rows)} run:", "",
             "| file | networks | loss | weights it needs | lists it needs | classes | exports | worth knowing |",
             "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for row in running:
        words = row["words"]
        exports = {None: "not tried", True: "yes", False: "**no**"}[row.get("export", {}).get("ok")]
        lines.append(_line(_name(row), words["networks"], words["loss"], words["weights"] or "none", words["lists"],
                           words["classes"], exports, NOTES.get(_name(row).strip("`"), "")))
    lines += ["", f"{len(refused)} are refused before the first step, with these words (shortened):", "",
              "| file | networks | loss | refusal |", "| --- | --- | --- | --- |"]
    lines += [_line(_name(row), row["words"]["networks"], row["words"]["loss"], _shortened(row["why"])) for row in refused]
    reasons = Counter(_reason(why) for why in report["supervised"].values() if why)
    lines += ["", f"Of the {len(report['supervised'])} other files in the same folders, which teach labels alone, "
              f"{len(report['supervised']) - reasons.total()} load, and name only networks, losses and transforms that exist "
              "(they were not trained here). The rest:", "", "| files | refusal |", "| --- | --- |"]
    lines += [_line(str(count), _shortened(why)) for why, count in reasons.most_common()]
    return "\n".join(lines) + "\n"


def _reason(why: str) -> str:
    """`line 9: Key.path: 'value' cannot be done here: reason` without the line and the value."""
    key, _, rest = why.partition(": ")[2].partition(": ")
    return f"{key}: {rest.rpartition(' here: ')[2]}"


def _name(row: dict[str, Any]) -> str:
    return f"`{row['file'].removesuffix('.yaml')}`"


def _line(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _shortened(why: str) -> str:
    text = " ".join(why.split())
    return text if len(text) <= _CUT else text[:_CUT].rsplit(" ", 1)[0] + " ..."


def write_document(report: dict[str, Any]) -> None:
    """Put the table between the marks of the document."""
    before, _, rest = DOCUMENT.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    DOCUMENT.write_text(f"{before}{BEGIN}\n{render(report)}{END}{after}")
    print(f"written: {DOCUMENT}")
