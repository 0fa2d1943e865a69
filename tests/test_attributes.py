"""What the outputs of a network with several labels an image are called, and which probability is a yes."""

import pytest
from ppcls_ssld.attributes import GENERIC, NAMED, Attributes, attributes_of
from ppcls_ssld.errors import ConfigError


@pytest.mark.parametrize("name, count", [("VehicleAttribute", 19), ("PersonAttribute", 26), ("TableAttribute", 6)])
def test_the_sets_of_paddleclas_have_the_class_num_of_its_yamls(name, count):
    attributes = attributes_of(name, {})
    attributes.check(count)
    assert len(set(attributes.names)) == len(attributes.thresholds) == count
    for wrong in (1, count - 1, count + 1):
        with pytest.raises(ConfigError, match=f"{count} names for a network with {wrong}"):
            attributes.check(wrong)


def test_each_threshold_rules_the_attributes_of_its_name():
    person = attributes_of("PersonAttribute", {"threshold": 0.45})
    ruled = {name: t for name, t in zip(person.names, person.thresholds) if t != 0.45}
    assert ruled == {"Glasses": 0.3, "HoldObjectsInFront": 0.6}  # PaddleClas's defaults for these two
    vehicle = attributes_of("VehicleAttribute", {"type_threshold": 1})
    assert vehicle.thresholds == (0.5,) * 10 + (1.0,) * 9
    assert vehicle.names[9:11] == ("black", "sedan")
    table = attributes_of("TableAttribute", {"angle_threshold": 0.2})
    assert table.thresholds == (0.5,) * 5 + (0.2,) and table.names[5] == "Horizontal"


def test_a_set_of_ones_own_has_one_threshold_or_one_for_each():
    assert attributes_of(GENERIC, {}) == Attributes((0.5,), ())
    attributes_of(GENERIC, {"threshold": 0.3}).check(5)
    own = attributes_of(GENERIC, {"threshold": [0.3, 0.7], "label_list": ["hat", 7]})
    assert own == Attributes((0.3, 0.7), ("hat", "7"))
    own.check(2)
    assert attributes_of(GENERIC, {"threshold": 0.5, "delimiter": " "}) == Attributes((0.5,), ())  # PaddleClas writes it
    with pytest.raises(ConfigError, match="2 thresholds for a network with 3"):
        attributes_of(GENERIC, {"threshold": [0.3, 0.7]}).check(3)


@pytest.mark.parametrize("name, arguments, message", [
    ("VehicleAttributes", {}, "gives no attributes; expected MultiLabelThreshOutput"),
    ("VehicleAttribute", {"colour_threshold": 0.5}, "did you mean 'color_threshold'"),
    ("TableAttribute", {"label_list": []}, "no argument 'label_list'"),
    (GENERIC, {"threshold": 1.5}, "from 0 to 1, found 1.5"),
    (GENERIC, {"threshold": []}, "from 0 to 1, found None"),
    (GENERIC, {"threshold": True}, "found True"),
    (GENERIC, {"label_list": "names.txt"}, "label_list: expected a list of names, .*found 'names.txt'"),
    (GENERIC, {"label_list": {"hat": 1}}, "expected a list of names"), (GENERIC, {"label_list": 3}, "found 3"),
    (GENERIC, {"label_list": ["hat", ["bag"]]}, "expected a list of names"),
    (GENERIC, {"label_list": ["hat", True]}, "found .'hat', True.; put names such as yes, no, .* in quotes"),
    ("PersonAttribute", {"hold_threshold": "0.6"}, "found '0.6'"),
])
def test_what_makes_no_sense_is_refused(name, arguments, message):
    with pytest.raises(ConfigError, match=message):
        attributes_of(name, arguments)


def test_no_default_of_a_set_is_outside_its_attributes():
    for named in NAMED.values():
        ruled = {i for _, indices in named.thresholds.values() for i in indices}
        assert ruled == set(range(len(named.names)))
