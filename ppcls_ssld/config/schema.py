"""The shape of a run: frozen dataclasses, one per section of the YAML, with every default in one place.

Field names are those of PaddleClas's YAML where it has one, so that a key path in an error is a key path in the file.
`load.py` fills these from files and flags; nothing here reads a file or builds an object.
Lists of `{name: arguments}` stay as they are: the room that owns the constructors checks them (registry.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Mapping

BN_MODES = ("batch_stats", "eval")
ENGINES = ("auto", "eager", "inference")
ENSEMBLE = "Ensemble"  # in the place of a backbone's name: several frozen networks that answer as one
Entry = Mapping[str, Any]  # {"Name": {arguments}}


@dataclass(frozen=True)
class GlobalConfig:
    output_dir: str = "./output"
    device: str = "cpu"  # cpu | gpu | gpu:N | xpu | ...
    fast_cpu: bool = True  # on CPU: convolutions as matrix products where that pays, and a few settings of the process
    seed: int = 0
    epochs: int = 1
    max_steps: int | None = None  # stop after this many optimiser steps, whatever `epochs` says
    update_freq: int = 1  # micro-steps per optimiser step (gradient accumulation)
    print_batch_step: int = 10  # a row of metrics.jsonl every this many steps
    image_shape: tuple[int, int, int] = (3, 224, 224)
    use_multilabel: bool = False  # an image has class_num labels, each yes, no or not known, instead of one class
    pretrained_model: str | None = None  # the student's weights, for eval, export and infer; train refuses it
    checkpoints: str | None = None  # an output folder or one checkpoint in it; 'auto' = output_dir if it holds one
    save_interval: int = 1  # epochs between checkpoints
    save_steps: int | None = None  # steps between checkpoints, besides those of save_interval
    keep_checkpoints: int = 2
    eval_during_train: bool = True
    eval_interval: int = 1  # epochs
    start_eval_epoch: int = 0
    use_visualdl: bool = False
    save_inference_dir: str = "./inference"
    teacher_check_images: int = 512  # images of the Eval list on which the teacher is scored before step 1; 0 = don't
    allow_chance_teacher: bool = False  # go on although the teacher is no better than chance
    next_stage: str | None = None  # write the config of the fine-tuning stage here when the run ends
    targets: str | None = None  # folder of stored teacher targets (`targets write`); the teacher is then not loaded

    @property
    def on_fast_cpu(self) -> bool:
        return self.fast_cpu and self.device.startswith("cpu")


@dataclass(frozen=True)
class NetworkConfig:
    """One network. arguments: keyword arguments of the PaddleClas factory `name` (dropout_prob, ...).

    class_num is not among them: all networks share ArchConfig's.
    """

    role: str  # "Student", "Teacher", ... as named in the YAML
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    pretrained: str | bool | None = None  # path without or with .pdparams, True = PaddleClas's URL table
    use_ssld: bool = False  # with pretrained: True, the *_ssld weights
    frozen: bool = False
    bn_mode: str = "batch_stats"  # batch_stats | eval
    engine: str = "auto"  # of a frozen network: auto | eager | inference
    output_stride: int | None = None  # for small images: give up the reductions that come after 1/output_stride
    allow_partial: bool = False  # start although the weights file lacks part of the backbone, or of a frozen network
    members: tuple[NetworkConfig, ...] = ()  # of an Ensemble, whose answer is the weighted mean of their probabilities
    weight: float = 1.0  # of a member; only the ratios matter


@dataclass(frozen=True)
class ArchConfig:
    networks: tuple[NetworkConfig, ...]
    infer_model_name: str  # role of the network that is evaluated, exported and called the student
    class_num: int
    use_sync_bn: bool = False

    def network(self, role: str) -> NetworkConfig:
        return next(n for n in self.networks if n.role == role)


@dataclass(frozen=True)
class LossConfig:
    Train: tuple[Entry, ...]
    Eval: tuple[Entry, ...] = ()


@dataclass(frozen=True)
class OptimizerConfig:
    name: str = "Momentum"
    arguments: Mapping[str, Any] = field(default_factory=dict)  # momentum, beta1, ...
    lr: Mapping[str, Any] = field(default_factory=lambda: {"name": "Constant", "learning_rate": 0.01})
    l2: float = 0.0  # regularizer {name: L2, coeff}; for AdamW `weight_decay` is an argument
    clip_norm: float | None = None  # global norm
    layer_lr: Mapping[str, float] = field(default_factory=dict)  # parameter-name prefix -> multiplier; 0 freezes
    no_decay: tuple[str, ...] = ()  # substrings of parameter names without weight decay
    no_decay_1d: bool = False  # no weight decay on biases and norm scales


@dataclass(frozen=True)
class SourceConfig:
    """One named source of images: a list, or a folder.

    list: text file, `path` or `path<delimiter>label` a line, paths relative to `root`. delimiter: None for a space, with
    several labels an image a tab; behind the path of an unlabelled image either.
    folder: a folder tree of images; with labelled=True each sub-folder is a class, in sorted order.
    weights: text file, one number >= 0 a line, for each image of `list` how often a pass visits it, on average.
    """

    name: str
    list: str | None = None
    folder: str | None = None
    root: str = "."
    labelled: bool = True
    ratio: float | None = None  # share of each batch; None for all sources = proportional to their sizes
    delimiter: str | None = None
    weights: str | None = None


@dataclass(frozen=True)
class LoaderConfig:
    sources: tuple[SourceConfig, ...]
    transform_ops: tuple[Entry, ...]
    batch_transform_ops: tuple[Entry, ...] = ()
    batch_size: int = 64  # images per process and micro-step
    shuffle: bool = False
    drop_last: bool = False
    epoch_of: str | None = None  # the source whose size defines an epoch; None = all of them together
    on_corrupt: str = "stop"  # stop | skip
    num_workers: int = 2
    use_shared_memory: bool = True
    prefetch_factor: int = 2  # batches per worker read ahead


@dataclass(frozen=True)
class DataConfig:
    Train: LoaderConfig | None = None
    Eval: LoaderConfig | None = None


@dataclass(frozen=True)
class AmpConfig:
    use_amp: bool = False
    level: str = "O1"  # O1 | O2
    dtype: str = "float16"  # float16 | bfloat16
    scale_loss: float = 32768.0
    use_dynamic_loss_scaling: bool = True


@dataclass(frozen=True)
class EmaConfig:
    decay: float = 0.9999


@dataclass(frozen=True)
class MetricConfig:
    topk: tuple[int, ...] = (1, 5)  # top-1 is counted in any case: it chooses the best model


@dataclass(frozen=True)
class InferConfig:
    transforms: tuple[Entry, ...] = ()
    infer_imgs: str | None = None
    batch_size: int = 10
    topk: int = 5
    class_id_map_file: str | None = None
    attributes: Entry | None = None  # PostProcess of several labels an image: {name: arguments} of attributes.py


@dataclass(frozen=True)
class RunConfig:
    """A whole run. `source` is the resolved tree as written, for the log, config.yaml and checkpoints.

    notices: what was accepted without effect, or read otherwise than PaddleClas reads it; for the log.
    """

    Global: GlobalConfig
    Arch: ArchConfig
    Loss: LossConfig
    Optimizer: OptimizerConfig
    DataLoader: DataConfig
    AMP: AmpConfig
    EMA: EmaConfig | None
    Metric: MetricConfig
    Infer: InferConfig
    source: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()
