"""A store serves the run that it was made for, and says which field is another's."""

import json

import pytest

from ppcls_ssld.config import resolve
from ppcls_ssld.data import transforms
from ppcls_ssld.errors import ConfigError
from ppcls_ssld.targets import TargetStore, check, expect, header, read_header

from world import NORMALIZE, changed

FLIP = {"RandFlipImage": {"flip_code": 1}}
CROP = {"RandCropImage": {"size": 32, "scale": [0.5, 1.0]}}


def compare(folder, expected):
    return check(read_header(folder), expected, str(folder))


def test_a_store_fits_the_config_that_it_was_made_with(write):
    folder, config = write()
    assert compare(folder, expect(config, 1.0)) == []


@pytest.mark.parametrize("field,change", [
    ("class_num", {"Arch__class_num": 5}),
    ("transforms.1.arguments.scale.0", {"DataLoader__Train__transform_ops": [
        {"DecodeImage": {}}, {"RandCropImage": {"size": 32, "scale": [0.4, 1.0]}}, {"RandFlipImage": {"flip_code": 1}},
        NORMALIZE]}),
    ("transforms.1.arguments.scale", {"DataLoader__Train__transform_ops": [
        {"DecodeImage": {}}, {"RandCropImage": {"size": 32}}, {"RandFlipImage": {"flip_code": 1}}, NORMALIZE]}),
    ("transforms.2.name", {"DataLoader__Train__transform_ops": [
        {"DecodeImage": {}}, CROP, {"AutoAugment": {}}, NORMALIZE]}),
    ("transforms", {"DataLoader__Train__transform_ops": [{"DecodeImage": {}}, CROP, NORMALIZE]}),
    ("mix", {"DataLoader__Train__batch_transform_ops": [{"Mixup": {}}]}),
    ("teacher.0.name", {"Arch__Teacher__name": "PPLCNet_x0_35"}),
    ("teacher.0.bn_mode", {"Arch__Teacher__bn_mode": "batch_stats"}),
    ("teacher.0.arguments.dropout_prob", {"Arch__Teacher__dropout_prob": 0.1}),
])
def test_what_differs_is_named(write, tree, field, change):
    folder, _ = write()
    with pytest.raises(ConfigError, match=r"targets were not made for this run: .*\b" + field.replace(".", r"\.")):
        compare(folder, expect(resolve(changed(tree, **change)), 1.0))


def test_another_temperature_is_named(write):
    folder, config = write()
    with pytest.raises(ConfigError, match="temperature is 1.0 there, 4.0 here"):
        compare(folder, expect(config, 4.0))


def test_other_weights_are_named_and_absent_ones_reported(write, folder, tree):
    store, _ = write()
    other = resolve(changed(tree, Arch__Teacher__pretrained=str(folder / "teacher2.pdparams")))
    with pytest.raises(ConfigError, match="teacher.0.weights is [0-9a-f]{32} there, [0-9a-f]{32} here"):
        compare(store, expect(other, 1.0))
    gone = resolve(changed(tree, Arch__Teacher__pretrained="/nowhere/teacher.pdparams"))
    notice, = compare(store, expect(gone, 1.0))
    assert "weights of teacher.0 are not at hand" in notice


def test_another_list_is_named_but_not_another_root_label_or_name(write, folder, tree, tmp_path):
    store, _ = write()
    lines = (folder / "labelled.txt").read_text().splitlines()
    sources = tree["DataLoader"]["Train"]["sources"]
    new = tmp_path / "list.txt"

    def fits(text, **changes):
        new.write_text("\n".join(text) + "\n")
        first = {**sources[0], "list": str(new), **changes}
        return compare(store, expect(resolve(changed(tree, DataLoader__Train__sources=[first, sources[1]])), 1.0))

    fits(lines)
    fits([line.split()[0] for line in lines], labelled=False, name="elsewhere", root="/nowhere")
    for other in (lines[1:], [lines[1], lines[0], *lines[2:]], [lines[0].replace("00", "77"), *lines[1:]]):
        with pytest.raises(ConfigError, match=r"samples\.(list|count) is .* take the list that it was made from"):
            fits(other)


def test_transforms_that_make_other_pixels_are_named(write, monkeypatch):
    folder, config = write()
    apply = transforms.RandCropImage.apply
    monkeypatch.setattr(transforms.RandCropImage, "apply", lambda self, *args: 255 - apply(self, *args))
    with pytest.raises(ConfigError, match="code is .* targets verify DIR -c FILE --accept"):
        compare(folder, expect(config, 1.0))


def test_the_version_of_a_transform_is_compared(write, monkeypatch):
    from ppcls_ssld.targets import drawn
    folder, config = write()
    make, version = drawn._TRANSFORMS[transforms.RandCropImage]
    monkeypatch.setitem(drawn._TRANSFORMS, transforms.RandCropImage, (make, version + 1))
    with pytest.raises(ConfigError, match=r"transforms.1.version is 1 there, 2 here"):
        compare(folder, expect(config, 1.0))


def test_another_format_and_no_store_at_all_are_refused(write, tmp_path):
    folder, _ = write()
    tree = json.loads((folder / "header.json").read_text())
    (folder / "header.json").write_text(json.dumps({**tree, "format": 2}))
    with pytest.raises(ConfigError, match="format is 2, this version reads 1"):
        read_header(folder)
    with pytest.raises(ConfigError, match="expected a folder that `ppcls-ssld targets write` made"):
        read_header(tmp_path)


def test_seed_views_and_engine_are_no_business_of_training(write, tree):
    folder, _ = write()
    compare(folder, expect(resolve(changed(tree, Global__seed=77, Arch__Teacher__engine="auto",
                                               DataLoader__Train__batch_size=3)), 1.0))


def test_an_ensemble_is_recorded_with_its_shares(write, folder, tree):
    members = [{"name": "PPLCNet_x0_25", "pretrained": str(folder / f"teacher{i}.pdparams"), "weight": i}
               for i in (1, 2)]
    teacher = {"name": "Ensemble", "bn_mode": "eval", "engine": "eager", "teachers": members}
    store, config = write(Arch__Teacher=teacher)
    found = read_header(store)["teacher"]
    assert [network["share"] for network in found] == pytest.approx([1 / 3, 2 / 3])
    assert found[0]["weights"] != found[1]["weights"]
    twice = [{**members[0], "weight": 3}, members[1]]
    with pytest.raises(ConfigError, match=r"teacher.0.share"):
        compare(store, expect(resolve(changed(tree, Arch__Teacher={**teacher, "teachers": twice})), 1.0))


@pytest.mark.parametrize("ops,field", [
    ([{"DecodeImage": {}}, {"RandCropImage": {"size": 32}}, FLIP, NORMALIZE], r"transforms.1.arguments.scale is"),
    ([{"DecodeImage": {}}, CROP, NORMALIZE], "transforms is"),
])
def test_other_transforms_are_named_without_the_pixels_that_follow_from_them(write, tree, ops, field):
    """Accepting other pixels would then be the wrong advice: `--accept` refuses too."""
    folder, _ = write()
    other = expect(resolve(changed(tree, DataLoader__Train__transform_ops=ops)), 1.0)
    with pytest.raises(ConfigError, match=field) as refused:
        compare(folder, other)
    assert "--accept" not in str(refused.value) and "code is" not in str(refused.value)


def test_transforms_that_no_test_image_fits_are_a_notice_and_not_equal(write):
    folder, config = write()
    known, expected = read_header(folder), expect(config, 1.0)
    for found, wanted in ((None, expected["code"]), (expected["code"], None), (None, None)):
        notice, = check({**known, "code": found}, {**expected, "code": wanted}, "there")
        assert notice.startswith("there: no test image fits the transforms")


def code(*ops):
    from ppcls_ssld.config.schema import LoaderConfig
    return header.code_digest(LoaderConfig((), tuple(ops)))


def test_a_list_that_no_test_image_fits_has_no_hash():
    assert code({"CropImage": {"size": 4000}}) is None


def test_another_decoder_is_noticed_by_any_list(monkeypatch):
    from ppcls_ssld.data import pixels
    lists = [[CROP], [{"DecodeImage": {}}, CROP], [{"Padv2": {"size": 32, "fill_value": 0}}]]
    before = [code(*ops) for ops in lists]
    assert None not in before and before == [code(*ops) for ops in lists]
    decode = pixels.decode
    monkeypatch.setattr(pixels, "decode", lambda *args: decode(*args) ^ 1)
    assert all(code(*ops) != was for ops, was in zip(lists, before))


def test_decoding_at_a_fraction_is_noticed_at_any_size_of_crop(monkeypatch):
    from ppcls_ssld.data import reduced
    for size in (32, 224):
        crop = {"RandCropImage": {"size": size}}
        whole, parts = code({"DecodeImage": {}}, crop), code({"DecodeImage": {"reduced": True}}, crop)
        assert whole != parts
        with monkeypatch.context() as patch:
            patch.setattr(reduced, "_FACTORS", (4, 2))
            assert code({"DecodeImage": {"reduced": True}}, crop) != parts
            assert code({"DecodeImage": {}}, crop) == whole


def test_a_damaged_header_is_refused_in_words(write):
    folder, _ = write(views=1)
    text = (folder / "header.json").read_text()
    for path, value in [
        ("samples", None), ("samples", {}), ("samples.count", 0), ("views", "5"), ("views", 0), ("views", True),
        ("class_num", 4.0), ("tail", "long"), ("temperature", "1"), ("transforms", {}), ("transforms.1", "RandCropImage"),
        ("transforms.1.name", 7), ("transforms.1.arguments", []), ("teacher.0.share", None), ("teacher.0", []),
        ("answer", []), ("answer.bits", "12"), ("answer.bits", 11), ("answer.k", 9), ("rows.order", "sorted"),
        ("rows.block", -8), ("record", []), ("record.descr", None), ("record.descr", [["check", "u9"]]), ("seed", -1),
    ]:
        tree = node = json.loads(text)
        *parents, leaf = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            node = node[key]
        node[leaf] = value
        (folder / "header.json").write_text(json.dumps(tree))
        with pytest.raises(ConfigError):
            TargetStore(folder)


def test_a_header_of_nothing_but_its_format_is_refused_by_what_is_missing(tmp_path):
    (tmp_path / "header.json").write_text('{"format": 1}')
    with pytest.raises(ConfigError, match="samples is null, expected a table; the file is damaged"):
        read_header(tmp_path)


def test_the_test_images_show_what_every_kind_of_list_does():
    lists = [[CROP], [{"CropImage": {"size": 224}}],
             [{"Padv2": {"size": 32, "fill_value": 0}}, {"RandCropImageV2": {"size": 24}}]]
    digests = {code(*ops) for ops in lists}
    assert len(digests) == 3 and None not in digests


def test_the_list_s_hash_sees_where_names_end_but_not_where_sources_do():
    from ppcls_ssld.data import ImageList
    import numpy as np

    def listed(*names):
        ends = np.cumsum([len(name) for name in names])
        lengths = np.array([len(name) for name in names], np.int32)
        return ImageList("", "".join(names).encode(), ends - lengths, lengths, np.zeros(len(names), np.int32))

    assert header.list_digest([listed("ab", "c"), listed("d")]) == header.list_digest([listed("ab", "c", "d")])
    assert header.list_digest([listed("ab", "c")]) != header.list_digest([listed("a", "bc")])
