"""Other weights, another hash, whatever the file is called and however old it looks."""

import json
import os

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers import fingerprints
from lightning_llava.evaluation.answerers.fingerprints import (
    fingerprint,
    hash_file,
    hash_folder,
    local_folder,
)

OLD = 1_600_000_000


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "lightning_llava" / "weights.json"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "model"
    (made / "reader").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "reader/tokenizer.json"):
        write(made / name, b"before")
    return made


def write(path, content):
    path.write_bytes(content)
    os.utime(path, (OLD, OLD))


@pytest.fixture
def read(monkeypatch):
    """The files whose bytes were read."""
    names = []
    monkeypatch.setattr(fingerprints, "hash_file", lambda p: names.append(p.name) or hash_file(p))
    return names


def test_unchanged_files_are_not_read_again(folder, read):
    first = hash_folder(folder)
    assert sorted(read) == ["config.json", "model.safetensors", "tokenizer.json"]
    read.clear()
    assert hash_folder(folder) == first
    assert read == []


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "reader/tokenizer.json"])
def test_a_change_of_the_same_size_and_time_is_seen(folder, name):
    first = hash_folder(folder)
    write(folder / name, b"behind")
    changed = hash_folder(folder)
    assert changed != first
    write(folder / name, b"before")
    assert hash_folder(folder) == first


def test_a_file_put_in_its_place_is_seen(folder, tmp_path):
    first = hash_folder(folder)
    write(tmp_path / "other", b"behind")
    (tmp_path / "other").replace(folder / "model.safetensors")
    assert hash_folder(folder) != first


def test_a_file_that_is_still_warm_is_read_every_time(folder, read):
    os.utime(folder / "config.json")
    hash_folder(folder)
    read.clear()
    hash_folder(folder)
    assert read == ["config.json"]


def test_a_damaged_cache_is_no_cache(folder, cache):
    first = hash_folder(folder)
    assert str(folder / "model.safetensors") in json.loads(cache.read_text())
    cache.write_text("{")
    assert hash_folder(folder) == first


def test_where_it_lies_does_not_count(folder, tmp_path):
    first = hash_folder(folder)
    folder.rename(tmp_path / "elsewhere")
    assert hash_folder(tmp_path / "elsewhere") == first


def test_settings_and_versions_are_part_of_it(monkeypatch):
    first = fingerprint(tokens=1, model="a")
    assert fingerprint(model="a", tokens=1) == first != fingerprint(model="a", tokens=2)
    monkeypatch.setattr(fingerprints, "version", lambda package: "0")
    assert fingerprint(model="a", tokens=1) != first


def test_a_folder_without_weights_is_refused(folder):
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        SettingError, match=r"^--model: no weights in .* expected model\*\.safetensors;"
    ):
        local_folder(str(folder), None, "--model")
    assert local_folder(str(folder), None, "--model", old_weights=True) == folder


def test_a_name_that_is_not_there_is_refused():
    with pytest.raises(SettingError, match="--model: could not load 'nobody/nothing'"):
        local_folder("nobody/nothing", None, "--model")
