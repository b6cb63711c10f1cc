from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest
from jsonargparse import ArgumentParser

from lightning_llava.cli_inputs import (
    Given,
    KnownSettings,
    accepted,
    choices,
    config_files,
    given_settings,
    init_args,
)


@dataclass
class Wheel:
    size: int = 3
    tyre: Literal["winter", "summer"] = "summer"


@dataclass
class Car:
    spare: Wheel | None = None
    wheels: dict[str, Wheel] = field(default_factory=dict)
    name: str = ""


@pytest.fixture(scope="module")
def known():
    parser = ArgumentParser()
    parser.add_class_arguments(Car, "car")
    parser.add_argument("--max_steps", type=int)
    return KnownSettings(parser)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("max_steps", "max_steps"),
        ("car.name", "car.name"),
        ("car.spare.size", "car.spare.size"),
        ("car.wheels.left.tyre", "car.wheels.*.tyre"),
        ("car.wheels.left.tire", None),
        ("car.wheel", None),
    ],
)
def test_a_key_is_found_inside_optional_parts_and_dictionaries(known, key, found):
    assert known.find(key) == found


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("car.nam", ["car.name"]),
        ("max_step", ["max_steps"]),
        ("bicycle.max_steps", ["max_steps"]),
        ("size", ["car.spare.size"]),
        ("car.wheels.left.tyer", ["car.wheels.left.tyre"]),
        ("zzzzzz", []),
    ],
)
def test_the_nearest_key(known, key, meant):
    assert known.nearest(key) == meant


def test_children_of_a_section_and_of_a_value(known):
    assert known.children("car") == ["spare", "wheels", "name"]
    assert known.children("car.name") == []
    assert known.children("nothing") == []


def test_types_in_words():
    assert accepted(int) == ["a whole number"]
    assert accepted(float | None) == ["a number", "null"]
    assert accepted(Literal["a", "b"] | None) == ["a", "b", "null"]
    assert accepted(Wheel) == ["a mapping with size, tyre"]
    assert accepted(dict[str, Wheel]) == ["a mapping from names to a mapping with size, tyre"]
    assert accepted(Path) == ["a class_path of Path"]
    assert choices(Literal["a", "b"] | None) == ["a", "b"]
    assert choices(int | None) == []


def test_flags_in_their_spellings():
    flags = ["fit", "--a.b", "1", "--x=2", "--d+=3", "--e", '{"f": 4}', "--g"]
    assert given_settings(flags) == [
        Given("a.b", "1"),
        Given("x", "2"),
        Given("d", "3"),
        Given("e", '{"f": 4}'),
        Given("e.f", "4"),
        Given("g", ""),
    ]


def test_files_with_lines_and_flags_in_their_order(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("trainer:\n  max_steps: 'many'\n  callbacks+:\n  - x\n")
    two.write_text("a: [1\n")
    given = given_settings(["fit", "-c", str(one), "--b", "7", f"--config={two}"])
    assert [(one.key, one.value) for one in given if one.key.count(".") != 0 or one.key == "b"] == [
        ("trainer.max_steps", "many"),
        ("trainer.callbacks", "- x"),
        ("trainer.callbacks.0", "x"),
        ("b", "7"),
    ]
    assert given[1].place == f"{one}, line 2"
    assert given[1].label() == f"{one}, line 2: trainer.max_steps"
    assert given[-1].label() == "--b"
    assert config_files(["-c", str(one), f"--config={two}"]) == [one, two]


def test_a_missing_file_sets_nothing(tmp_path):
    assert given_settings(["-c", str(tmp_path / "none.yaml")]) == []


@pytest.mark.parametrize(
    ("class_path", "names"),
    [
        (f"{__name__}.Wheel", ["size", "tyre"]),
        (f"{__name__}.Bicycle", []),
        ("no_such_module.Wheel", []),
        ("Wheel", []),
        ("", []),
    ],
)
def test_arguments_of_a_class(class_path, names):
    assert init_args(class_path) == names
