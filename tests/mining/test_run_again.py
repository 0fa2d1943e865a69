"""Mining stopped, started again, spread over processes, asked for something else: the same files, or a word why not."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import paddle
import pytest

from mining_world import CLASSES, ROOT, counts, results, tiles, write
from ppcls_ssld.arch import build_network
from ppcls_ssld.cli.main import main
from ppcls_ssld.config.schema import NetworkConfig
from ppcls_ssld.errors import EXIT_DISK, EXIT_STOPPED, ConfigError, DataError
from ppcls_ssld.mining import stages
from ppcls_ssld.mining.geometry import GeometryConfig
from ppcls_ssld.mining.keypoint_index import KeypointIndex


def test_the_order_of_the_pool_decides_nothing(world, mined):
    lines = (world.folder / "pool" / "more.txt").read_text().splitlines()
    (world.folder / "pool" / "more.txt").write_text("\n".join(reversed(lines)) + "\n")
    pool = world.tree["Mine"]["pool"][::-1]
    assert results(world.mine("reversed", Mine={"pool": pool})) == results(mined)


def test_helper_processes_decide_nothing(world, mined):
    assert results(world.mine("helped", Mine={"num_workers": 2})) == results(mined)


@pytest.mark.end_to_end
@pytest.mark.parametrize("processes", [2, 4])
def test_the_number_of_processes_decides_nothing(world, mined, processes):
    assert results(world.launch(f"launched{processes}", processes)) == results(mined)


@pytest.mark.end_to_end
@pytest.mark.parametrize("stage", ["dedup", "score"])
def test_a_killed_run_started_again_ends_in_the_same_files(world, mined, stage):
    out = world.folder / f"killed_{stage}"
    process = subprocess.Popen([sys.executable, *world.command(out.name)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.DEVNULL, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not list((out / stage).glob("part-*")):
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert results(world.mine(out.name)) == results(mined)


def test_another_k_does_not_ask_the_teacher_again(world, mined, monkeypatch):
    def refuse(*_):
        raise AssertionError("the teacher was loaded")

    monkeypatch.setattr(stages, "load_teacher", refuse)
    before = {path: path.stat().st_mtime_ns for path in (mined / "score").iterdir()}
    manifest = (mined / "manifest.json").read_bytes()
    world.mine(wanted=["score", "select"], Select={"top_k": 1})
    assert json.loads((mined / "manifest.json").read_text())["select"]["top_k"] == 1
    assert counts(mined)["chosen"] <= CLASSES
    world.mine(wanted=["select"])
    assert (mined / "manifest.json").read_bytes() == manifest
    assert {path: path.stat().st_mtime_ns for path in (mined / "score").iterdir()} == before


def test_results_of_other_settings_are_refused_with_the_setting(world, mined):
    with pytest.raises(ConfigError, match=f"cells {GeometryConfig().cells} there, 30 now"):
        world.mine(wanted=["dedup"], Dedup={"min_cells": 30})
    with pytest.raises(ConfigError, match="classes_stored 3 there, 2 now"):
        world.mine(wanted=["score"], Score={"classes_stored": 2})


def test_select_before_the_other_stages_says_what_to_run(world):
    with pytest.raises(ConfigError, match="run `mine dedup`"):
        world.mine("nothing", wanted=["select"])


def test_a_full_disk_ends_with_a_word_and_loses_nothing(world, mined):
    """The disk is full at 12 KB a file, which some listing, part or index exceeds."""
    out = world.folder / "full"
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, 12_000)); "
    code = limit + "from ppcls_ssld.cli.main import main; sys.exit(main(['mine', *sys.argv[1:]]))"
    done = subprocess.run([sys.executable, "-c", code, *world.command("full")[1:]], cwd=ROOT, capture_output=True,
                          text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == EXIT_DISK, done.stderr[-2000:]
    assert "error:" in done.stderr and "MiB free" in done.stderr or "free some" in done.stderr
    assert not (out / "selected.txt").exists()
    assert results(world.mine("full")) == results(mined)


def test_another_pool_in_the_same_folder_is_refused_and_nothing_is_touched(world, mined):
    files = [path for path in sorted(mined.rglob("*")) if path.is_file() and "seconds" not in path.name]
    before = {path: path.read_bytes() for path in files}
    with pytest.raises(ConfigError, match="holds results over other images"):
        world.mine(Mine={"pool": [str(world.folder / "protected")]})
    with pytest.raises(DataError, match="cannot be read"):
        world.mine(wanted=["select"], Select={"class_names": "nowhere.txt"})
    assert {path: path.read_bytes() for path in before} == before


def test_a_second_start_takes_the_pool_in_any_order_and_from_any_folder(world, mined, tmp_path, monkeypatch):
    before = results(mined)
    world.mine(Mine={"pool": [*world.tree["Mine"]["pool"][1:], world.tree["Mine"]["pool"][0]]})
    assert results(mined) == before
    monkeypatch.chdir(world.folder)
    pool = ["pool/more.txt", "pool/loose", "pool/shards"]
    relative = world.mine("relative", Mine={"pool": pool, "protect": ["protected"]},
                          Teacher={"pretrained": "teacher.pdparams"})
    monkeypatch.chdir(tmp_path)
    assert main(["mine", "select", "--output", str(relative)]) == 0
    assert results(relative) == before


def test_an_index_that_was_cut_off_is_never_taken_for_another(world, monkeypatch):
    whole = world.mine("cut", wanted=["dedup"])
    expected = results(whole)
    with monkeypatch.context() as patch:
        patch.setattr(KeypointIndex, "build", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            world.mine("cut", wanted=["dedup"], Mine={"min_side": 100})
    shutil.rmtree(whole / "dedup")
    assert results(world.mine("cut", wanted=["dedup"])) == expected


def test_score_before_the_copies_inside_the_pool_are_known_says_what_to_run(world):
    world.mine("half", wanted=["dedup"])
    with pytest.raises(ConfigError, match="run `mine dedup` with --within-pool"):
        world.mine("half", wanted=["score"], Dedup={"within_pool": True})


def test_scores_of_other_images_are_refused_with_the_setting(world):
    world.mine("was without", wanted=["dedup", "score"])
    with pytest.raises(ConfigError, match="within_pool False there, True now"):
        world.mine("was without", wanted=["dedup", "score"], Dedup={"within_pool": True})


def test_other_weights_of_an_embedding_are_other_settings(world, tmp_path):
    weights = tmp_path / "embedding.pdparams"
    shutil.copy(world.folder / "teacher.pdparams", weights)
    embedding = {"embedding": "MobileNetV3_small_x0_35", "embedding_weights": str(weights)}
    world.mine("embedded", wanted=["dedup"], Dedup=embedding)
    with pytest.raises(ConfigError, match="embedding_transforms"):
        world.mine("embedded", wanted=["dedup"], Dedup=embedding, Score={"image_size": 64, "resize_short": 64})
    paddle.seed(1)
    paddle.save(build_network(NetworkConfig("Teacher", "MobileNetV3_small_x0_35"), CLASSES).state_dict(), str(weights))
    with pytest.raises(ConfigError, match="embedding_weights"):
        world.mine("embedded", wanted=["dedup"], Dedup=embedding)


def test_more_threads_of_the_teacher_leave_the_helpers_alone(world, mined):
    assert world.mine("threads", Mine={"threads": 2, "num_workers": 2}).is_dir()


@pytest.mark.end_to_end
@pytest.mark.parametrize("stage", ["protected", "dedup"])
def test_a_signal_ends_the_run_with_75_and_what_is_finished_is_kept(world, mined, stage):
    out = world.folder / f"stopped_{stage}"
    process = subprocess.Popen([sys.executable, *world.command(out.name)], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not any((out / stage).glob("part*")):
        assert process.poll() is None and time.monotonic() < deadline
    process.send_signal(signal.SIGTERM)
    assert "start the same command again" in process.communicate()[1]
    assert process.returncode == EXIT_STOPPED
    assert results(world.mine(out.name)) == results(mined)


@pytest.mark.end_to_end
def test_a_process_without_a_block_waits_for_nobody(world, tmp_path):
    """One block for two processes, with all that the first makes for the others."""
    write(tmp_path / "pool" / "a.png", tiles()[5])
    changes = {"Mine": {"pool": [str(tmp_path / "pool")]}, "Dedup": {
        "within_pool": True, "embedding": "MobileNetV3_small_x0_35",
        "embedding_weights": str(world.folder / "teacher.pdparams")}}
    alone = world.mine("alone", **changes)
    assert results(world.launch("together", 2, **changes)) == results(alone)
