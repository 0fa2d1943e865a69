"""Writing: the same bytes however it is done, and nothing lost when it is interrupted."""

import errno
import os
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import yaml

from ppcls_ssld import parallel
from ppcls_ssld.config import resolve
from ppcls_ssld.data import ViewReader
from ppcls_ssld.errors import CheckpointError, ConfigError, DataError, StoppedBySignal, WeightsError
from ppcls_ssld.targets import TargetStore, WriteOptions, write_targets

from world import changed

BATCH_STATS = {"Arch__Teacher__bn_mode": "batch_stats"}
MODES = pytest.mark.parametrize("changes", [{}, BATCH_STATS], ids=["eval", "batch_stats"])


def parts(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}


def options(folder, **values):
    return WriteOptions(str(folder), **{"views": 2, "top_k": 3, "block": 8, **values})


class Enough(Exception):
    pass


def stop_here(teacher):
    raise Enough


@MODES
@pytest.mark.parametrize("world", [2, 4])
def test_any_number_of_processes_write_the_same_bytes(write, tree, tmp_path, monkeypatch, world, changes):
    """Rank 0 makes the header and stops before its parts, as if it were slow; it comes back when all are done."""
    whole, config = write("whole", **changes)
    monkeypatch.setattr(parallel, "world_size", lambda: world)
    for rank in (0, *range(1, world), 0):
        monkeypatch.setattr(parallel, "rank", lambda: rank)
        first = not (tmp_path / "shared").exists()
        before = parts(tmp_path / "shared").keys()
        try:
            write_targets(config, options(tmp_path / "shared"), 1.0, lambda text: None, *([stop_here] if first else []))
        except Enough:
            assert first and parts(tmp_path / "shared") == {}
            continue
        own = {f"part-{part:05d}.targets" for part in range(3) if part % world == rank}
        assert parts(tmp_path / "shared").keys() - before == own
    assert parts(tmp_path / "shared") == parts(whole) and len(parts(whole)) == 3


@pytest.mark.end_to_end
def test_the_launcher_s_processes_share_the_parts(write, tree, tmp_path):
    whole, _ = write("whole")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    launch = ["-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--log_dir", str(tmp_path / "log")]
    flags = ["write", "-c", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "shared"), "--views", "2",
             "--top-k", "3", "--block", "8"]
    done = subprocess.run([sys.executable, *launch, "tools/targets.py", *flags], capture_output=True, text=True)
    logs = [path.read_text() for path in sorted((tmp_path / "log").glob("workerlog.*"))]
    assert done.returncode == 0, (done.stdout + done.stderr + "".join(logs))[-3000:]
    assert parts(tmp_path / "shared") == parts(whole)
    assert "complete: " in logs[0] and "complete: " not in logs[1]


def test_more_part_files_than_a_process_may_open_are_refused(write, monkeypatch):
    from ppcls_ssld.targets import write as module
    monkeypatch.setattr(module, "MOST_PARTS", 25)
    write("25", block=2)
    with pytest.raises(ConfigError, match="--block 1 makes 26 part files of 26 images"):
        write("26", block=1)


def test_workers_change_nothing(write):
    assert parts(write("a")[0]) == parts(write("b", DataLoader__Train__num_workers=2)[0])


@pytest.mark.end_to_end
@pytest.mark.parametrize("instead_of", ["os.replace", "os.fsync"])
def test_after_kill_9_amid_a_part_the_same_command_ends_in_the_same_bytes(write, tree, tmp_path, instead_of):
    whole, config = write("whole")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(tree))
    code = f"""
import os, signal, sys
from ppcls_ssld.targets import parts
from ppcls_ssld.cli.main import main
real, calls = {instead_of}, []
def deadly(*args):
    calls.append(args)
    if len(calls) == {3 if instead_of == "os.replace" else 5}:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*args)
{instead_of} = deadly
main(sys.argv[1:])
"""
    flags = ["targets", "write", "-c", str(tmp_path / "config.yaml"), "--output", str(tmp_path / "killed"),
             "--views", "2", "--top-k", "3", "--block", "8"]
    done = subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    there = os.listdir(tmp_path / "killed")
    assert any(name.startswith(".part-") for name in there) and len(parts(tmp_path / "killed")) == 1
    with pytest.raises(ConfigError, match="2 of 3 parts are missing"):
        TargetStore(tmp_path / "killed")
    write_targets(config, options(tmp_path / "killed"), 1.0, lambda text: None)
    assert parts(tmp_path / "killed") == parts(whole) and len(os.listdir(tmp_path / "killed")) == 4


def test_a_signal_stops_with_what_to_do_and_the_next_start_goes_on(write, tree, tmp_path, monkeypatch):
    whole, config = write("whole")
    read = ViewReader.batches

    def interrupted(self, *args):
        for i, batch in enumerate(read(self, *args)):
            if len(parts(tmp_path / "new")) == 1 and i == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(ViewReader, "batches", interrupted)
    said = "stopped by SIGTERM; 1 of 3 parts .* start the same command again"
    with pytest.raises(StoppedBySignal, match=said) as stopped:
        write_targets(config, options(tmp_path / "new"), 1.0, lambda text: None)
    assert stopped.value.exit_code == 75
    monkeypatch.undo()
    kept = (tmp_path / "new" / "part-00000.targets").stat().st_mtime_ns
    write_targets(config, options(tmp_path / "new"), 1.0, lambda text: None)
    assert parts(tmp_path / "new") == parts(whole)
    assert (tmp_path / "new" / "part-00000.targets").stat().st_mtime_ns == kept


def test_a_full_disk_stops_with_what_is_written_intact(write, tmp_path, monkeypatch):
    whole, config = write("whole")
    sync, calls = os.fsync, []

    def full(handle):
        calls.append(handle)
        if len(calls) == 5:  # header and its folder, part 0 and its folder, part 1
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(os, "fsync", full)
    said = r"part-00001.targets: cannot be written \(No space left.*iB free"
    with pytest.raises(CheckpointError, match=said) as failed:
        write_targets(config, options(tmp_path / "new"), 1.0, lambda text: None)
    assert failed.value.exit_code == 4 and sorted(os.listdir(tmp_path / "new")) == ["header.json", "part-00000.targets"]
    monkeypatch.undo()
    write_targets(config, options(tmp_path / "new"), 1.0, lambda text: None)
    assert parts(tmp_path / "new") == parts(whole)


def test_the_space_is_said_and_checked_before_the_teacher_is_loaded(write, tree, tmp_path, monkeypatch):
    _, config = write("whole")
    usage = shutil.disk_usage(tmp_path)
    size = sum(map(len, parts(tmp_path / "whole").values()))
    said = []
    for free in (size - 1, size):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=free))
        if free < size:
            with pytest.raises(CheckpointError, match="KiB are needed and .* KiB are free; make room"):
                write_targets(config, options(tmp_path / "new"), 1.0, said.append, stop_here)
    write_targets(config, options(tmp_path / "new"), 1.0, said.append)
    record = TargetStore(tmp_path / "new").record_bytes
    assert f"26 images x 2 views x {record} bytes" in said[0] and "in 3 parts; 0 are there" in said[0]
    assert size == 26 * (2 * record + 4) + 3 * 64


@pytest.mark.parametrize("field,values,changes", [
    ("views", {"views": 3}, {}), ("tail", {"tail": "uniform"}, {}), ("answer.k", {"top_k": 2}, {}),
    ("answer.bits", {"bits": 8}, {}), ("rows.block", {"block": 9}, {}), ("seed", {}, {"Global__seed": 4}),
    ("batch_size", {}, {"DataLoader__Train__batch_size": 6}), ("engine", {}, {"Arch__Teacher__engine": "auto"}),
    ("teacher.0.bn_mode", {}, BATCH_STATS),
    ("transforms", {}, {"DataLoader__Train__transform_ops": [{"CropImage": {"size": 32}}]}),
])
def test_a_folder_made_otherwise_is_refused_by_the_field_that_differs(write, tree, field, values, changes):
    folder, _ = write()
    before = parts(folder)
    with pytest.raises(ConfigError, match=r"not made for this run: .*\b" + field.replace(".", r"\.")):
        write_targets(resolve(changed(tree, **changes)), options(folder, **values), 1.0, lambda text: None, stop_here)
    assert parts(folder) == before


def test_what_follows_from_another_field_is_not_named_beside_it(write):
    folder, config = write()
    with pytest.raises(ConfigError, match="answer.bits is 12 there, 8 here. make the config agree"):
        write_targets(config, options(folder, bits=8), 1.0, lambda text: None, stop_here)


@pytest.mark.parametrize("values,said", [({"views": 0}, "--views: expected 1 or more, found 0"),
                                         ({"block": 0}, "--block: expected 1 or more, found 0"),
                                         ({"top_k": 0}, "--top-k: expected 1 or more, found 0"),
                                         ({"tail": "long"}, "--tail: expected student or uniform, found long")])
def test_an_option_that_makes_no_sense_is_refused_by_its_flag(tree, tmp_path, values, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        write_targets(resolve(tree), options(tmp_path / "new", **values), 1.0)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("below", ["", "deeper"])
def test_a_file_in_the_place_of_the_folder_is_a_user_s_mistake(tree, tmp_path, below):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ConfigError, match="is a file, or lies below one; --output is to be a folder"):
        write_targets(resolve(tree), options(tmp_path / "file" / below), 1.0, lambda text: None)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("fast", [True, False])
def test_an_eager_teacher_answers_with_the_fast_kernels_where_training_does(tree, folder, tmp_path, fast):
    from ppcls_ssld.arch.cpu import MatmulConv2D
    found = []

    def look_at(teacher):
        members = getattr(teacher, "members", (teacher,))
        found.extend(any(isinstance(layer, MatmulConv2D) for layer in m.network.sublayers()) for m in members)
        raise Enough

    members = [{"name": "PPLCNet_x0_25", "pretrained": str(folder / f"teacher{i}.pdparams")} for i in (1, 2)]
    ensemble = {"name": "Ensemble", "bn_mode": "eval", "engine": "eager", "teachers": members}
    for i, teacher in enumerate((tree["Arch"]["Teacher"], ensemble)):
        config = resolve(changed(tree, Arch__Teacher=teacher, Global__fast_cpu=fast))
        with pytest.raises(Enough):
            write_targets(config, options(tmp_path / str(i)), 1.0, lambda text: None, look_at)
    assert found == [fast] * 3


def test_what_is_complete_is_left_alone_without_loading_the_teacher(write):
    folder, config = write()
    write_targets(config, options(folder), 1.0, lambda text: None, stop_here)


def test_parts_without_a_header_are_not_built_upon(write):
    folder, config = write()
    (folder / "header.json").unlink()
    with pytest.raises(ConfigError, match="holds part files without their header.json"):
        write_targets(config, options(folder), 1.0, lambda text: None)


def test_weights_that_are_not_there_are_said_at_once(write, tree, tmp_path):
    config = resolve(changed(tree, Arch__Teacher__pretrained="/nowhere/x"))
    with pytest.raises(WeightsError, match="/nowhere/x: no such weights file"):
        write_targets(config, options(tmp_path / "new"), 1.0, lambda text: None)
    assert not (tmp_path / "new").exists()


def test_an_image_that_cannot_be_read_has_no_targets(write, folder, tree, tmp_path, capsys):
    pictures = tmp_path / "pictures"
    shutil.copytree(folder, pictures)
    (pictures / "09.jpg").write_bytes(b"no image")
    sources = [{**source, "root": str(pictures)} for source in tree["DataLoader"]["Train"]["sources"]]
    with pytest.raises(DataError, match="09.jpg"):
        write("stops", DataLoader__Train__sources=sources)
    whole, _ = write("whole")
    store, config = write("skips", DataLoader__Train__sources=sources, DataLoader__Train__on_corrupt="skip")
    assert "1 images could not be read" in capsys.readouterr().out
    store, whole = TargetStore(store), TargetStore(whole)
    ids, views = np.repeat(np.arange(26), 2), np.tile([0, 1], 26)
    records, wanted = store.read(ids, views), whole.read(ids, views)
    assert [sample for sample, record in zip(ids, records) if store.drawn(record) is None] == [9, 9]
    others = ids != 9
    assert np.array_equal(records["view"][others], wanted["view"][others])
    assert store.image_checksums(1)[1] == 0 != store.image_checksums(1)[0]


def test_batch_statistics_come_from_full_mixed_batches_and_change_the_answer(write):
    """Every batch has 5 images, also the last one of a part; each view of an image is seen among others."""
    seen = []
    from ppcls_ssld.targets import write as module
    logits = module.Views._logits
    module.Views._logits = lambda self, batch: (seen.append(batch.sample_ids), logits(self, batch))[1]
    try:
        folder, _ = write(views=3, **BATCH_STATS)
    finally:
        module.Views._logits = logits
    assert {len(set(ids.tolist())) for ids in seen} == {5}
    assert len({frozenset(ids.tolist()) for ids in seen}) > 0.8 * len(seen)  # 6 images meet again
    plain, mixed = TargetStore(write("plain", views=3)[0]), TargetStore(folder)
    ids = np.arange(26)
    a, b = (store.targets(store.read(ids, 0 * ids)).log_probs for store in (plain, mixed))
    assert np.abs(a - b).max() > 0.01
    assert [plain.drawn(r) for r in plain.read(ids, 0 * ids)] == [mixed.drawn(r) for r in mixed.read(ids, 0 * ids)]


def test_a_sure_answer_at_temperature_4_is_softer(write):
    sharp, soft = (TargetStore(write(str(t), temperature=t)[0]) for t in (1.0, 4.0))
    ids = np.arange(26)
    assert soft.temperature == 4.0
    one, four = (store.targets(store.read(ids, 0 * ids)).log_probs[:, 0] for store in (sharp, soft))
    assert (four < one).all()


def test_an_ensemble_is_stored_as_its_mixture(write, folder, tree):
    members = [{"name": "PPLCNet_x0_25", "pretrained": str(folder / f"teacher{i}.pdparams"), "weight": w}
               for i, w in ((1, 1), (2, 3))]
    ids = np.arange(26)

    def probabilities(name, teacher):
        teacher = {"bn_mode": "eval", "engine": "eager", **teacher}
        store = TargetStore(write(name, top_k=4, bits=16, Arch__Teacher=teacher)[0])
        answer = store.targets(store.read(ids, 0 * ids))
        return np.take_along_axis(np.exp(answer.log_probs), np.argsort(answer.classes, axis=1), 1)

    one, two = (probabilities(str(i), {key: m[key] for key in ("name", "pretrained")}) for i, m in enumerate(members))
    both = probabilities("both", {"name": "Ensemble", "teachers": members})
    assert np.allclose(both, 0.25 * one + 0.75 * two, atol=1e-3) and np.abs(one - two).max() > 0.05
