"""The commit beside a number is that of the files that made it."""

import subprocess

import pytest

from benchmarks.environment import commit


@pytest.fixture
def checkout(tmp_path):
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=tmp_path, check=True,
                       capture_output=True)

    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "run.yaml").write_text("epochs: 1")
    (tmp_path / ".gitignore").write_text("*.pyc\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "first")
    return tmp_path


def put(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("new")


@pytest.mark.parametrize("file", ["configs/new.yaml", "benchmarks/tables/new.yaml", "ppcls_ssld/new.py", "tools/deep/new.py"])
def test_an_untracked_file_that_decides_a_run_makes_the_commit_dirty(checkout, file):
    clean = commit(checkout)
    assert len(clean) == 7
    put(checkout / file)
    assert commit(checkout) == f"{clean}-dirty"


@pytest.mark.parametrize("file", ["output/new.yaml", "benchmarks/results/rows/new.json", "tools/new.pyc", "notes.md"])
def test_other_untracked_files_do_not(checkout, file):
    clean = commit(checkout)
    put(checkout / file)
    assert commit(checkout) == clean


def test_a_changed_file_makes_it_dirty_once(checkout):
    clean = commit(checkout)
    put(checkout / "configs" / "run.yaml")
    put(checkout / "configs" / "new.yaml")
    assert commit(checkout) == f"{clean}-dirty"


def test_outside_of_a_checkout_it_is_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    put(tmp_path / "configs" / "new.yaml")
    assert commit(tmp_path) == "unknown"
