"""PaddleClas's entries that have no counterpart here are refused with the reason, not with a look-alike's name."""

from __future__ import annotations

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.config.paddleclas import LOSSES
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.loss import LOSSES as OURS


@pytest.mark.parametrize("name, reason", [
    ("DistillationDKDLoss", "another method of distillation than SSLD"),
    ("DistillationPairLoss", "no layers of its own"),
    ("MultiLabelAsymmetricLoss", "taught by MultiLabelLoss"), ("TripletLoss", "not retrieval"),
])
def test_a_loss_that_paddleclas_has_and_we_have_not_is_refused_with_the_reason(theirs, name, reason):
    theirs["Loss"]["Train"].append({name: {"weight": 1.0}})
    with pytest.raises(ConfigError, match=rf"Loss.Train.1.{name}: cannot be computed here: .*{reason}") as found:
        resolve(theirs)
    assert "did you mean" not in str(found.value)


def test_no_loss_is_both_refused_and_ours():
    assert not set(LOSSES) & set(OURS.names())


@pytest.mark.parametrize("key, reason", [("base_config_file", "train the config that it names"),
                                         ("ARCHITECTURE", "up to 2.1")])
def test_files_that_are_no_training_config_of_today_say_what_they_are(theirs, key, reason):
    theirs.update({key: "x.yaml", "zzz": 1})
    with pytest.raises(ConfigError, match=rf"config: {key}: 'x.yaml' cannot be done here: .*{reason}"):
        resolve(theirs)


def test_an_eval_list_that_is_trained_on_is_noted(theirs):
    assert not resolve(theirs).notices
    theirs["DataLoader"]["Eval"]["dataset"]["cls_label_path"] = "./images/train.txt"
    note, = resolve(theirs).notices
    assert "DataLoader.Eval has the list of DataLoader.Train, ./images/train.txt" in note
    del theirs["DataLoader"]["Eval"]
    theirs["Global"]["eval_during_train"] = False
    assert not any("has the list" in note for note in resolve(theirs).notices)
