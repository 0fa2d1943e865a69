"""PaddleClas's keys that have no field in our schema: what becomes of each, and why. Facts of its `develop` d178931."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Foreign:
    """A key of PaddleClas. Not refused means accepted without effect, with a notice that gives the reason.

    neutral: values that ask for nothing, accepted in silence.
    """

    reason: str
    refused: bool = False
    neutral: tuple[Any, ...] = (None, False)


def _no_effect(reason: str, *neutral: Any) -> Foreign:
    return Foreign(reason, neutral=(None, False, *neutral))


def _refused(reason: str, *neutral: Any) -> Foreign:
    return Foreign(reason, refused=True, neutral=neutral or (None, False))


_RETRIEVAL = "only classification is trained and evaluated here, not retrieval or face recognition"
_ML_DECODER = "a network here is one PaddleClas backbone with its own classifier, not ML-Decoder's attention"
_SEMI_SUPERVISED = ("unlabelled images are sources of DataLoader.Train here (`sources`, each with `labelled: false` "
                    "and a `ratio`), and Loss.Train says what they teach")
_RECOGNITION = "a network here is one PaddleClas backbone with its classifier, not backbone, neck and head apart"

# Table -> key -> what becomes of it.
KEYS: dict[str, dict[str, Foreign]] = {
    "": {
        "UnLabelLoss": _refused(_SEMI_SUPERVISED),
        "SSL": _refused(_SEMI_SUPERVISED),
        "Slim": _refused("pruning and quantisation are PaddleSlim's work, after training"),
        "MLDecoder": _refused(_ML_DECODER),
        "IndexProcess": _refused(_RETRIEVAL),
        "base_config_file": _refused("a list of values to search through for tools/search_strategy.py of PaddleClas; "
                                     "train the config that it names"),
        "ARCHITECTURE": _refused("the layout of PaddleClas up to 2.1, which its later versions do not read either; "
                                 "start from one of their YAMLs"),
        "profiler_options": _no_effect("use Paddle's profiler around the process"),
    },
    "Global": {
        "to_static": _no_effect("training is eager; the numbers do not depend on it"),
        "print_mem_info": _no_effect("memory is not logged"),
        "log_ranks": _no_effect("rank 0 logs"),
        "uniform_output_enabled": _no_effect("it is PaddleX's folder layout"),
        "pdx_model_name": _no_effect("it is PaddleX's name for the model"),
        "hpi_config_path": _no_effect("it is PaddleX's inference plug-in"),
        "export_for_fd": _no_effect("inference.yml is always written at export", True),
        "use_dali": _refused("images are decoded by OpenCV; set it to False"),
        "eval_mode": _refused(_RETRIEVAL, None, "classification"),
        "train_mode": _refused("an epoch trains with one image size and one loss"),
        "iter_per_epoch": _refused("an epoch is DataLoader.Train's epoch_of; bound the run with Global.max_steps"),
        "image_channel": _refused("images have 3 channels", None, 3),
    },
    "Arch": {
        "Backbone": _refused(_RECOGNITION),
        "BackboneStopLayer": _refused(_RECOGNITION),
        "Neck": _refused(_RECOGNITION),
        "Head": _refused(_RECOGNITION),
        "is_rec": _refused(_RECOGNITION),
        "infer_output_key": _refused("the exported network gives class scores, not features", None),
        "infer_add_softmax": _refused("the exported network gives class scores", None, True),
        "use_ml_decoder": _refused(_ML_DECODER),
    },
    "Arch of DistillationModel": {
        "use_ssld": _no_effect("each of the models has its own"),
        "pretrained": _no_effect("each of the models has its own", ""),
        "infer_output_key": _refused("the exported network gives class scores, not features", None),
        "infer_add_softmax": _refused("the exported network gives class scores", None, True),
        "is_rec": _refused(_RECOGNITION),
    },
    "AMP": {
        "use_fp16_test": _no_effect("evaluation runs in float32"),
        "use_promote": _no_effect("mixed inputs of one operator follow Paddle's own rule"),
    },
    "Optimizer": {
        "clip_grad": _no_effect("it has none in PaddleClas either; clip_norm bounds the gradient's norm"),
    },
    "DataLoader": {
        "UnLabelTrain": _refused(_SEMI_SUPERVISED),
        "Test": _refused("there are Train and Eval"),
    },
    "DataLoader.*": {
        "Gallery": _refused(_RETRIEVAL),
        "Query": _refused(_RETRIEVAL),
        # In PaddleClas's form these stand one level lower.
        "batch_size": _refused("beside `dataset` it is called sampler.batch_size"),
        "shuffle": _refused("beside `dataset` it is called sampler.shuffle"),
        "drop_last": _refused("beside `dataset` it is called sampler.drop_last"),
        "num_workers": _refused("beside `dataset` it is called loader.num_workers"),
        "transform_ops": _refused("beside `dataset` it is called dataset.transform_ops"),
    },
    "dataset": {
        "relabel": _refused("labels are class ids from 0; renumber them in the list file"),
    },
    "PostProcess": {
        "delimiter": _refused("a class file has lines `id name`", None, " "),
        "key": _refused("predictions are made from the class scores", None, "logits"),
    },
    "metric": {
        "feature_key": _refused("accuracy is that of the class scores", None, "logits"),
    },
}

# DataLoader.*.dataset.name that is not read -> why not.
DATASETS = {
    "MixDataset": "give the lists as `sources` of DataLoader.Train, each with its `ratio`",
    "CustomLabelDataset": "a transform makes its labels (`label_key`), and labels come from lists or folders here; a list "
                          "without labels is one of the `sources` of DataLoader.Train, with `labelled: false`",
    "MultiScaleDataset": "an epoch trains with one image size",
    "Cifar10": "write the images to folders of classes and give `sources: [{name: train, folder: ...}]`",
    "Cifar100": "write the images to folders of classes and give `sources: [{name: train, folder: ...}]`",
    **dict.fromkeys(("VeriWild", "CompCars", "LogoDataset", "ICartoonDataset", "Market1501", "MSMT17", "DukeMTMC",
                     "FiveValidationDataset", "AdaFaceDataset"), _RETRIEVAL),
}

# Arch.name or a model's name that is a construction kit, not a backbone -> why not.
MODELS = {
    "RecModel": _RECOGNITION,
    "AttentionModel": "networks are compared by their outputs and feature taps, without trained attention between them",
}

_OTHER_METHOD = ("it belongs to another method of distillation than SSLD; what compares networks here is SymmetricKL, "
                 "JSDivergence, KLDivergence, SoftCrossEntropy, and PaddleClas's DistillationDMLLoss, "
                 "DistillationCELoss, DistillationKLDivLoss and DistillationDistanceLoss")
_CLASS_IDS = "labels are class ids, taught by CELoss or DistillationGTCELoss; Mixup and CutMix share them out"

# Entries of Loss.Train that PaddleClas has and this package has not -> why not.
LOSSES = {
    **dict.fromkeys(("DistillationDKDLoss", "DistillationDISTLoss", "DistillationSKDLoss", "DistillationWSLLoss",
                     "DistillationRKDLoss"), _OTHER_METHOD),
    "DistillationPairLoss": "a loss here has no layers of its own to train (MGDLoss, PEFDLoss); distances of features "
                            "are DistillationDistanceLoss",
    "AFDLoss": "networks are compared by their outputs and feature taps, without trained attention between them",
    "MultiLabelAsymmetricLoss": "several labels an image are taught by MultiLabelLoss or DistillationMultiLabelLoss",
    **dict.fromkeys(("MixCELoss", "SoftTargetCrossEntropy"), _CLASS_IDS),
    **dict.fromkeys(("SoftSupConLoss", "CCSSLCELoss"), _SEMI_SUPERVISED),
    **dict.fromkeys(("CenterLoss", "ContrastiveLoss", "ContrastiveLoss_XBM", "EmlLoss", "MSMLoss", "NpairsLoss",
                     "TriHardLoss", "TripletLoss", "TripletLossV2", "TripletAngularMarginLoss", "TripletAngularMarginLoss_XBM",
                     "SupConLoss", "PairwiseCosface", "DSHSDLoss", "LCDSHLoss", "DCHLoss", "CELossForMetaBIN",
                     "TripletLossForMetaBIN", "InterDomainShuffleLoss", "IntraDomainScatterLoss"), _RETRIEVAL),
}

# Metric.Train or Metric.Eval entries that only report a number: named in a notice and left out.
REPORTS_ONLY = ("TprAtFpr",)
REPORTS_ONLY_OF_ATTRIBUTES = ("AccuracyScore", "HammingDistance", "MultiLabelMAP")  # with Global.use_multilabel
