"""Arch in its three forms."""

from __future__ import annotations

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.errors import ConfigError


def models(tree):
    return tree["Arch"]["models"][0]["Teacher"], tree["Arch"]["models"][1]["Student"]


def test_paddleclas_distillation_form_becomes_two_networks(theirs):
    arch = resolve(theirs).Arch
    teacher, student = arch.networks
    assert (teacher.role, teacher.name, teacher.frozen, teacher.bn_mode) == ("Teacher", "ResNet18", True, "batch_stats")
    assert (student.role, student.frozen, student.pretrained) == ("Student", False, None)
    assert student.arguments == {"dropout_prob": None} and teacher.arguments == {}
    assert arch.class_num == 10 and arch.infer_model_name == "Student" and arch.network("Teacher") is teacher


def test_plain_form_freezes_the_teacher_and_trains_the_rest(ours):
    teacher, student = resolve(ours).Arch.networks
    assert (teacher.frozen, teacher.bn_mode, student.frozen) == (True, "eval", False)
    assert student.arguments == {"dropout_prob": 0.1}


def test_paddleclas_single_network_is_the_student(theirs):
    theirs["Arch"] = {"name": "ResNet18", "class_num": 10, "pretrained": True, "use_ssld": True, "lr_mult_list": [1, 2]}
    network, = resolve(theirs).Arch.networks
    assert (network.role, network.pretrained, network.use_ssld) == ("Student", True, True)
    assert network.arguments == {"lr_mult_list": (1, 2)}


def test_plain_form_demands_the_bn_mode_of_a_frozen_network(ours):
    del ours["Arch"]["Teacher"]["bn_mode"]
    with pytest.raises(ConfigError, match=r"Arch.Teacher.bn_mode: missing; say 'batch_stats' .* or 'eval'"):
        resolve(ours)
    ours["Arch"]["Teacher"]["frozen"] = False
    assert resolve(ours).Arch.network("Teacher").bn_mode == "batch_stats"


def test_a_null_role_is_no_network(ours):
    ours["Arch"]["Teacher"] = None
    assert [n.role for n in resolve(ours).Arch.networks] == ["Student"]


@pytest.mark.parametrize("value, meaning", [(None, None), (False, None), ("", None), (True, True), ("a/b", "a/b")])
def test_pretrained_has_four_spellings(theirs, value, meaning):
    models(theirs)[1]["pretrained"] = value
    assert resolve(theirs).Arch.network("Student").pretrained == meaning


def test_pretrained_list_means_the_weights_of_each_model(theirs):
    models(theirs)[0]["pretrained"] = None
    theirs["Arch"]["pretrained_list"] = ["./t", None]
    assert [n.pretrained for n in resolve(theirs).Arch.networks] == ["./t", None]
    models(theirs)[0]["pretrained"] = "./other"
    with pytest.raises(ConfigError, match=r"models.0.Teacher.pretrained: './other' here, but Arch.pretrained_list"):
        resolve(theirs)


@pytest.mark.parametrize("key", ["pretrained_list", "freeze_params_list"])
def test_lists_need_one_item_per_model(theirs, key):
    theirs["Arch"][key] = [True]
    with pytest.raises(ConfigError, match=rf"Arch.{key}: 1 items for 2 models"):
        resolve(theirs)


def test_without_freeze_params_list_every_network_learns(theirs):
    theirs["Arch"]["freeze_params_list"] = None
    assert not any(n.frozen for n in resolve(theirs).Arch.networks)


def test_bn_mode_and_engine_of_a_paddleclas_teacher_can_be_chosen(theirs):
    models(theirs)[0].update(bn_mode="eval", engine="inference")
    teacher = resolve(theirs).Arch.network("Teacher")
    assert (teacher.bn_mode, teacher.engine, teacher.arguments) == ("eval", "inference", {})


def test_a_frozen_network_without_weights_is_noticed(theirs):
    assert resolve(theirs).notices == ()
    models(theirs)[0]["pretrained"] = False
    notice, = resolve(theirs).notices
    assert "-o Arch.models.0.Teacher.pretrained=PATH" in notice


def test_class_num_is_taken_from_wherever_it_is_said(theirs):
    del models(theirs)[0]["class_num"], theirs["Arch"]["class_num"]
    assert resolve(theirs).Arch.class_num == 10
    del models(theirs)[1]["class_num"]
    theirs["Global"]["class_num"] = 7
    assert resolve(theirs).Arch.class_num == 7
    del theirs["Global"]["class_num"]
    config = resolve(theirs)
    assert config.Arch.class_num == 1000 and any("Arch.class_num is not given: 1000" in n for n in config.notices)


def test_a_class_count_mismatch_names_both_networks(theirs):
    models(theirs)[0]["class_num"] = 1000
    with pytest.raises(ConfigError, match=r"Arch.models.1.Student.class_num: 10, but Arch.models.0.Teacher.class_num "
                                          r"is 1000"):
        resolve(theirs)


@pytest.mark.parametrize("change, message", [
    ({"class_num": None}, r"Arch.class_num: missing; expected a positive integer"),
    ({"class_num": 0}, r"Arch.class_num: expected a positive integer, found 0"),
    ({"clas_num": 10}, r"Arch.clas_num: unknown key; did you mean 'class_num'"),
    ({"infer_model_name": "student"}, r"Arch.infer_model_name: no network 'student'; did you mean 'Student'"),
    ({"Teacher": None, "Student": None}, r"Arch: no network; give"),
    ({"Student": {"class_num": 10}}, r"Arch.Student.name: missing"),
    ({"Student": {"name": "A", "engine": "inference"}}, r"Arch.Student.engine: inference is for a frozen network"),
    ({"Student": {"name": "A", "engine": "fast"}}, r"Arch.Student.engine: expected one of auto, eager, inference"),
    ({"Student": {"name": "A", "pretrained": 3}}, r"Arch.Student.pretrained: expected a path, true"),
    ({"Student": {"name": "A", "Head": {"name": "FC"}}}, r"Arch.Student.Head: .* cannot be done here"),
    ({"Teacher": {"name": "A", "bn_mode": "batch_stats", "engine": "inference"}}, r"inference needs bn_mode: eval"),
    ({"Teacher": {"name": "RecModel", "bn_mode": "eval"}}, r"Arch.Teacher.name: 'RecModel' cannot be built here"),
])
def test_what_cannot_be_built_is_refused(ours, change, message):
    ours["Arch"].update(change)
    with pytest.raises(ConfigError, match=message):
        resolve(ours)


def test_two_models_of_one_name_are_refused(theirs):
    theirs["Arch"]["models"][1] = {"Teacher": {"name": "ResNet18"}}
    theirs["Arch"]["infer_model_name"] = "Teacher"
    with pytest.raises(ConfigError, match=r"Arch: two networks are called 'Teacher'"):
        resolve(theirs)


def test_keys_that_paddleclas_ignores_beside_models_are_noticed(theirs):
    theirs["Arch"]["use_ssld"] = True
    assert resolve(theirs).notices == ("Arch.use_ssld has no effect: each of the models has its own",)


def test_a_teacher_can_be_several(ours):
    ours["Arch"]["Teacher"] = {"name": "Ensemble", "bn_mode": "eval", "engine": "eager", "teachers": [
        {"name": "ResNet50_vd", "pretrained": "a", "weight": 2}, {"name": "ResNet18", "pretrained": "b", "engine": "auto"}]}
    teacher = resolve(ours).Arch.network("Teacher")
    assert teacher.frozen and [m.name for m in teacher.members] == ["ResNet50_vd", "ResNet18"]
    assert [m.weight for m in teacher.members] == [2.0, 1.0] and all(m.frozen for m in teacher.members)
    assert [(m.bn_mode, m.engine) for m in teacher.members] == [("eval", "eager"), ("eval", "auto")]
    assert [m.role for m in teacher.members] == ["Teacher.teachers.0", "Teacher.teachers.1"]


@pytest.mark.parametrize("teacher, message", [
    ({"teachers": [{"name": "ResNet18", "pretrained": "a"}]}, "Arch.Teacher.teachers: expected a list of two or more"),
    ({"teachers": [{"name": "ResNet18", "pretrained": "a", "wait": 1}] * 2, "frozen": False}, "an Ensemble is a teacher"),
    ({"teachers": [{"name": "ResNet18", "pretrained": "a", "weight": 0}] * 2}, "teachers.0.weight: expected a positive"),
    ({"teachers": [{"name": "ResNet18", "pretrained": "a"}, {"name": "Ensemble"}]}, "teachers"),
    ({"teachers": [{"name": "ResNet18", "class_num": 3}, {"name": "ResNet18", "class_num": 4}]}, "class_num differs"),
    ({"teachers": [{"name": "ResNet18", "pretrained": "a"}] * 2, "weigth": 1}, "unknown key")])
def test_an_ensemble_that_makes_no_sense_is_refused(ours, teacher, message):
    ours["Arch"]["Teacher"] = {"name": "Ensemble", "bn_mode": "eval", **teacher}
    with pytest.raises(ConfigError, match=message):
        resolve(ours)
