"""The demo's order of events: teacher, mining, baseline, ssld, fine-tuning, export, prediction; and its results."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..config import dump, load_config, resolve, write
from ..engine import read_metrics, train
from ..errors import CheckpointError, ConfigError
from .images import DemoImages, spread, write_lists
from .mined import Mined, mine_pool
from .pool import Pool, make_pool
from .predict import Exported, Trained, export
from .recipe import Recipe

MARKER = "made_by_demo.txt"
ASKED_OF_TEACHER = 128  # unlabelled images whose soft answers the report chooses from
SURE_SHARE = 0.02  # of those; mining leaves out images of which the teacher is less sure than of so many of them


@dataclass(frozen=True)
class Row:
    """One line of the result. labels_used: labels that this row's training read. top1: of the test images, in [0, 1].

    command: makes the row again.
    """

    name: str
    network: str
    trained_on: str
    labels_used: int
    top1: float
    command: str

    def summary(self) -> dict[str, Any]:
        return {key: getattr(self, key) for key in ("name", "network", "trained_on", "labels_used", "top1")}


@dataclass
class Story:
    """Everything that the report tells.

    parameters: learned numbers of a network, by name. metrics: rows of metrics.jsonl, by run.
    views: images a run trained on, repeats counted. seconds: by stage, in order.
    probabilities: float32 [N, C] on the N test images, by row name.
    pool, mined: the images without labels with what was planted among them, and what mining made of it.
    asked, teacher_says: some unlabelled images by index, and the teacher's probabilities on them, float32 [M, C].
    """

    images: DemoImages
    output: Path
    seed: int
    rows: list[Row] = field(default_factory=list)
    parameters: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, list[dict]] = field(default_factory=dict)
    views: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    probabilities: dict[str, np.ndarray] = field(default_factory=dict)
    pool: Pool | None = None
    mined: Mined | None = None
    asked: list[int] = field(default_factory=list)
    teacher_says: np.ndarray | None = None
    exported: Exported | None = None

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


def prepare(output: Path) -> None:
    """Empty `output` for a demo. What an earlier demo left goes; any other folder is refused with a ConfigError."""
    try:
        if output.exists() and any(output.iterdir()):
            if not (output / MARKER).is_file():
                raise ConfigError(f"--output {output}: holds files that no demo wrote; choose a new or an empty folder")
            shutil.rmtree(output)
        output.mkdir(parents=True, exist_ok=True)
        (output / MARKER).write_text("Made by `python -m ppcls_ssld demo`. The next demo with this --output deletes "
                                     "the folder and begins anew.\n", encoding="utf-8")
    except OSError as e:
        raise CheckpointError(f"--output {output}: {e.strerror}; choose a folder that can be written") from e


def tell(images: DemoImages, output: Path, seed: int, say: Callable[[str], None]) -> Story:
    """Run everything; `say` gets a line per stage. About three minutes on two cores."""
    story = Story(images, output, seed)
    lists = write_lists(images, output / "data")
    pool = story.pool = make_pool(images, output / "data", seed)
    recipe = Recipe(images, lists, output, seed)
    few, every = len(images.labelled), len(images.train)
    tests = [item.path for item in images.test]

    say(f"teacher: a bigger network learns all {every:,} training images with their labels")
    teacher = _train(story, "teacher", recipe.teacher(), f"all {every:,} training images with labels", every)
    with _Clock(story, "teacher"):
        story.asked = spread(len(images.unlabelled), ASKED_OF_TEACHER).tolist()
        story.teacher_says = _trained(story, "teacher").probabilities([images.unlabelled[i].path for i in story.asked])

    say(f"mining: the pool holds {len(images.unlabelled):,} images without labels and {len(pool.planted):,} files that "
        "do not belong there, copies of test images among them; the miner is not told which is which")
    mined = story.mined = _mine(story, recipe, teacher, pool)
    chosen = len(mined.chosen)
    say(f"mining: {mined.line()}")

    say(f"baseline: a small network learns the {few} labelled images")
    _train(story, "baseline", recipe.baseline(), f"the {few} labelled images", few)
    with _Clock(story, "baseline"):
        story.probabilities["baseline"] = _trained(story, "baseline").probabilities(tests)

    say(f"ssld: the same small network learns to agree with the teacher on the {few} labelled images, their labels "
        f"unread, and on the {chosen:,} mined ones")
    student = _train(story, "ssld", recipe.ssld(teacher, mined.selected, chosen),
                     f"{few} labelled and {chosen:,} mined images, no label read: the teacher's answers", 0)
    with _Clock(story, "ssld"):
        story.probabilities["ssld"] = _trained(story, "ssld").probabilities(tests)

    say(f"fine-tuning: on with the same loss on the {few} labelled images alone, their labels unread")
    _train(story, "finetune", recipe.finetune(teacher, student),
           f"ssld, then the {few} labelled images, labels unread: the teacher's answers", 0)

    say("export: the fine-tuned network as Paddle Inference files, which then predict the test images")
    _export(story, tests)
    return story


def _train(story: Story, run: str, tree: Mapping[str, Any], trained_on: str, labels_used: int) -> str:
    """Write the run's YAML, train from it, note the results; returns the path of the last step's weights."""
    with _Clock(story, run):
        file = story.output / f"{run}.yaml"
        file.write_text(f"# One run of `python -m ppcls_ssld demo`, seed {story.seed}. Again, into another folder:\n"
                        f"# {_command(file)}\n" + dump(resolve(tree)), encoding="utf-8")
        config = load_config(file)
        result = train(config)
        story.metrics[run] = read_metrics(Path(result.output_dir) / "metrics.jsonl")
        story.views[run] = result.steps * config.DataLoader.Train.batch_size
        name = "ssld_finetuned" if run == "finetune" else run
        network = config.Arch.network(config.Arch.infer_model_name).name
        story.rows.append(Row(name, network, trained_on, labels_used, result.last, _command(file)))
    return _last_weights(story, run)


def _mine(story: Story, recipe: Recipe, teacher: str, pool: Pool) -> Mined:
    with _Clock(story, "mining"):
        learned = np.sort(story.teacher_says.max(axis=1))
        min_score = round(float(learned[int(SURE_SHARE * len(learned))]), 4)
        file = story.output / "mining.yaml"
        file.write_text(f"# The mining of `python -m ppcls_ssld demo`, seed {story.seed}. Again, into another folder:\n"
                        f"# {mining_command(story.output)}\n" + write(recipe.mining(teacher, pool, min_score)),
                        encoding="utf-8")
        return mine_pool(story.images, pool, file)


def mining_command(output: Path) -> str:
    return f"python -m ppcls_ssld mine -c {output / 'mining.yaml'} --output {output / 'mining'}_again"


def _export(story: Story, tests: list[str]) -> None:
    with _Clock(story, "export"):
        trained = _trained(story, "finetune")
        story.probabilities["ssld_finetuned"] = trained.probabilities(tests)
        story.exported = export(trained, story.output / "exported", tests)
        story.probabilities["exported"] = story.exported.probabilities
        for program, parity in story.exported.parity.items():
            if not parity.passed():
                raise CheckpointError(f"{story.exported.folder / program}: {parity.summary()}; the exported network is "
                                      "not the trained one, so do not use it")
        right = story.exported.probabilities.argmax(axis=1) == [item.label for item in story.images.test]
        story.rows.append(Row("exported", trained.name, "nothing more: ssld_finetuned as Paddle Inference files", 0,
                              float(right.mean()),
                              f"python tools/export_model.py -c {story.output / 'finetune.yaml'} "
                              f"-o Global.pretrained_model={_last_weights(story, 'finetune')} "
                              f"-o Global.save_inference_dir={story.output / 'exported'}"))


def _trained(story: Story, run: str) -> Trained:
    trained = Trained(load_config(story.output / f"{run}.yaml"), _last_weights(story, run))
    story.parameters[trained.name] = trained.parameters
    return trained


def _last_weights(story: Story, run: str) -> str:
    # Not best_model.pdparams: that one was chosen on the test images, which have to stay out of every choice.
    steps = max(row["step"] for row in story.metrics[run])
    return str(story.output / run / "checkpoints" / f"{steps:08d}" / "student.pdparams")


def _command(file: Path) -> str:
    return f"python tools/train.py -c {file} -o Global.output_dir={file.with_suffix('')}_again"


class _Clock:
    """Adds the time of its block to a stage."""

    def __init__(self, story: Story, stage: str):
        self._seconds, self._stage = story.seconds, stage

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + time.monotonic() - self._began
