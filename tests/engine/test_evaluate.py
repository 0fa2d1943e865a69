"""Evaluation says what it scored and by which engine, and refuses to score nothing."""

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.engine import evaluate
from ppcls_ssld.engine.preflight import check_teacher
from ppcls_ssld.errors import DataError

from world import changed


@pytest.fixture
def student(tree, world):
    """A config whose student is of the teacher's kind and starts from its weights."""
    return changed(tree, Arch__Student={"name": "PPLCNet_x0_25", "pretrained": str(world / "teacher.pdparams")})


@pytest.mark.parametrize("engine, told", [("eager", "engine: eager (as configured)"), ("auto", "engine: inference (")])
def test_the_student_is_evaluated_by_the_engine_that_it_asks_for(student, engine, told, capsys):
    evaluate(resolve(changed(student, Arch__Student__engine=engine)))
    assert told in capsys.readouterr().out


def test_starting_weights_are_evaluated_and_called_so(student, world, capsys):
    note = "note: Global.pretrained_model is not set, so these are the weights that training starts from"
    student = changed(student, Arch__Student__engine="eager")
    start = evaluate(resolve(student))
    assert note in capsys.readouterr().out
    assert evaluate(resolve(changed(student, Global__pretrained_model=str(world / "teacher")))) == start
    assert note not in capsys.readouterr().out


def test_a_teacher_is_not_checked_on_images_that_cannot_be_read(tree, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("bad.png 0\nbad.png 1\n")
    tree = changed(tree, Global__teacher_check_images=2, DataLoader__Eval__on_corrupt="skip")
    tree["DataLoader"]["Eval"]["sources"][0].update(list=str(tmp_path / "list.txt"), root=str(tmp_path))
    with pytest.raises(DataError, match="DataLoader.Eval: no image with a label could be read, among them .*bad.png"):
        check_teacher(None, resolve(tree))
