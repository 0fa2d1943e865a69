"""Student, teachers and loss as one object that the loop calls, and that knows what a checkpoint owns.

A checkpoint owns the trained networks, their average and the optimiser. It never holds a teacher: that one is
rebuilt from its own weights file, and nothing here can have changed it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import paddle

from .. import parallel
from ..arch import (Ema, Ensemble, LoadReport, Teacher, assign, batch_norms, build_frozen, build_network, check_name,
                    fast_on_cpu, initialise, logits_of, train_mode)
from ..config.schema import RunConfig
from ..errors import ConfigError
from ..loss import CombinedLoss, Labels
from ..rng import framework_seed
from ..structs import Batch
from .stored import StoredTeacher


class Trained(paddle.nn.Layer):
    """The networks that learn, by role; images [N, 3, H, W] -> {role: logits or dict of taps}.

    taps_only: roles of which the loss reads taps and no logits. Theirs come detached, which is how DataParallel learns
    that the layers behind the last tap get no gradient.
    """

    def __init__(self, networks: Mapping[str, paddle.nn.Layer], taps_only: Collection[str] = ()):
        super().__init__()
        self.networks = paddle.nn.LayerDict(dict(networks))
        self._taps_only = taps_only

    def forward(self, images):
        outputs = {role: network(images) for role, network in self.networks.items()}
        for role in self._taps_only:
            outputs[role] = {**outputs[role], "logits": outputs[role]["logits"].detach()}
        return outputs


class DistillationTask:
    """Everything between a batch and its loss.

    trained: Trained, the networks that learn. teachers: frozen ones, by role; not sub-layers of anything.
    stored: instead of them, a teacher's answers from disk; then none is loaded. yes_share: of the Train reader.
    multilabel: an image has several labels.
    reports: per role, what its weights file gave (None where nothing was asked for).
    """

    def __init__(self, config: RunConfig, stored: StoredTeacher | None = None, yes_share: np.ndarray | None = None):
        self.student_role = config.Arch.infer_model_name
        self.multilabel = config.Global.use_multilabel
        self._yes_share = None if yes_share is None else paddle.to_tensor(yes_share)
        self.loss = build_loss(config)
        learning = [n for n in config.Arch.networks if not n.frozen]
        self.reports: dict[str, LoadReport | None] = {}
        networks = {}
        for index, network in enumerate(learning):
            # The same initial weights on every rank, whatever else was built before.
            paddle.seed(framework_seed(config.Global.seed, index, 0))
            networks[network.role] = build_network(network, config.Arch.class_num,
                                                   self.loss.feature_keys.get(network.role, ()))
            self.reports[network.role] = initialise(networks[network.role], network)
            if config.Global.on_fast_cpu:
                fast_on_cpu(networks[network.role])
        reads_logits = {role for term in self.loss.terms for role in term.roles if role not in term.feature_keys}
        self.trained = Trained(networks, networks.keys() - reads_logits)
        if config.Arch.use_sync_bn and not config.Global.device.startswith("cpu"):
            self.trained = _synchronised(self.trained)
        self._bn_modes = {n.role: n.bn_mode for n in learning}
        self.teachers: dict[str, Teacher | Ensemble] = {}
        self.stored = stored
        for network in config.Arch.networks:
            if network.frozen and not stored:
                self.teachers[network.role], reports = build_frozen(
                    network, config.Arch.class_num, config.Global.image_shape, config.Global.device,
                    self.loss.feature_keys.get(network.role, ()), config.Global.on_fast_cpu)
                self.reports |= reports
        self.ema = Ema(self.student, config.EMA.decay) if config.EMA else None
        self._amp = config.AMP
        self._parallel = self.trained

    @property
    def student(self) -> paddle.nn.Layer:
        return self.trained.networks[self.student_role]

    def named_parameters(self) -> list[tuple[str, paddle.Tensor]]:
        """Trained parameters as (name, parameter); names carry their role only when several networks learn."""
        networks = self.trained.networks
        alone = len(networks) == 1
        return [(name if alone else f"{role}.{name}", parameter)
                for role, network in networks.items() for name, parameter in network.named_parameters()
                if not parameter.stop_gradient]  # batch norm's running statistics count as parameters in Paddle

    def distribute(self) -> None:
        """Average gradients over ranks from here on. After weights and AMP decoration are in place."""
        self._parallel = parallel.wrap(self.trained, find_unused_parameters=bool(self.loss.feature_keys))

    def share_statistics(self) -> None:
        """Give every rank rank 0's running statistics, which are those that are saved.

        Before each evaluation, so that all ranks score the student that a checkpoint holds. They influence nothing else.
        """
        for network in self.trained.networks.values():
            for value in network.state_dict(use_hook=False).values():
                if value.stop_gradient:
                    parallel.broadcast_(value)
        if self.ema:
            self.ema.take_statistics()

    def train_mode(self) -> None:
        for role, network in self.trained.networks.items():
            train_mode(network, self._bn_modes[role])

    def no_sync(self):
        return parallel.no_sync(self._parallel)

    def teach(self, batch: Batch, images: paddle.Tensor) -> dict:
        """Every teacher's outputs for this batch, detached; or what is stored of them."""
        if self.stored:
            return {self.stored.role: self.stored.answer(batch)}
        with self._autocast():
            return {role: teacher(images) for role, teacher in self.teachers.items()}

    def scoring(self):
        """Context in which the student takes float32 images outside training: O2 gave it weights of 16 bits."""
        return self._autocast() if self._amp.level == "O2" else nullcontext()

    def losses(self, batch: Batch, images: paddle.Tensor, taught: Mapping, n_all: float, n_labelled: float
               ) -> tuple[dict[str, paddle.Tensor], paddle.Tensor]:
        """(named scalar losses with the total under "loss", the student's logits [N, C]).

        n_all, n_labelled: images that the mean is taken over; see CombinedLoss. A label-free loss is not shown
        the labels at all.
        """
        with self._autocast():
            outputs = {**taught, **self._parallel(images)}
        labels = _labels(batch, self._yes_share) if self.loss.needs_labels else None
        return self.loss(outputs, labels, n_all, n_labelled), \
            logits_of(outputs[self.student_role])

    def state(self) -> dict[str, dict[str, paddle.Tensor]]:
        """What a checkpoint owns besides the optimiser: file stem -> state dict."""
        files = {self._stem(role): network.state_dict() for role, network in self.trained.networks.items()}
        if self.ema:
            files["ema"] = self.ema.shadow
        return files

    def load_state(self, files: Mapping[str, Mapping[str, np.ndarray]]) -> None:
        """Take a checkpoint's arrays back, every key of them."""
        for role, network in self.trained.networks.items():
            assign(network, files[self._stem(role)])
        if self.ema:
            for key, tensor in self.ema.shadow.items():
                tensor.set_value(files["ema"][key])

    def _stem(self, role: str) -> str:
        return "student" if role == self.student_role else role

    def _autocast(self):
        if not self._amp.use_amp:
            return nullcontext()
        return paddle.amp.auto_cast(level=self._amp.level, dtype=self._amp.dtype)


def _synchronised(trained: Trained) -> Trained:
    trained = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(trained)
    left = [n for n in batch_norms(trained) if not isinstance(n, paddle.nn.SyncBatchNorm)]
    if left:
        raise ConfigError(f"Arch.use_sync_bn: {len(left)} batch norms here are paddle.nn.{type(left[0]).__name__}, which "
                          "Paddle cannot synchronise (ResNet_vd and MobileNetV3 among others); set it to false and give "
                          "each process enough images")
    return trained


def build_loss(config: RunConfig) -> CombinedLoss:
    """Loss.Train, after a check that names are known (of Loss.Eval too) and every network has a part in it. Quick:
    builds no network.

    Raises ConfigError, also for a frozen network that no loss compares with, for another that none trains, and for
    mixed images with several labels that a loss reads.
    """
    for network in config.Arch.networks:
        check_name(network)
    student, several = config.Arch.infer_model_name, config.Global.use_multilabel
    loss = CombinedLoss(config.Loss.Train, "Loss.Train", [n.role for n in config.Arch.networks], student, several)
    if config.Loss.Eval and config.DataLoader.Eval and config.Global.eval_during_train:
        CombinedLoss(config.Loss.Eval, "Loss.Eval", [student], student, several)
    if several and loss.needs_labels and config.DataLoader.Train and config.DataLoader.Train.batch_transform_ops:
        raise ConfigError("DataLoader.Train.batch_transform_ops: an image with several labels cannot be mixed with "
                          f"another where a loss reads them ({', '.join(t.name for t in loss.terms if t.needs_labels)}); "
                          "leave it out")
    for network in config.Arch.networks:
        if network.role not in loss.roles:
            what = "compared with" if network.frozen else "trained by"
            raise ConfigError(f"Arch.{network.role} is not {what} any loss; Loss.Train uses "
                              f"{', '.join(sorted(loss.roles))}. Remove the network or add a loss that names it")
        if not network.frozen and network.role not in loss.trained:
            raise ConfigError(f"Arch.{network.role} is not trained by any loss: where Loss.Train names it, it is only "
                              f"what another network is compared with. Set Arch.{network.role}.frozen: true (in "
                              "PaddleClas's form freeze_params_list), or add a loss of its own")
    if all(n.frozen for n in config.Arch.networks):
        raise ConfigError("Arch: every network is frozen, nothing is left to train")
    return loss


def fitted_to_device(config: RunConfig) -> tuple[RunConfig, list[str]]:
    """The config as this device can run it, and a sentence for the log for each thing that differs from what was asked."""
    notices = []
    if config.Global.device.startswith("cpu"):
        if config.AMP.use_amp:
            config = replace(config, AMP=replace(config.AMP, use_amp=False))
            notices.append("AMP is off: Paddle has none on cpu")
        if config.Arch.use_sync_bn:
            config = replace(config, Arch=replace(config.Arch, use_sync_bn=False))
            notices.append("use_sync_bn is off: Paddle has none on cpu; each process normalises with its own images")
    return config, notices


def _labels(batch: Batch, yes_share: paddle.Tensor | None) -> Labels:
    return Labels(paddle.to_tensor(batch.labels), paddle.to_tensor(batch.partner_labels), paddle.to_tensor(batch.share),
                  yes_share)
