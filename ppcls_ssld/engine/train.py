"""A training run, from config to best student. Reads top to bottom."""

from __future__ import annotations

import math
import time
from collections import Counter
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import paddle

from .. import parallel
from ..arch import prepare_process
from ..config import differences, dump, plain
from ..config.schema import RunConfig
from ..data import TrainReader
from ..errors import ConfigError, StoppedBySignal
from ..optim import build_optimizer, build_schedule, describe_rates, learning_rates
from ..stop import StopRequest
from . import preflight
from .checkpoint import TrainState, find_checkpoint, load_checkpoint, save_best, save_checkpoint, save_state
from .evaluate import SHOWN, eval_reader, layer_forward, main_metric, score, uncounted
from .logbook import Logbook
from .next_stage import next_stage, write_next_stage
from .step import StepResult, TrainStep
from .stored import open_stored
from .task import DistillationTask, build_loss, fitted_to_device
from .window import Window


@dataclass(frozen=True)
class TrainResult:
    """best, last: accuracy (EvalResult.main) of the best and of the last evaluation, None without one.

    student_weights: best_model.pdparams, or the last checkpoint's student when nothing was evaluated.
    """

    output_dir: str
    steps: int
    best: float | None
    last: float | None
    student_weights: str


def train(config: RunConfig) -> TrainResult:
    """Train what `config` describes; resumes when `Global.checkpoints` says so.

    Raises SsldError subclasses (errors.py lists their exit codes): a user's mistake, a teacher at chance level, a loss
    that is not finite, a full disk, a stop by signal (after saving).
    """
    settings = prepare_process() if config.Global.on_fast_cpu else []
    parallel.init(config.Global.device)
    # Paddle numbers the optimiser's accumulators over the whole process; a run must not depend on an earlier one.
    with paddle.utils.unique_name.guard(), \
            Logbook(config.Global.output_dir, parallel.is_main(), config.Global.use_visualdl) as log:
        for text in settings:
            log.say(f"fast_cpu: {text}")
        return Run(config, log).go()


class Run:
    """The parts of one run, put together in the order that matters."""

    def __init__(self, config: RunConfig, log: Logbook):
        config, notices = fitted_to_device(config)
        self.config, self.log = config, log
        for text in (*config.notices, *notices):
            log.say(f"note: {text}")
        loss = build_loss(config)  # misspelt names are known before a long list is read or a network built
        if config.DataLoader.Train is None:
            raise ConfigError("DataLoader.Train: missing; there is nothing to train on")
        if config.Global.next_stage:
            next_stage(config, "student")  # what cannot be written at the end is known now
        checkpoint = self._checkpoint_to_resume()

        stored = open_stored(config)
        self.reader = TrainReader(config.DataLoader.Train, config.Arch.class_num, config.Global.seed,
                                  parallel.rank(), parallel.world_size(), stored=stored and stored.store,
                                  multilabel=config.Global.use_multilabel)
        if stored:
            for text in (*stored.check(config, loss, self.reader.lists), stored.describe()):
                log.say(text)
        # Built before training, so that a broken list is known now and not after the first epoch.
        self.eval_reader = eval_reader(config) if config.DataLoader.Eval and config.Global.eval_during_train else None
        if self.eval_reader and (notice := uncounted(self.eval_reader)):
            log.say(f"note: {notice}")
        if notice := preflight.check_labels(loss, self.reader, config):
            log.say(f"note: {notice}")
        log.say(self.reader.describe())
        self.global_batch = config.DataLoader.Train.batch_size * config.Global.update_freq * parallel.world_size()
        rounding = math.floor if config.DataLoader.Train.drop_last else math.ceil
        self.steps_per_epoch = max(1, rounding(self.reader.batches_per_epoch / config.Global.update_freq))
        self.steps = config.Global.epochs * self.steps_per_epoch
        if config.Global.max_steps:
            self.steps = min(self.steps, config.Global.max_steps)

        self.task = DistillationTask(config, stored, self.reader.yes_share)
        for role, report in self.task.reports.items():
            log.say(f"{role}: {report.summary() if report else 'new weights, nothing loaded'}")
        schedule = build_schedule(config.Optimizer.lr, config.Global.epochs, self.steps_per_epoch, "Optimizer.lr")
        named = self.task.named_parameters()
        rates = learning_rates(config.Optimizer, named, "Optimizer")
        self.optimizer = build_optimizer(config.Optimizer, named, rates, "Optimizer")
        log.say(describe_rates(rates))
        self.scaler = self._amp()
        self.state = TrainState(metric=main_metric(config), global_batch=self.global_batch, seed=config.Global.seed,
                                sizes=list(self.reader.sizes), targets=stored and stored.store.digest,
                                config=plain(config.source))
        if checkpoint:
            self._resume(checkpoint)  # after the optimiser exists, before gradients are averaged over ranks
        self._skipped_before = dict(self.state.skipped)
        self.task.distribute()
        self.schedule = schedule
        self.step = TrainStep(self.task, self.optimizer, self.scaler, schedule, config.Global.seed)

    def go(self) -> TrainResult:
        """Check the teachers, then step, evaluate and save until done."""
        for teacher in self.task.teachers.values():
            self.log.say(preflight.describe(teacher, preflight.check_teacher(teacher, self.config)))
        self.log.save_text("config.yaml", dump(self.config))
        self.log.say(f"{self.steps} steps of {self.global_batch} images, {self.steps_per_epoch} an epoch; loss: "
                     f"{', '.join(self.task.loss.names)} ({'reads' if self.task.loss.needs_labels else 'never reads'} "
                     "labels)")
        self.log.rewind(self.state.step, evaluated=not self.state.evaluation_due)
        self.log.start(self.state.step, self.steps)
        with StopRequest() as stop:
            self._evaluate_if_due()  # a resumed run was cut off before, or in, an evaluation
            self.task.train_mode()
            for result in self._steps(stop):
                self.state.step += 1
                self.log.advance()
                ended = self.state.step % self.steps_per_epoch == 0 or self.state.step == self.steps
                if ended:
                    self.state.epoch = math.ceil(self.state.step / self.steps_per_epoch)
                    self.state.evaluation_due = self._evaluation_is_due()
                if self._save_is_due(ended) or result.stop:
                    self._save()  # first, so that an evaluation that fails costs no training
                self._evaluate_if_due()
                if result.stop and self.state.step < self.steps:
                    raise StoppedBySignal(f"stopped by {stop.signal_name or 'another rank'} after step "
                                          f"{self.state.step}, all saved; start again with --resume")
        if not self._is_saved():  # gone on from another run's last step
            self._save()
        return self._result()

    def _steps(self, stop):
        """Train to the end, yielding after each step; rows go to the log when due, and no loss goes unchecked."""
        due = self.config.Global.print_batch_step
        micro = self.config.Global.update_freq
        batches = self.reader.batches(self.state.step * micro, self.steps * micro)
        window = Window()
        while self.state.step < self.steps:
            t0 = time.perf_counter()
            group = [next(batches) for _ in range(micro)]
            data_s = time.perf_counter() - t0
            if self.state.step == 0:
                self.log.images("train", _viewable(group[0].images[:8]), 0)
            step = self.state.step  # the loop adds one when it takes the result
            result = self.step(step, group, bool(stop))
            window.add(step + 1, group, result, data_s)
            if (step + 1) % due == 0 or step + 1 == self.steps or result.stop or self._save_is_near(step + 1):
                window.check()
            if (step + 1) % due == 0 or step + 1 == self.steps:
                self.log.train_row(self._row(step + 1, result, window), self.steps)
                window.clear()
            yield result

    def _row(self, step: int, result: StepResult, window: Window) -> dict:
        """A row of numbers; losses and agreement (of the last micro-step) are means over the ranks.

        The shares are this rank's. On a GPU the split between teacher and student is of launches: the wait for the work
        that both have launched counts as the student's.
        """
        numbers = dict(result.losses)
        if result.agreement is not None:
            numbers["agreement"] = result.agreement.astype("float32").mean()
        values = paddle.stack([value.reshape([]).astype("float32") for value in numbers.values()])
        values = (parallel.sum_(values) / parallel.world_size()).numpy().tolist()
        losses = dict(zip(numbers, values))
        seconds = window.data_s + window.teacher_s + window.student_s
        return {
            "step": step, "epoch": step / self.steps_per_epoch, "images_seen": step * self.global_batch,
            "agreement": losses.pop("agreement", None), "loss": losses.pop("loss"), "lr": self.schedule(step - 1),
            "parts": losses,
            "images_per_s": window.images * parallel.world_size() / seconds,
            "share": {"data": window.data_s / seconds, "teacher": window.teacher_s / seconds,
                      "student": window.student_s / seconds},
            "skipped": len(self.reader.skipped), "run_steps": window.run_steps,
        }

    def _evaluation_is_due(self) -> bool:
        glob = self.config.Global
        return self.eval_reader is not None and (self.state.step == self.steps
                                                 or (self.state.epoch >= glob.start_eval_epoch
                                                     and self.state.epoch % glob.eval_interval == 0))

    def _evaluate_if_due(self) -> None:
        if not self.state.evaluation_due:
            return
        if self.eval_reader is not None:  # a resume may do without
            self._evaluate()
        self.state.evaluation_due = False
        if parallel.is_main():
            save_state(self.config.Global.output_dir, self.state)
        parallel.barrier()

    def _evaluate(self) -> None:
        self.task.share_statistics()
        ema = self.task.ema
        for weights, holding in (("student", nullcontext()), *((("ema", ema.applied()),) if ema else ())):
            with holding:
                result = score(layer_forward(self.task.student, self.task.scoring), self.eval_reader, self.config)
            self.log.eval_row({"step": self.state.step, "epoch": self.state.epoch,
                               "images_seen": self.state.step * self.global_batch, "weights": weights,
                               "images": result.images, "loss": result.loss}, result.accuracy)
            if result.skipped:
                self.log.say(f"  left out {len(result.skipped)} corrupt images: {', '.join(result.skipped[:10])}")
            self.state.last = result.main
            if self.state.best is None or result.main > self.state.best:
                self.state.best, self.state.best_step = result.main, self.state.step
                if parallel.is_main():
                    files = self.task.state()
                    stored = self.task.stored
                    save_best(self.config.Global.output_dir, files["ema" if weights == "ema" else "student"],
                              {result.name: result.main, "step": self.state.step, "weights": weights,
                               **({"targets": stored.row()} if stored else {})})
                parallel.barrier()
        self.task.train_mode()

    def _save_is_due(self, epoch_ended: bool) -> bool:
        glob = self.config.Global
        return bool((epoch_ended and (self.state.epoch % glob.save_interval == 0 or self.state.step == self.steps))
                    or (glob.save_steps and self.state.step % glob.save_steps == 0))

    def _save_is_near(self, step: int) -> bool:
        save_steps = self.config.Global.save_steps
        return step % self.steps_per_epoch == 0 or bool(save_steps and step % save_steps == 0)

    def _save(self) -> None:
        skipped = Counter(self._skipped_before)
        for counts in parallel.gather(dict(self.reader.skipped)):
            skipped.update(counts)
        self.state.skipped = dict(skipped)
        if parallel.is_main():
            self.state.scaler = self.scaler.state_dict() if self.scaler else {}
            self.state.scaler = {k: np.asarray(v).tolist() for k, v in self.state.scaler.items()}
            save_checkpoint(self.config.Global.output_dir, self.task.state(), self.optimizer, self.state,
                            self.config.Global.keep_checkpoints)
        parallel.barrier()

    def _is_saved(self) -> bool:
        """Whether output_dir holds a checkpoint of this step; rank 0's answer, since all ranks save together."""
        newest = find_checkpoint("auto", self.config.Global.output_dir)
        return parallel.gather(newest is not None and int(newest.name) == self.state.step)[0]

    def _checkpoint_to_resume(self) -> Path | None:
        glob = self.config.Global
        if glob.checkpoints:
            checkpoint = find_checkpoint(glob.checkpoints, glob.output_dir)
            names = {str(path and path.name) for path in parallel.gather(checkpoint)}
            if len(names) > 1:
                raise ConfigError(f"Global.checkpoints: the processes see different checkpoints ({', '.join(names)}); "
                                  "on several machines Global.output_dir must be a folder that all of them share")
            if checkpoint is None:
                self.log.say(f"nothing to resume in {glob.output_dir}: starting at step 0")
            elif not self._is_own(checkpoint) and (found := _run_in(glob.output_dir)):
                raise ConfigError(f"Global.output_dir: {glob.output_dir} already holds a run ({found}), and "
                                  f"Global.checkpoints goes on from another, {checkpoint}. Add --resume to go on with the "
                                  "one there, choose another output_dir, or delete the folder")
            return checkpoint
        if found := _run_in(glob.output_dir):
            raise ConfigError(f"Global.output_dir: {glob.output_dir} already holds a run ({found}). Add "
                              "--resume to go on with it, choose another output_dir, or delete the folder")
        return None

    def _is_own(self, checkpoint: Path) -> bool:
        return checkpoint.parent.resolve() == Path(self.config.Global.output_dir, "checkpoints").resolve()

    def _resume(self, folder: Path) -> None:
        state, files, optimizer = load_checkpoint(folder)
        same_run, newest = self._is_own(folder), find_checkpoint("auto", self.config.Global.output_dir)
        if same_run and int(newest.name) > state.step:
            raise ConfigError(f"Global.checkpoints: {folder} is older than {newest}, which a later resume would take. "
                              "Delete the newer checkpoints to go back, or give this run another Global.output_dir")
        if state.sizes != list(self.reader.sizes):
            raise ConfigError(f"{folder}: made with sources of {state.sizes} images, this run has "
                              f"{list(self.reader.sizes)}; the order of images would not be the same. Give the lists "
                              "of then, or start a new run from the student with Arch.Student.pretrained")
        if (state.global_batch, state.seed) != (self.global_batch, self.config.Global.seed):
            raise ConfigError(
                f"{folder}: made with {state.global_batch} images a step and seed {state.seed}, this run has "
                f"{self.global_batch} and {self.config.Global.seed}. Batch size x update_freq x processes and the seed "
                "fix which images a step sees; make them equal")
        if state.targets != self.state.targets:
            raise ConfigError(f"Global.targets: {folder} was made with {_named(state.targets)}, this run has "
                              f"{_named(self.state.targets)}; give the targets of then, or start a new run from the "
                              "student with Arch.Student.pretrained")
        for line in differences(state.config, plain(self.config.source)):
            self.log.say(f"resume: {line}")
        own = {stem: set(tensors) for stem, tensors in self.task.state().items()}
        if {stem: set(arrays) for stem, arrays in files.items()} != own:
            raise ConfigError(f"{folder}: holds {sorted(files)}, this run needs {sorted(own)} with the same "
                              "parameters; the networks (or EMA) of the two runs differ")
        self.task.load_state(files)
        self.optimizer.set_state_dict(optimizer)
        if self.scaler and state.scaler:
            self.scaler.load_state_dict({k: _scalar_or_array(v) for k, v in state.scaler.items()})
        if not same_run:
            # best_model.pdparams stays where it is; here the best is yet to be found
            state.best = state.best_step = None
        if state.metric != self.state.metric:
            self.log.say(f"resume: the best and the last {SHOWN[state.metric]} are left behind, from here on it is "
                         f"{SHOWN[self.state.metric]} that chooses the best model")
            state.best = state.best_step = state.last = None
            state.metric = self.state.metric
        state.config = plain(self.config.source)
        self.state = state
        self.log.say(f"resumed from {folder} at step {state.step}")

    def _amp(self) -> paddle.amp.GradScaler | None:
        amp = self.config.AMP
        if not amp.use_amp:
            return None
        if amp.level == "O2":
            self.task.trained, self.optimizer = paddle.amp.decorate(
                models=self.task.trained, optimizers=self.optimizer, level="O2", dtype=amp.dtype,
                save_dtype="float32")
        if amp.dtype != "float16":
            return None  # bfloat16 has float32's range
        return paddle.amp.GradScaler(init_loss_scaling=amp.scale_loss,
                                     use_dynamic_loss_scaling=amp.use_dynamic_loss_scaling)

    def _result(self) -> TrainResult:
        output = Path(self.config.Global.output_dir)
        last = output / "checkpoints" / f"{self.state.step:08d}" / "student.pdparams"
        weights = last if self.state.best is None else output / "best_model.pdparams"
        self.log.say(f"done: {self.state.step} steps, best {SHOWN[self.state.metric]} "
                     + (f"{self.state.best:.2%}" if self.state.best is not None else "not measured")
                     + f", student in {weights}")
        if self.state.skipped:
            text = "".join(f"{times}\t{path}\n" for path, times in sorted(self.state.skipped.items()))
            self.log.say(f"skipped {len(self.state.skipped)} corrupt images (times, path), also in "
                         f"{self.log.save_text('skipped.txt', text)}:\n{text}".rstrip())
        if self.config.Global.next_stage and parallel.is_main():
            self.log.say(f"next stage: {write_next_stage(self.config, str(weights))}")
        return TrainResult(str(output), self.state.step, self.state.best, self.state.last, str(weights))


def _run_in(output_dir: str) -> str | None:
    """What shows that a run has been here."""
    found = find_checkpoint("auto", output_dir)
    if found:
        return f"step {int(found.name)}"
    return "best_model.pdparams" if Path(output_dir, "best_model.pdparams").exists() else None


def _named(digest: str | None) -> str:
    return f"the stored targets {digest[:12]}" if digest else "a teacher at work, no stored targets"


def _scalar_or_array(value):
    return np.asarray(value, dtype=np.float32) if isinstance(value, list) else value


def _viewable(images: np.ndarray) -> np.ndarray:
    """A batch's images as uint8 [N, H, W, 3]; normalised ones are stretched to the range of the batch."""
    if images.dtype == np.uint8:
        return images
    low, high = images.min(), images.max()
    return ((images - low) / max(high - low, 1e-6) * 255).astype(np.uint8).transpose(0, 2, 3, 1)
