"""The YAML and the flags of mining."""

import pytest

from ppcls_ssld.config.mine import dump_mine, load_mine
from ppcls_ssld.errors import ConfigError

TREE = {"Mine": {"output_dir": "/out", "pool": ["/pool"]}, "Teacher": {"name": "ResNet50_vd", "pretrained": "/t"}}


def test_flags_win_over_overrides_and_those_over_the_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("Mine: {output_dir: /out, pool: /pool}\nSelect: {top_k: 1, floor: 5}\n")
    assert load_mine(file).Select.top_k == 1
    assert load_mine(file, ["Select.top_k=2"]).Select.top_k == 2
    config = load_mine(file, ["Select.top_k=2"], {"Select": {"top_k": 3}})
    assert (config.Select.top_k, config.Select.floor) == (3, 5)


def test_what_is_dumped_is_the_same_run(tmp_path):
    config = load_mine(None, (), {**TREE, "Dedup": {"within_pool": True}, "Select": {"exclude": ["/a"]}})
    (tmp_path / "config.yaml").write_text(dump_mine(config))
    assert load_mine(tmp_path / "config.yaml") == config


def test_paths_are_kept_as_seen_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_mine(None, (), {"Mine": {"output_dir": "out", "pool": ["a", {"path": "b.txt", "root": "c"}]},
                                  "Teacher": {"name": "X", "pretrained": True}, "Select": {"class_names": "n.txt"}})
    assert config.output_dir == str(tmp_path / "out")
    assert [(s.path, s.root) for s in config.pool] == [(str(tmp_path / "a"), None),
                                                       (str(tmp_path / "b.txt"), str(tmp_path / "c"))]
    assert config.Select.class_names == str(tmp_path / "n.txt") and config.Teacher.pretrained is True
    url = {"Teacher": {"name": "X", "pretrained": "https://host/w.pdparams"}}
    assert load_mine(None, (), {**TREE, **url}).Teacher.pretrained == "https://host/w.pdparams"


def test_the_teacher_of_a_training_config_is_taken_as_it_stands_there():
    teacher = {**TREE["Teacher"], "frozen": True, "bn_mode": "eval", "output_stride": 8, "engine": "eager",
               "lr_mult_list": [1.0]}
    read = load_mine(None, (), {**TREE, "Teacher": teacher}).Teacher
    assert (read.frozen, read.bn_mode, read.output_stride, read.engine) == (True, "eval", 8, "eager")
    assert dict(read.arguments) == {"lr_mult_list": (1.0,)}


@pytest.mark.parametrize("section, values, message", [
    ("Select", {"topk": 3}, "did you mean 'top_k'"),
    ("Select", {"top_k": 0}, "Select.top_k: expected a positive integer, found 0"),
    ("Select", {"score": "loss"}, "one of probability, logit, margin, entropy"),
    ("Select", {"classes_per_image": 11}, "Score.classes_stored keeps only 10"),
    ("Score", {"classes_stored": 1}, "an integer of 2 or more"),
    ("Dedup", {"min_correlation": 1.5}, "above 0 and below 1"),
    ("Dedup", {"method": "paper", "negatives": ["/n"]}, "calibrates the cascade"),
    ("Teacher", {"name": "X", "bn_mode": "batch_stats"}, "Teacher.bn_mode: expected 'eval', or leave it out"),
    ("Teacher", {"name": "X", "frozen": False}, "Teacher.frozen: expected true, or leave it out"),
    ("Teacher", {"name": "X", "output_stride": 3}, "Teacher.output_stride: expected one of 1, 2, 4, 8"),
    ("Mine", {"output_dir": "/out", "pool": []}, "Mine.pool: missing"),
    ("Mine", {"output_dir": "/out", "pool": [3]}, "expected a path, or"),
    ("Mine", {"pool": ["/pool"]}, "--output DIR"),
    ("Selection", {"top_k": 3}, "unknown key; did you mean 'Select'"),
])
def test_a_wrong_value_is_refused_with_its_key_path(section, values, message):
    with pytest.raises(ConfigError) as error:
        load_mine(None, (), {**TREE, section: values})
    assert message in str(error.value)
