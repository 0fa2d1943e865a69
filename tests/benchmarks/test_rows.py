"""The table runner: what a table says is what is trained, once, and goes on after an interruption."""

import gzip
import json
import multiprocessing
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from benchmarks.environment import ROOT
from benchmarks.measured import read
from benchmarks.rows import Machine, _fingerprint, known, locked, needed_inputs, settings, work
from benchmarks.runs import curve, last_weights, run_logged, seconds_of_steps
from benchmarks.table import TABLES, load_table, overrides
from ppcls_ssld.arch import build_network
from ppcls_ssld.config import load_config
from ppcls_ssld.demo.digits import digit_images
from ppcls_ssld.engine.task import build_loss
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.optim import build_schedule

TRAINED = sorted(path for path in TABLES.glob("*.yaml") if path.stem != "released")


@pytest.mark.parametrize("path", TRAINED, ids=lambda p: p.stem)
def test_every_row_of_a_shipped_table_resolves_to_a_run(path, tmp_path):
    table = load_table(path)
    inputs = {**{name: str(tmp_path) for name in table.inputs}, "output": str(tmp_path)}
    for row in table.rows:
        config = load_config(ROOT / row.config, overrides(settings(row, inputs)))
        teachers = [network for network in config.Arch.networks if network.frozen]
        assert build_loss(config).needs_labels == (not teachers or row.row.startswith("labels_")), row.row
        missing = [key for key, value in settings(row, inputs).items() if isinstance(value, str) and "{" in value]
        assert not missing, f"{row.row}: no input fills {missing}"


def test_every_student_of_the_cifar_tables_can_be_built():
    built = set()
    for path in TABLES.glob("cifar10_*.yaml"):
        table = load_table(path)
        for row in table.rows:
            config = load_config(ROOT / row.config, overrides(settings(row, {name: "i" for name in (*table.inputs, "output")})))
            for network in config.Arch.networks:
                key = (network.name, repr(network.arguments), network.output_stride)
                if not network.frozen and key not in built:
                    build_network(network, config.Arch.class_num)
                    built.add(key)
    assert {stride for *_, stride in built} == {None, 8, 16}


IMAGES = {"train_list": 50_000, "labelled": 5_000, **{f"{kind}_{n}k": n * 1_000 for kind in ("mined", "random") for n in (5, 15, 45)}}


@pytest.mark.parametrize("name", ["cifar10_ladder", "cifar10_losses", "cifar10_data", "cifar10_bn_mode", "cifar10_resnet50"])
def test_rows_that_are_compared_take_the_same_steps_at_the_same_rates(name):
    table = load_table(TABLES / f"{name}.yaml")

    def rates(row):
        config = load_config(ROOT / row.config, overrides(settings(row, {"output": "o", "cifar": "c", "teacher": "t"})))
        epoch = -(-sum(IMAGES[Path(source.list).stem] for source in config.DataLoader.Train.sources) // 128)
        steps = min(config.Global.max_steps or 10**9, config.Global.epochs * epoch)
        rate = build_schedule(config.Optimizer.lr, config.Global.epochs, epoch, "Optimizer.lr")
        return [rate(step) for step in range(steps)]

    for pair in table.compare:
        if pair["what"] == "fine-tuning":
            continue
        of, against = (rates(table.row(pair[side])) for side in ("of", "against"))
        if pair["what"].startswith("more views"):
            assert len(of) > 1.9 * len(against), pair
            continue
        assert len(of) == len(against), pair
        assert max(of) == max(against) and max(of[-1], against[-1]) < 0.002 * max(of), pair
        assert max(abs(a - b) for a, b in zip(of, against)) < 0.04 * max(of), pair


@pytest.mark.parametrize("name", sorted(path.stem for path in TABLES.glob("cifar10_*.yaml")))
def test_a_rows_student_teaches_as_it_was_trained(name):
    """Dropout too: PaddleClas's scales the logits in evaluation."""
    table = load_table(TABLES / f"{name}.yaml")

    def networks(row):
        inputs = {**{name: "i" for name in table.inputs}, "output": "o"}
        return load_config(ROOT / row.config, overrides(settings(row, inputs))).Arch.networks

    for row in table.rows:
        if row.teacher:
            (trained,) = (network for network in networks(table.row(row.teacher)) if not network.frozen)
            (teacher,) = (network for network in networks(row) if network.frozen)
            for key in ("name", "arguments", "output_stride"):
                assert getattr(teacher, key) == getattr(trained, key), row.row


def test_a_table_with_an_unknown_key_row_or_config_is_refused(tmp_path):
    good = {"title": "t", "rows": [{"row": "a", "what": "w", "config": "configs/cifar10/ladder/supervised.yaml"}]}

    def refusal(change):
        tree = json.loads(json.dumps(good))
        change(tree)
        path = tmp_path / "table.yaml"
        path.write_text(yaml.safe_dump(tree))
        with pytest.raises(ConfigError) as found:
            load_table(path)
        return str(found.value)

    assert "unknown colour" in refusal(lambda t: t["rows"][0].update(colour="red"))
    assert "unknown row_s" in refusal(lambda t: t.update(row_s=[]))
    assert "builds on 'b'" in refusal(lambda t: t["rows"][0].update(init="b"))
    assert "no file x.yaml" in refusal(lambda t: t["rows"][0].update(config="x.yaml"))
    assert "a name of its own" in refusal(lambda t: t["rows"].append(t["rows"][0]))
    assert "a name of its own; found none" in refusal(lambda t: t.update(rows=None))
    assert "rows.0: expected row, what" in refusal(lambda t: t.update(rows=["a"]))
    assert "a builds on itself" in refusal(lambda t: t["rows"][0].update(init="a"))
    assert "a builds on itself" in refusal(lambda t: (t["rows"][0].update(init="b"), t["rows"].append(
        {**t["rows"][0], "row": "b", "init": "a"})))
    assert "a.batch: expected a positive" in refusal(lambda t: t["rows"][0].update(batch=0))
    assert "seeds: expected a list" in refusal(lambda t: t.update(seeds=3))
    assert "cannot be read as a table" in refusal(lambda t: t.update(like="nobody"))
    assert "names no two rows" in refusal(lambda t: t.update(compare=[{"of": "a", "against": "b"}]))


def test_a_row_of_two_tables_has_one_run_and_one_result(tmp_path):
    first = {"row": "a", "what": "w", "config": "configs/cifar10/ladder/supervised.yaml", "batch": 256}
    second = {**first, "row": "b", "init": "a"}
    trees = {"one": [first, second], "two": [{"row": "c", "what": "again", "same_as": "one:b"}, {**first, "init": "c"}]}
    for name, rows in trees.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "rows": rows}))
    table = load_table(tmp_path / "two.yaml")
    copy, original = table.row("c"), load_table(tmp_path / "one.yaml").row("b")
    assert copy.identity() == original.identity() and copy.init == "one:a"
    assert not known(table, copy, 0, tmp_path)
    with pytest.raises(ConfigError, match="c, seed 0: its init is the student of one's a_seed0, which has not been trained"):
        work(table, table.jobs(), {}, tmp_path / "out", tmp_path, Machine(2, 1))
    (tmp_path / "one").mkdir()
    result = {**original.identity(), "table": "one", "row": "b", "seed": 0, "top1": 0.5}
    (tmp_path / "one" / "b_seed0.json").write_text(json.dumps(result))
    assert known(table, copy, 0, tmp_path)
    (one, two), problems = read(tmp_path, tmp_path)
    assert one.rows[1].top1 == two.rows[0].top1 == {0: 0.5} and not problems
    assert two.rows[0].what == "again; the run of one:b"
    assert not (tmp_path / "two").exists()
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "c_seed0.json").write_text(json.dumps({**result, "table": "two", "row": "c", "top1": 0.9}))
    (tmp_path / "one" / "b_seed0.json").write_text(json.dumps({**result, "resolved": "another"}))
    tables, problems = read(tmp_path, tmp_path)
    assert not any(row.results for table in tables for row in table.rows)
    assert problems == ["one/b_seed0.json is left out: it is of other resolved than the table asks for now",
                        "two/c_seed0.json is left out: the row's result is that of one:b"]

    trees["one"].append({"row": "d", "what": "of a table that points back", "same_as": "two:a"})
    trees["two"][1].pop("init")
    for name, rows in trees.items():
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump({"title": name, "rows": rows}))
    assert load_table(tmp_path / "one.yaml").row("d").config == first["config"]

    for entry, words in (({"row": "c", "what": "w", "same_as": "one:z"}, "found 'one:z'"),
                         ({"row": "c", "what": "w", "same_as": "two:a"}, "a row of another table"),
                         ({"row": "c", "what": "w", "same_as": "b"}, "expected TABLE:ROW"),
                         ({"row": "c", "what": "w", "same_as": "three:b"}, "rows.0: same_as.* found 'three:b'"),
                         ({"row": "c", "what": "w", "same_as": "../x/one:b"}, "rows.0: same_as"),
                         ({"row": "c", "what": "w", "same_as": "one:d"}, "trained there"),
                         ({"row": "c", "what": "w", "same_as": "one:b", "batch": 1}, "goes without batch")):
        (tmp_path / "two.yaml").write_text(yaml.safe_dump({"title": "two", "rows": [entry]}))
        with pytest.raises(ConfigError, match=words):
            load_table(tmp_path / "two.yaml")


def test_only_inputs_that_a_row_mentions_are_asked_for():
    table = load_table(TABLES / "ladder.yaml")
    assert needed_inputs(table, [table.row("soft_ce")]) == ["imagenet"]
    assert needed_inputs(table, [table.row("mined")]) == ["imagenet", "mined"]
    assert "photos" in needed_inputs(load_table(TABLES / "cifar10_ladder.yaml"), [])  # of its preparation


def test_a_curve_keeps_the_last_loss_and_every_evaluation(tmp_path):
    lines = [{"kind": "train", "images_seen": 10 * i, "loss": 1 / (i + 1)} for i in range(500)]
    lines += [{"kind": "eval", "images_seen": 5000, "top1": 0.5}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    points = curve(tmp_path)
    assert len(points) <= 61 and points[-2] == {"views": 4990, "loss": 0.002} and points[-1] == {"views": 5000, "top1": 0.5}


@pytest.fixture
def little_table(tmp_path, monkeypatch):
    """Two rows on digits: a teacher from labels, and its student from stored answers, which starts from the teacher."""
    images = digit_images(tmp_path / "digits", seed=0)
    for name, items in (("train", images.labelled), ("test", images.test[:40])):
        (tmp_path / f"{name}.txt").write_text("".join(f"{item.path} {item.label}\n" for item in items))
    small = {"Global.epochs": 2, "Global.eval_interval": 1, "Global.teacher_check_images": 0, "DataLoader.Train.batch_size": 25,
             "Global.print_batch_step": 1, "DataLoader.Train.sources.0.list": "{digits}/../train.txt",
             "DataLoader.Eval.sources.0.list": "{digits}/../test.txt"}
    name = "MobileNetV3_small_x0_35"
    tree = {"title": "t", "inputs": {"digits": {"what": "d"}}, "set": small, "rows": [
        {"row": "labels", "what": "w", "config": "configs/cifar10/ladder/supervised.yaml", "set": {"Arch.name": name}},
        {"row": "distilled", "what": "w", "config": "configs/cifar10/ladder/distilled.yaml", "teacher": "labels",
         "init": "labels", "targets": {"name": "few", "views": 1, "top_k": 10, "bits": 16},
         "set": {"Arch.Teacher.name": name, "Arch.Teacher.output_stride": 16, "Arch.Student.name": name}}]}
    path = tmp_path / "little.yaml"
    path.write_text(yaml.safe_dump(tree))
    return load_table(path), tmp_path


def train(table, folder, seeds=(0,)):
    work(table, table.jobs(seeds=seeds), {"digits": str(folder / "digits")}, folder / "out", folder / "results", Machine(threads=1))
    return {path.stem: json.loads(path.read_text()) for path in sorted((folder / "results" / table.name).glob("*.json"))}


@pytest.mark.end_to_end
def test_rows_are_trained_in_order_once_and_by_two_processes_as_by_one(little_table):
    table, folder = little_table
    helper = multiprocessing.get_context("spawn").Process(target=train, args=(table, folder))
    helper.start()
    found = train(table, folder)
    helper.join()
    assert helper.exitcode == 0 and set(found) == {"labels_seed0", "distilled_seed0"}
    assert all(row["steps"] == 4 and row["images"] == 40 and row["views"] == 100 for row in found.values())
    assert found["distilled_seed0"]["settings"]["Arch.Student.name"] == "MobileNetV3_small_x0_35"
    log = (folder / "out" / "little" / "distilled_seed0.log").read_text()
    assert last_weights(folder / "out" / "little" / "labels_seed0").parent.name == "00000004"
    packed = folder / "results" / "little" / "distilled_seed0.jsonl.gz"
    assert gzip.decompress(packed.read_bytes()) == (folder / "out" / "little" / "distilled_seed0" / "metrics.jsonl").read_bytes()
    assert "its answers come from" in log and log.count("done: 4 steps") == 1
    before = {name: (folder / "results" / "little" / f"{name}.json").stat().st_mtime_ns for name in found}
    train(table, folder)
    assert before == {name: (folder / "results" / "little" / f"{name}.json").stat().st_mtime_ns for name in found}


def test_a_run_keeps_its_lock_when_the_process_that_started_it_is_gone(tmp_path):
    with locked(tmp_path / "lock"):
        run = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    with locked(tmp_path / "lock", wait=False) as mine:
        assert not mine
    run.communicate(b"\n")
    with locked(tmp_path / "lock", wait=False) as mine:
        assert mine


def test_a_result_of_other_settings_is_not_taken_for_the_rows(little_table):
    table, folder = little_table
    path = folder / "results" / "little" / "labels_seed0.json"
    path.parent.mkdir(parents=True)
    good = {**table.row("labels").identity(), "inputs": {"digits": "these"}, "top1": 0.9}

    def refusal(text):
        path.write_text(text)
        with pytest.raises(ConfigError) as found:
            known(table, table.row("labels"), 0, folder / "results", {"digits": "another"})
        return str(found.value)

    assert "is of other settings than" in refusal(json.dumps({**good, "settings": {"Global.epochs": 3}, "inputs": {}}))
    assert "is of other resolved than" in refusal(json.dumps({**good, "resolved": "0", "inputs": {}}))  # the YAML changed
    assert "is of other input digits than" in refusal(json.dumps(good))
    assert "is no result of a row" in refusal("[]") and "is no result of a row" in refusal("{")
    path.write_text(json.dumps(good))
    assert known(table, table.row("labels"), 0, folder / "results", {"digits": "these"})
    path.write_text(json.dumps({**good, "inputs": {"digits": None}}))  # of before folders without lists had a fingerprint
    assert known(table, table.row("labels"), 0, folder / "results", {"digits": "another"})


def test_a_folder_with_another_run_is_not_taken_for_the_rows(little_table):
    table, folder = little_table
    (folder / "out" / "little" / "labels_seed0").mkdir(parents=True)
    (folder / "out" / "little" / "labels_seed0" / "done").touch()
    with pytest.raises(ConfigError, match="labels_seed0: holds a run of other settings"):
        train(table, folder)


def test_an_input_without_the_rows_lists_is_refused_before_anything_is_trained(little_table):
    table, folder = little_table
    (folder / "else" / "where").mkdir(parents=True)
    with pytest.raises(ConfigError, match="labels: its list .*where/../train.txt is not there.* --set"):
        work(table, table.jobs(), {"digits": str(folder / "else" / "where")}, folder / "out", folder / "results", Machine(2, 1))
    assert not (folder / "out").exists()


def test_a_run_that_never_began_may_begin_elsewhere_and_with_more_processes(little_table, monkeypatch):
    table, folder = little_table

    def fails(*_):
        raise SystemExit("no device")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("benchmarks.rows.train_once", fails)
        train(table, folder)
    (folder / "digits").rename(folder / "moved")
    started = []
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("benchmarks.rows.train_once", lambda *arguments: started.append(arguments) or fails())
        (folder / "out" / "little" / "labels_seed0").mkdir()  # as by a run that failed before its first step
        (folder / "out" / "little" / "labels_seed0.config").write_text("of other settings")
        work(table, table.jobs(), {"digits": str(folder / "moved")}, folder / "out", folder / "results", Machine(2, 1))
    assert started[0][2] == folder / "out" / "little" / "labels_seed0" and started[0][4] == 1  # 25 images are one process's
    assert any("moved" in override for override in started[0][1])


def test_a_smaller_batch_at_a_time_keeps_the_rows_batch_and_makes_no_other_row(little_table, monkeypatch, capsys):
    table, folder = little_table
    started = []

    def fails(*arguments):
        started.append(arguments)
        (folder / "out" / "little" / "labels_seed0" / "checkpoints").mkdir(parents=True, exist_ok=True)  # it made steps
        raise SystemExit("out of memory")

    monkeypatch.setattr("benchmarks.rows.train_once", fails)
    table = replace(table, rows=tuple(replace(row, batch=50) for row in table.rows))
    for machine in (Machine(), Machine(batch_size=5, device="gpu:0"), Machine(4, batch_size=5)):
        with pytest.raises(SystemExit, match="out of memory"):
            work(table, table.jobs(), {"digits": str(folder / "digits")}, folder / "out", folder / "results", machine)
    assert [arguments[4] for arguments in started] == [1, 1, 2]  # 50 images are no 4 processes' of 5
    for arguments, expected in zip(started, ((25, 2, "cpu"), (5, 10, "gpu:0"), (5, 5, "cpu"))):
        config = load_config(*arguments[:2])
        found = config.DataLoader.Train.batch_size, config.Global.update_freq, config.Global.device
        assert found == expected
    assert capsys.readouterr().out.count("batch norm sees 5 images at a time, where the recipe has 25") == 2
    with pytest.raises(ConfigError, match="labels: no number of processes of 7 images makes its 50 .* --batch-size"):
        work(table, table.jobs(), {"digits": str(folder / "digits")}, folder / "out", folder / "results", Machine(batch_size=7))


def test_seconds_are_those_of_the_steps():
    rows = [{"kind": "train", "images_seen": 100, "images_per_s": 50}, {"kind": "eval", "images_seen": 100},
            {"kind": "train", "images_seen": 300, "images_per_s": 100}]
    assert seconds_of_steps(rows) == 4


def test_what_ends_the_runner_ends_the_run_and_its_children_after_they_saved(tmp_path):
    child = "import signal, sys, pathlib; signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path(sys.argv[1]).touch(), sys.exit(75)));"
    child += "pathlib.Path(sys.argv[2]).touch(); signal.pause()"
    parent = f"import subprocess, sys; sys.exit(subprocess.call([sys.executable, '-c', {child!r}, *sys.argv[1:]]))"
    saved, ready = tmp_path / "saved", tmp_path / "ready"

    def once_ready(*_):
        if ready.exists():
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, once_ready)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(KeyboardInterrupt):
            run_logged([sys.executable, "-c", parent, str(saved), str(ready)], tmp_path / "log", 0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert saved.exists()


def test_an_input_is_the_same_until_its_lists_change(tmp_path):
    folder = tmp_path / "input"
    (folder / "flowers").mkdir(parents=True)
    bare = _fingerprint(folder)
    (folder / "food").mkdir()
    (folder / "food" / "train_list.txt").write_text("a 0\n")
    assert _fingerprint(folder) == bare
    (folder / "a.jpg").write_bytes(b"1")
    photos = _fingerprint(folder)
    (folder / "a.jpg").write_bytes(b"12")
    assert len({bare, photos, _fingerprint(folder)}) == 3
    (folder / "selected.txt").write_text("a.jpg\n")
    mined = _fingerprint(folder)
    (folder / "a.jpg").write_bytes(b"123")
    (folder / "manifest.json").touch()
    assert _fingerprint(folder) == mined
    (folder / "selected.txt").write_text("b.jpg\n")
    assert _fingerprint(folder) not in (mined, photos)


def test_a_run_that_fails_says_its_own_error_not_its_launchers_last_words(tmp_path):
    log = tmp_path / "run.log"
    log.write_text("error: of the call before\n")
    for words, said in ((["step 1", "error: no device", "LAUNCH INFO Exit code 1"], "error: no device"),
                        (["Traceback", "ValueError: x"], "ValueError: x"), ([], "ended with code 3: \n")):
        with pytest.raises(SystemExit, match=said):
            run_logged([sys.executable, "-c", f"import sys; print(*{words!r}, sep='\\n'); sys.exit(3)"], log, 1)


def test_a_row_that_builds_on_an_untrained_one_says_which(little_table):
    table, folder = little_table
    with pytest.raises(ConfigError, match="init is the student of little's labels_seed0.*train that row"):
        work(table, table.jobs(["distilled"]), {"digits": str(folder / "digits")}, folder / "out", folder / "results", Machine(threads=1))
    assert not (folder / "out").exists()
