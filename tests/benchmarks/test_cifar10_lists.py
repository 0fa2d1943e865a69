"""The lists of the CIFAR-10 ladder, from a miner that is not there: what it chose for each amount is what is kept."""

import json

from benchmarks import cifar10_lists, cifar10_mining, cifar10_split


def test_each_amount_has_the_lists_that_the_miner_made_for_it(tmp_path, monkeypatch):
    cifar, output = tmp_path / "cifar", tmp_path / "lists"
    cifar.mkdir()
    (cifar / "train_list.txt").write_text("".join(f"train/{i}.jpg {i % 10}\n" for i in range(20)))
    pools = []

    def mine(pool):
        mined = pool.output / "mined"
        mined.mkdir(parents=True, exist_ok=True)
        (mined / "selected.txt").write_text(f"the best {pool.top_k}\n")
        (mined / "random.txt").write_text(f"any {pool.top_k}\n")

    monkeypatch.setattr(cifar10_mining, "LABELLED", 5)
    monkeypatch.setattr(cifar10_mining, "make_pool", lambda *folders: pools.append(folders))
    monkeypatch.setattr(cifar10_mining, "mine", mine)
    monkeypatch.setattr(cifar10_mining, "describe", lambda pool: {
        "chosen_by_kind": pool.top_k, "chosen_of_the_right_class": 1, "random_by_kind": 2, "else": 3})
    monkeypatch.setattr("sys.argv", ["lists", "--cifar", str(cifar), "--photos", str(tmp_path), "--teacher", "t.pdparams",
                                     "--output", str(output)])
    cifar10_lists.main()
    assert pools == [(cifar, tmp_path, output / "pool")]
    assert (output / "labelled.txt").read_text().splitlines() == [f"{cifar}/train/{i}.jpg {i}" for i in range(5)]
    for name, count in (("5k", 500), ("15k", 1_500), ("45k", 4_500)):
        assert (output / f"mined_{name}.txt").read_text() == f"the best {count}\n"
        assert (output / f"random_{name}.txt").read_text() == f"any {count}\n"
        assert json.loads((output / "lists.json").read_text())[name] == {
            "chosen_by_kind": count, "chosen_of_the_right_class": 1, "random_by_kind": 2}


def test_the_labelled_images_are_divided_and_no_other_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "train_list.txt").write_text("".join(f"train/{i}.jpg {i % 10}\n" for i in range(5_010)))
    monkeypatch.setattr("sys.argv", ["split", "--cifar", str(tmp_path), "--output", str(tmp_path / "lists")])
    cifar10_split.main()
    train, val = ((tmp_path / "lists" / f"setting_{name}.txt").read_text().splitlines() for name in ("train", "val"))
    assert (len(train), len(val)) == (4_000, 1_000)
    assert train + val == [f"{tmp_path}/train/{i}.jpg {i % 10}" for i in range(5_000)]
