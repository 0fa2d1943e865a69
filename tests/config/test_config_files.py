"""Files, _base_, flags, dump and differences."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from ppcls_ssld.config import differences, dump, load_config, resolve
from ppcls_ssld.errors import ConfigError


def entry(config, index=0):
    (_, arguments), = config.Loss.Train[index].items()
    return arguments


def test_config_room_does_not_import_paddle():
    code = "import sys, ppcls_ssld.config; sys.exit('paddle' in sys.modules)"
    root = Path(__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0


def test_numbers_without_a_dot_are_numbers(theirs_file):
    config = load_config(theirs_file)
    assert config.Optimizer.lr["learning_rate"] == 0.4
    assert config.Optimizer.l2 == 1e-5


@pytest.mark.parametrize("text, value", [("1e-5", 1e-5), ("2E+3", 2000.0), (".5e1", 5.0), ("-1.5e-2", -0.015),
                                         ("1e5", 1e5), ("None", None), ("'1e-5'", "1e-5"), ("'None'", "None"),
                                         ("1.0/255.0", "1.0/255.0"), ("e5", "e5"), ("[1, a]", (1, "a")),
                                         ("null", None), ("''", "")])
def test_override_values_are_read_as_yaml(ours_file, text, value):
    config = load_config(ours_file, [f"Loss.Train.0.SymmetricKL.x={text}"])
    assert entry(config)["x"] == value and type(entry(config)["x"]) is type(value)


def test_a_key_given_twice_names_both_lines(tmp_path):
    path = tmp_path / "twice.yaml"
    path.write_text("Global:\n  epochs: 1\n  seed: 2\n  epochs: 3\n")
    with pytest.raises(ConfigError, match=r"twice.yaml:4: Global.epochs is given twice, first in line 2"):
        load_config(path)


def test_anchors_aliases_and_merged_keys_are_read(tmp_path, ours_file):
    path = tmp_path / "merge.yaml"
    path.write_text("_base_: ours.yaml\nGlobal: &g {seed: 3, epochs: 5}\nInfer: {topk: 2}\nMetric: {topk: &k [1, 2]}\n"
                    "Loss:\n  Train:\n    - SymmetricKL: &s {a: 1, b: *k}\n    - SymmetricKL: {<<: *s, a: 2}\n")
    config = load_config(path)
    assert config.Global.seed == 3 and config.Metric.topk == (1, 2)
    assert entry(config, 1) == {"a": 2, "b": (1, 2)}


def test_an_override_does_not_reach_an_alias_of_the_same_list(tmp_path, ours_file):
    path = tmp_path / "alias.yaml"
    path.write_text("_base_: ours.yaml\nLoss:\n  Train:\n    - A: {keys: &k [x, y]}\n    - B: {keys: *k}\n")
    config = load_config(path, ["Loss.Train.0.A.keys.1=z"])
    assert entry(config, 0)["keys"] == ("x", "z") and entry(config, 1)["keys"] == ("x", "y")


@pytest.mark.parametrize("text, message", [
    ("Global:\n  epochs: [1\n", r"bad.yaml:3: not plain YAML"),
    ("Global:\n\tepochs: 1\n", r"bad.yaml:2: not plain YAML"),
    ("Global: !!python/object/apply:os.getcwd []\n", r"bad.yaml:1: not plain YAML"),
    ("Global:\n  a: &x [*x]\n", r"bad.yaml:2: Global.a.0 is an alias of something that contains it"),
    ("Global:\n  1: 2\n", r"bad.yaml:2: expected text as a key, found '1', a int"),
    ("? [a]\n: b\n", r"bad.yaml:1: expected text as a key, found a list"),
    ("- a\n", r"bad.yaml: expected sections"),
    ("a: 1\n---\nb: 1\n", r"bad.yaml:2: not plain YAML"),
    ("_base_: {a: 1}\n", r"bad.yaml:1: _base_: expected a path"),
    ("a: 2024-13-45\n", r"bad.yaml: not plain YAML"),
])
def test_broken_files_are_refused_with_their_line(tmp_path, text, message):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_a_missing_file_names_the_file_that_asked_for_it(tmp_path):
    path = tmp_path / "child.yaml"
    path.write_text("_base_: gone.yaml\n")
    with pytest.raises(ConfigError, match=r"gone.yaml, the _base_ of .*child.yaml: cannot be read: No such file"):
        load_config(path)
    with pytest.raises(ConfigError, match=r"nowhere.yaml: cannot be read"):
        load_config(tmp_path / "nowhere.yaml")


def test_bases_merge_key_by_key_and_later_wins_and_lists_are_replaced_whole(tmp_path, ours_file):
    (tmp_path / "_base_").mkdir()
    (tmp_path / "_base_/short.yaml").write_text("Global: {epochs: 7, seed: 7}\n")
    child = tmp_path / "child.yaml"
    child.write_text("_base_: [ours.yaml, _base_/short.yaml]\nGlobal: {epochs: 9}\n"
                     "Loss: {Train: [{JSDivergence: {weight: 2.0}}]}\n")
    config = load_config(child)
    assert (config.Global.epochs, config.Global.seed, config.Global.image_shape) == (9, 7, (3, 32, 32))
    assert config.Loss.Train == ({"JSDivergence": {"weight": 2.0}},)
    assert "_base_" not in config.source


def test_null_and_delete_drop_what_a_base_says(tmp_path, ours_file):
    (tmp_path / "base.yaml").write_text("_base_: ours.yaml\nEMA: {decay: 0.9}\nOptimizer: {momentum: 0.9, l2: 1e-4}\n")
    child = tmp_path / "child.yaml"
    child.write_text("_base_: base.yaml\nEMA: null\nOptimizer: {_delete_: true, name: AdamW, weight_decay: 0.05}\n")
    config = load_config(child)
    assert config.EMA is None
    assert config.Optimizer.arguments == {"weight_decay": 0.05} and config.Optimizer.l2 == 0


def test_files_that_inherit_from_each_other_are_refused(tmp_path):
    (tmp_path / "a.yaml").write_text("_base_: b.yaml\n")
    (tmp_path / "b.yaml").write_text("_base_: a.yaml\n")
    with pytest.raises(ConfigError, match=r"inherits from itself: .*a.yaml -> .*b.yaml -> .*a.yaml"):
        load_config(tmp_path / "a.yaml")


def test_errors_name_the_file_and_line_of_the_bad_value(tmp_path, ours_file):
    child = tmp_path / "child.yaml"
    child.write_text("_base_: ours.yaml\n\nDataLoader:\n  Train:\n    batch_size: abc\n")
    with pytest.raises(ConfigError, match=r"child.yaml:5: DataLoader.Train.batch_size: "
                                          r"expected a positive integer, found 'abc'"):
        load_config(child)
    child.write_text("_base_: ours.yaml\nGlobal: {seed: 1}\n")
    with pytest.raises(ConfigError, match=r"-o Global.seed=x: Global.seed: expected 0 or a positive integer"):
        load_config(child, ["Global.seed=x"])
    ours_file.write_text(ours_file.read_text().replace("few.txt, ", "few.txt, rot: 1, "))
    with pytest.raises(ConfigError, match=r"ours.yaml:13: DataLoader.Train.sources.0.rot: unknown key; did you mean"):
        load_config(child)


def test_overrides_set_values_by_key_path_in_their_order(theirs_file):
    config = load_config(theirs_file, [
        "Global.epochs=5", "Global.epochs=6", "Arch.models.1.Student.pretrained=./a=b.pdparams", "EMA.decay=.99",
        "Loss.Train.0.DistillationDMLLoss.weight=2", "Global.image_shape.1=64", "Global.checkpoints=auto"])
    assert config.Global.epochs == 6 and config.Global.image_shape == (3, 64, 32)
    assert config.Arch.network("Student").pretrained == "./a=b.pdparams"
    assert config.EMA.decay == 0.99 and entry(config)["weight"] == 2 and config.Global.checkpoints == "auto"


def test_a_temperature_goes_from_flag_to_term(ours_file):
    assert entry(load_config(ours_file))["temperature"] == 1.0
    assert entry(load_config(ours_file, ["Loss.Train.0.SymmetricKL.temperature=2.0"]))["temperature"] == 2.0


@pytest.mark.parametrize("override, message", [
    ("Global.epocs=3", r"-o Global.epocs=3: Global.epocs: unknown key; did you mean 'epochs'\?"),
    ("Globl.epochs=3", r"-o Globl.epochs=3: Globl: unknown key; did you mean 'Global'\?"),
    ("Global.epochs", r"expected key.path=value"),
    ("=3", r"expected key.path=value"),
    ("Global..epochs=3", r"expected key.path=value"),
    ("Global.epochs=[1", r"-o Global.epochs=\[1: not plain YAML"),
    ("Global.epochs=__import__('os').getpid()", r"expected a positive integer, found \"__import__"),
    ("Loss.Train.1.CELoss.weight=1", r"Loss.Train is a list; expected 0 to 0, found '1'"),
    ("Loss.Train.-1.CELoss.weight=1", r"Loss.Train is a list; expected 0 to 0, found '-1'"),
    ("Loss.Extra.0.CELoss.weight=1", r"Loss.Extra is no list, so it has no item 0"),
    ("Loss.Train.0.SymmetricKL.temperature=2", r"Loss.Train.0 is 'DistillationDMLLoss', not 'SymmetricKL'"),
    ("Arch.models.0.Student.pretrained=x", r"Arch.models.0 is 'Teacher', not 'Student'"),
    ("Global.epochs.x=1", r"Global.epochs is 4; nothing can be set inside it"),
])
def test_overrides_that_lead_nowhere_are_refused(theirs_file, override, message):
    with pytest.raises(ConfigError, match=message):
        load_config(theirs_file, [override])


def test_a_loaded_config_cannot_be_changed(theirs_file):
    config = load_config(theirs_file)
    with pytest.raises(AttributeError):
        config.Global.epochs = 3
    for mapping in (config.source, config.source["Global"], config.Optimizer.arguments, config.Optimizer.lr,
                    config.Optimizer.layer_lr, config.Arch.networks[1].arguments, config.Loss.Train[0],
                    entry(config), config.DataLoader.Train.transform_ops[1]["RandCropImage"]):
        with pytest.raises(TypeError, match="read-only"):
            mapping["size"] = 1
        with pytest.raises(TypeError, match="read-only"):
            mapping.pop("size", None)
    assert isinstance(entry(config)["model_name_pairs"], tuple)


def test_a_loaded_config_travels_through_pickle_copy_and_json(theirs_file):
    config = load_config(theirs_file)
    assert pickle.loads(pickle.dumps(config)) == config == copy.deepcopy(config)
    assert resolve(json.loads(json.dumps(config.source))) == config


@pytest.mark.parametrize("overrides", [
    [], ["Global.output_dir='1e-5'", "Loss.Train.0.SymmetricKL={a: 1e-7, b: 'None', c: 'yes', d: '1_0', e: é}"]])
def test_dump_reads_back_to_an_equal_config(ours_file, tmp_path, overrides):
    config = load_config(ours_file, overrides)
    again = tmp_path / "again.yaml"
    again.write_text(dump(config), encoding="utf-8")
    assert load_config(again) == config
    assert dump(load_config(again)) == dump(config)


def test_resolve_leaves_the_callers_tree_alone(theirs):
    before = copy.deepcopy(theirs)
    resolve(theirs)
    assert theirs == before
    with pytest.raises(ConfigError, match=r"my code: Global.epochs: expected a positive integer, found -1"):
        resolve({**theirs, "Global": {"epochs": -1}}, where_from="my code")
    with pytest.raises(ConfigError, match=r"config: Global.output_dir: expected text.*found PosixPath"):
        resolve({**theirs, "Global": {"output_dir": Path("x")}})


def test_differences_name_every_key_path_that_changed(theirs_file):
    old = load_config(theirs_file)
    new = load_config(theirs_file, ["Global.epochs=9", "Global.seed=1", "Loss.Train.0.DistillationDMLLoss.weight=2",
                                    "Global.image_shape=[3, 64, 64]", "Infer=null"])
    lines = differences(json.loads(json.dumps(old.source)), new.source)
    assert differences(old.source, json.loads(json.dumps(old.source))) == []
    assert "Global.epochs: 4 -> 9" in lines and "Global.seed: not given -> 1" in lines
    assert "Loss.Train.0.DistillationDMLLoss.weight: 1.0 -> 2" in lines
    assert "Global.image_shape: [3, 32, 32] -> [3, 64, 64]" in lines
    assert "Infer.batch_size: 2 -> not given" in lines and "Infer: not given -> None" in lines


@pytest.mark.parametrize("text", ["", "  "])
def test_an_override_without_a_value_is_refused_because_a_shell_variable_may_be_unset(ours_file, text):
    with pytest.raises(ConfigError, match="-o Global.output_dir=.*: no value; write Global.output_dir=null to"):
        load_config(ours_file, [f"Global.output_dir={text}"])
