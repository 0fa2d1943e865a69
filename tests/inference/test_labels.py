import pytest
from ppcls_ssld.errors import DataError
from ppcls_ssld.inference import read_labels


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "names.txt"


def test_paddleclas_lines_carry_an_id_and_a_name_with_spaces(file):
    write(file, "0 tench, Tinca tinca\n1 goldfish, Carassius auratus\n")  # head of imagenet1k_label_list.txt
    assert read_labels(file) == ("tench, Tinca tinca", "goldfish, Carassius auratus")


def test_ids_may_come_in_any_order_with_tabs_and_windows_line_ends(file):
    assert read_labels(write(file, "2\tzwei\r\n0\tnull\r\n1\teins\r\n")) == ("null", "eins", "zwei")


def test_names_alone_are_taken_in_order(file):
    assert read_labels(write(file, "grey wolf\nred fox\n\n")) == ("grey wolf", "red fox")


def test_names_that_are_numbers_are_names(file):
    assert read_labels(write(file, "0\n1\n2\n")) == ("0", "1", "2")


def test_a_byte_order_mark_is_no_part_of_a_name(file):
    assert read_labels(write(file, "猫\n狗\n", "utf-8-sig")) == ("猫", "狗")


@pytest.mark.parametrize("text, message", [
    ("0 a\n2 c\n", "id 1 is missing"), ("0 a\n0 b\n", "an id is there twice|must carry"), ("\n \n", "no class names")])
def test_gaps_doubles_and_nothing_are_refused(text, message, file):
    with pytest.raises(DataError, match=message):
        read_labels(write(file, text))


def test_the_number_of_names_must_be_the_number_of_classes(file):
    write(file, "a\nb\n")
    assert read_labels(file, class_num=2) == ("a", "b")
    with pytest.raises(DataError, match="2 class names, but the network has 10 classes"):
        read_labels(file, class_num=10)


def test_a_missing_or_foreign_file_is_named(file, tmp_path):
    with pytest.raises(DataError, match="absent.txt"):
        read_labels(tmp_path / "absent.txt")
    with pytest.raises(DataError, match="UTF-8"):
        read_labels(write(file, "café\n", "latin-1"))
