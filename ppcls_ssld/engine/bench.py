"""Where the time of a training step goes, on this machine and with this config."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace

import cv2
import paddle

from .. import parallel
from ..arch import on_device, prepare_process
from ..config.schema import RunConfig
from ..data import TrainReader, pixels
from ..data.files import Archives, read_bytes
from ..errors import ConfigError, DataError
from ..loss import labelled_mask
from ..rng import Stream, generator
from ..structs import Batch
from .logbook import Logbook
from .train import Run

STUDENT = ("student forward, loss", "student backward", "optimiser")
WARM_UP = 3  # steps that count for nothing: allocations, kernels chosen, readers filled
WAITS, TEACHES, CARRIES = 0.05, 0.2, 0.05  # shares of a step from which on advice is given
KEEPS_UP = 1.2  # a reader this much faster than the step does not hold it up


@dataclass(frozen=True)
class Part:
    """One part alone: milliseconds for one batch of this process, median and range of the repeats."""

    name: str
    ms: float
    low: float
    high: float
    images_per_s: float
    note: str = ""


@dataclass(frozen=True)
class BenchReport:
    """batch_size: images a micro-step and process. parts: each by itself, in the order of a step; the reader's run on one
    core. reader: what the configured workers deliver when nobody else works. step: a whole step on a batch that is there
    already. training: as it runs, reader and step together; waits: its share of waiting for data, in [0, 1]. advice:
    sentences, the most useful first."""

    batch_size: int
    processes: int
    device: str
    parts: tuple[Part, ...]
    reader: Part
    step: Part
    training: Part
    waits: float
    advice: tuple[str, ...]

    def as_json(self) -> dict:
        return asdict(self)


def bench(config: RunConfig, steps: int = 20) -> BenchReport:
    """Measure the parts of `steps` training steps. Writes nothing; weights that it trains are thrown away.

    Raises ConfigError and DataError as training does, and ConfigError for a list without a readable image.
    """
    if config.Global.on_fast_cpu:
        prepare_process()
    parallel.init(config.Global.device)
    with tempfile.TemporaryDirectory(prefix="bench_") as folder, paddle.utils.unique_name.guard():
        quiet = replace(config.Global, output_dir=folder, checkpoints=None, next_stage=None, eval_during_train=False)
        run = Run(replace(config, Global=quiet), Logbook(folder, active=False))
        run.task.train_mode()
        return _measure(run, steps)


def _measure(run: Run, steps: int) -> BenchReport:
    loader = run.config.DataLoader.Train
    n = loader.batch_size
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)  # one core, as in a reader process
    inline = _reader_parts(run, n, steps)
    cv2.setNumThreads(threads)
    batches = run.reader.batches(0, WARM_UP + 2 * steps)
    delivered = _timed("reader, as configured", n, steps, lambda: next(batches),
                       note=f"{loader.num_workers} worker processes" if loader.num_workers else "in this process")
    batch = next(batches)
    batches.close()
    network = _network_parts(run, batch, steps)
    micro = run.config.Global.update_freq
    step = _timed("step without the reader", n, steps, lambda: run.step(0, [batch] * micro), micro * n)
    waits, training = _training(run, steps, n, micro)
    report = BenchReport(n, parallel.world_size(), run.config.Global.device, (*inline, *network), delivered, step,
                         training, waits, ())
    engines = {f"Arch.{role}": (teacher.engine, teacher.reason) for role, teacher in run.task.teachers.items()}
    return replace(report, advice=tuple(advice(report, run.config, engines)))


def _reader_parts(run: Run, n: int, steps: int) -> list[Part]:
    """One core, no workers: reading files, decoding them, and all that makes a batch of them."""
    loader = replace(run.config.DataLoader.Train, num_workers=0)
    stored = run.task.stored
    reader = TrainReader(loader, run.config.Arch.class_num, run.config.Global.seed, parallel.rank(),
                         parallel.world_size(), stored=stored and stored.store, multilabel=run.task.multilabel)
    names = _some_names(reader, n)
    with Archives() as archives:
        reading = _timed("read files", n, steps, lambda: [read_bytes(name, archives) for name in names], len(names))
        encoded = [read_bytes(name, archives) for name in names]
    decoding = _timed("decode whole images", n, steps,
                      lambda: [pixels.decode(data, name) for data, name in zip(encoded, names)], len(names))
    batches = reader.batches(0, WARM_UP + steps)
    whole = _timed("read, decode, augment, stack", n, steps, lambda: next(batches), note="on one core")
    return [reading, decoding, whole]


def _some_names(reader: TrainReader, n: int) -> list[str]:
    """Up to n readable images, drawn from all sources."""
    total = sum(reader.sizes)
    names = []
    for sample in generator(0, 0, 0, Stream.SUBSET).permutation(total)[:4 * n].tolist():
        for images in reader.lists:
            if sample < len(images):
                name = images.path(sample)
                break
            sample -= len(images)
        try:
            pixels.decode(read_bytes(name), name)
        except DataError:
            continue
        names.append(name)
        if len(names) == n:
            break
    if not names:
        raise ConfigError(f"DataLoader.Train: none of {4 * n} images can be read; is the root folder right?")
    return names


def _network_parts(run: Run, batch: Batch, steps: int) -> list[Part]:
    """Copy, teacher, student forward, backward, optimiser; each waited for, so that their sum may exceed a step."""
    task, n = run.task, len(batch)
    images = on_device(batch)
    taught = task.teach(batch, images)
    scale = run.scaler.scale if run.scaler else lambda loss: loss
    n_labelled = float(max(1, labelled_mask(batch.labels, batch.labels).sum()))
    state: dict = {}

    def forward():
        state["loss"] = task.losses(batch, images, taught, float(n), n_labelled)[0]["loss"]

    def backward():
        scale(state["loss"]).backward()

    parts = [_timed("copy to the device, normalise", n, steps, lambda: on_device(batch))]
    if task.stored:
        parts.append(_timed("stored answers", n, steps, lambda: task.teach(batch, images)))
    elif task.teachers:
        engines = ", ".join(f"{teacher.engine}" for teacher in task.teachers.values())
        parts.append(_timed("teacher", n, steps, lambda: task.teach(batch, images), note=engines))
    times: dict[str, list[float]] = {name: [] for name in STUDENT}
    for i in range(WARM_UP + steps):
        for (name, kept), work in zip(times.items(), (forward, backward, lambda: run.step.update(i))):
            seconds = _seconds(work)
            if i >= WARM_UP:
                kept.append(seconds)
    return parts + [_part(name, n, seconds) for name, seconds in times.items()]


def _training(run: Run, steps: int, n: int, micro: int) -> tuple[float, Part]:
    """(share of waiting for data, whole steps), as training runs: nothing is waited for but the data and the end."""
    batches: Iterator[Batch] = run.reader.batches(0, (WARM_UP + steps) * micro)
    waited, whole = [], []
    for i in range(WARM_UP + steps):
        start = time.perf_counter()
        group = [next(batches) for _ in range(micro)]
        there = time.perf_counter()
        run.step(i, group)
        _wait()
        if i >= WARM_UP:
            waited.append((there - start) / micro)
            whole.append((time.perf_counter() - start) / micro)
    waits = sum(waited) / sum(whole)
    return waits, _part("training, as it runs", n, whole, f"waits for data {waits:.0%}")


def advice(report: BenchReport, config: RunConfig, engines: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    """What to change, by what stands out. Each sentence names the option. engines: key path -> (engine, why that one)."""
    ms = {part.name: part.ms for part in report.parts}
    loader = config.DataLoader.Train
    if report.waits > WAITS and report.reader.images_per_s < KEEPS_UP * report.step.images_per_s:
        needed = -(-ms["read, decode, augment, stack"] // report.step.ms)
        theirs = "dataset" in config.source.get("DataLoader", {}).get("Train", {})
        yield (f"{report.waits:.0%} of the time is waiting for images: the reader ({report.reader.note}) delivers "
               f"{report.reader.images_per_s:.0f} images/s, the step could take {report.step.images_per_s:.0f}. "
               f"Cores of this kind that would keep up: {needed:.0f} (DataLoader.Train.{'loader.' if theirs else ''}"
               "num_workers); fewer after `ppcls-ssld pack`, which shrinks the images once")
    # Not of the whole step: parts are waited for one by one, and the teacher's may take longer than it does.
    rest = sum(ms[name] for name in ("copy to the device, normalise", *STUDENT))
    teaches = ms.get("teacher", 0.0) / (ms.get("teacher", 0.0) + rest)
    if teaches > TEACHES:
        yield (f"the teacher takes {teaches:.0%} of a step; with stored answers (`ppcls-ssld targets write`, then "
               f"Global.targets) the step would be up to {1 / (1 - teaches):.1f} times faster")
        for path, (engine, reason) in engines.items():
            if "eager" in engine and "batch_stats" in reason and report.device.startswith("cpu"):
                yield f"{path} runs layer by layer ({reason}); bn_mode: eval allows the inference engine"
    if ms["copy to the device, normalise"] > CARRIES * report.step.ms:
        yield ("images take long to reach the device; if transforms or Mixup make floats of them, four times the bytes "
               "travel: keep RandomErasing and Mixup out, or let Cutmix do it")
    if not config.AMP.use_amp and not report.device.startswith("cpu"):
        yield "AMP is off; AMP: {use_amp: true, level: O1} is usually faster on this kind of device"


def _timed(name: str, n: int, steps: int, work: Callable, per: int | None = None, note: str = "") -> Part:
    """Median over `steps` calls, after the warm-up. per: images that one call handles, if not n."""
    seconds = [_seconds(work) for _ in range(WARM_UP + steps)][WARM_UP:]
    return _part(name, n, [s * n / (per or n) for s in seconds], note)


def _part(name: str, n: int, seconds: list[float], note: str = "") -> Part:
    middle = statistics.median(seconds)
    return Part(name, 1e3 * middle, 1e3 * min(seconds), 1e3 * max(seconds), n / middle, note)


def _seconds(work: Callable) -> float:
    start = time.perf_counter()
    work()
    _wait()
    return time.perf_counter() - start


def _wait() -> None:
    """Until the device has done all it was told."""
    if not paddle.device.get_device().startswith("cpu"):
        paddle.device.synchronize()
