import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_llava.data.index import build_index, read_sample
from lightning_llava.data.storage import ShardStorage
from lightning_llava.demo import english, records, russian
from lightning_llava.demo import world as world_module
from lightning_llava.demo.drawing import encode
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.world import DemoWorld
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec, SourceSpec
from lightning_llava.text.conversation import ConversationEncoder

TINY = {"train_scenes": 3, "validation_scenes": 2}


def tiny(folder, **settings):
    return DemoWorld(folder=str(folder), **{**TINY, **settings})


def contents(folder):
    files = (path for path in sorted(Path(folder).rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def stamps(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_ino, path.stat().st_mtime_ns)
        for path in Path(folder).rglob("*")
    }


def is_whole(folder):
    return {path.name for path in Path(folder).iterdir()} == {
        *("images", "mini_clip", "mini_vicuna", "mini_saiga", "train", "validation"),
        *("gqa", "ocr", "pope", "russian.tsv", "vqav2", "world.json"),
    }


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    folder = tmp_path_factory.mktemp("first") / "world"
    tiny(folder).prepare()
    return contents(folder)


def test_the_same_seed_gives_the_same_bytes(first, tmp_path):
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    tiny(tmp_path / "again").prepare()
    assert contents(tmp_path / "again") == first
    assert {Path(name).suffix for name in first} == {
        *(".tar", ".json", ".jsonl", ".tsv", ".png", ".safetensors", ".md")
    }


def test_another_seed_gives_another_world(first, tmp_path):
    tiny(tmp_path / "other", seed=1).prepare()
    other = contents(tmp_path / "other")
    changed = {name for name in first if other.get(name) != first[name]}
    # All that is drawn differs; the backbones are those that ship.
    drawn = {name for name in first if name.endswith(".png")}
    drawn |= {name for name in first if name.startswith(("pope/", "train/captions"))}
    assert drawn <= changed
    pictures = {name for name in first if name.startswith("images/")}
    assert len(drawn) == len(pictures) + 6 + 2
    assert not [name for name in changed if name.startswith("mini_")]


def test_preparation_leaves_randomness_alone(tmp_path):
    plain, drawn, legacy = random.getstate(), torch.get_rng_state(), np.random.get_state()
    tiny(tmp_path / "world").prepare()
    assert random.getstate() == plain
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(map(np.array_equal, np.random.get_state(), legacy))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_shards_give_back_what_was_said(folder, world, split):
    number = {"train": world.train_scenes, "validation": world.validation_scenes}[split]
    scenes = [generate(world.seed, i, split) for i in range(number)]
    pictures = [encode(scene) for scene in scenes]
    spec = LanguageSpec(name=str(folder / "mini_saiga"), template="mistral_instruct")
    encoder = ConversationEncoder(spec, image_tokens=64)
    sources = {
        f"{kind}-{language}": SourceSpec(shards=f"{folder}/{split}/{kind}-{language}-*.tar")
        for kind in records.BUILDERS
        for language in ("en", "ru")
    }
    storage = ShardStorage()
    index = build_index(sources, encoder, storage)
    assert index.quarantine == []
    assert index.dropped_turns == {}
    by_source = {name: [] for name in sources}
    for indexed in index:
        by_source[indexed.source].append(read_sample(storage, indexed))
    for wording in (english, russian):
        for kind in records.BUILDERS:
            made = records.samples(kind, wording, scenes, pictures, world.seed)
            assert by_source[f"{kind}-{wording.CODE}"] == list(made)


def test_images_are_the_validation_pictures_and_as_many_with_a_word(folder, world):
    found = {path.name: path.read_bytes() for path in (folder / "images").iterdir()}
    numbers = sorted(int(name.removesuffix(".png").split("_")[-1]) for name in found)
    scenes = [generate(world.seed, i, "validation") for i in numbers]
    assert found == {scene.image_name: encode(scene) for scene in scenes}
    assert numbers[: world.validation_scenes] == list(range(world.validation_scenes))
    assert all(scene.word for scene in scenes[world.validation_scenes :])
    assert sum(scene.word is not None for scene in scenes) == world.validation_scenes


def test_a_world_that_stands_is_left_alone(tmp_path, monkeypatch):
    tiny(tmp_path / "world").prepare()
    before = stamps(tmp_path)
    monkeypatch.setattr(DemoWorld, "_write", None)
    tiny(tmp_path / "world").prepare()
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("change", [{"seed": 9}, {"train_scenes": 4}, {"validation_scenes": 1}])
def test_other_settings_replace_it(tmp_path, change):
    folder = tmp_path / "world"
    tiny(folder).prepare()
    (folder / "train" / "left-over.tar").touch()
    tiny(folder, **change).prepare()
    note = json.loads((folder / "world.json").read_text(encoding="utf-8"))
    assert {key: note[key] for key in change} == change
    assert not (folder / "train" / "left-over.tar").exists()
    assert is_whole(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_other_code_replaces_it(tmp_path, monkeypatch):
    tiny(tmp_path / "world").prepare()
    before = stamps(tmp_path / "world")
    monkeypatch.setattr(world_module, "_code_hash", lambda: "newer")
    tiny(tmp_path / "world").prepare()
    assert all(stamps(tmp_path / "world")[name] != before[name] for name in before)


@pytest.mark.parametrize("numbers", [(0, 5), (5, 0), (-1, 5)])
def test_empty_splits_are_refused(tmp_path, numbers):
    train, validation = numbers
    with pytest.raises(SettingError, match=f"{train} train_scenes and {validation} validation_s"):
        tiny(tmp_path / "world", train_scenes=train, validation_scenes=validation).prepare()
    assert not any(tmp_path.iterdir())


def test_somebody_elses_folder_is_refused(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    (folder / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(SettingError) as refused:
        tiny(folder).prepare()
    assert str(refused.value).startswith(f"data.preparation.folder: {folder} holds something")
    assert "world.json" in str(refused.value)
    assert contents(tmp_path) == {"photos/holiday.jpg": b"precious"}


def test_a_file_in_the_place_is_refused(tmp_path):
    (tmp_path / "world").write_text("precious")
    with pytest.raises(SettingError, match="holds something that is no demo world"):
        tiny(tmp_path / "world").prepare()
    assert contents(tmp_path) == {"world": b"precious"}


def test_missing_parents_empty_folders_and_the_home_folder_will_do(tmp_path, monkeypatch):
    (tmp_path / "empty").mkdir()
    tiny(tmp_path / "empty").prepare()
    assert is_whole(tmp_path / "empty")
    monkeypatch.setenv("HOME", str(tmp_path))
    tiny("~/a/b/world").prepare()
    assert is_whole(tmp_path / "a" / "b" / "world")


@pytest.mark.parametrize("step", ["write_backbones", "write_shards", "encode"])
def test_an_interruption_leaves_what_was_there(tmp_path, monkeypatch, step):
    def interrupt(*_args, **_kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(world_module, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path / "new").prepare()
    assert not any(tmp_path.iterdir())
    tiny(tmp_path / "old").prepare()
    before = stamps(tmp_path / "old")
    with monkeypatch.context() as patched:
        patched.setattr(world_module, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path / "old", seed=2).prepare()
    assert stamps(tmp_path / "old") == before
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.fixture
def overtaken(monkeypatch):
    """Let something happen between building a world and putting it in its place."""

    def arrange(happening):
        write = DemoWorld._write

        def write_and_be_overtaken(self, folder):
            write(self, folder)
            monkeypatch.setattr(DemoWorld, "_write", write)
            happening()

        monkeypatch.setattr(DemoWorld, "_write", write_and_be_overtaken)

    return arrange


def test_of_two_equal_worlds_the_first_stays(tmp_path, overtaken):
    folder, seen = tmp_path / "world", {}

    def other_process():
        tiny(folder).prepare()
        seen.update(stamps(folder))

    overtaken(other_process)
    tiny(folder).prepare()
    assert stamps(folder) == seen != {}
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_of_two_different_worlds_the_last_stays(tmp_path, overtaken):
    folder = tmp_path / "world"
    overtaken(lambda: tiny(folder, seed=4).prepare())
    tiny(folder, seed=3).prepare()
    assert json.loads((folder / "world.json").read_text(encoding="utf-8"))["seed"] == 3
    assert is_whole(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["world"]


def test_what_appears_meanwhile_is_not_overwritten(tmp_path, overtaken):
    folder = tmp_path / "world"

    def somebody():
        folder.mkdir()
        (folder / "thesis.tex").write_text("precious")

    overtaken(somebody)
    with pytest.raises(SettingError, match="holds something that is no demo world"):
        tiny(folder).prepare()
    assert contents(tmp_path) == {"world/thesis.tex": b"precious"}


RACE = """
import sys
from multiprocessing import get_context
from pathlib import Path
sys.modules["torchvision"] = None  # as where it is not installed
from PIL import Image
from transformers import AutoImageProcessor
from lightning_llava.demo.world import DemoWorld

def race(folder, barrier):
    barrier.wait(timeout=60)
    DemoWorld(folder=str(folder), train_scenes=3, validation_scenes=2).prepare()

# Forked, so that the slow imports happen once and the race is close.
fork = get_context("fork")
for heat in range(2):
    barrier = fork.Barrier(2)
    folder = Path(sys.argv[1]) / str(heat)
    racers = [fork.Process(target=race, args=(folder, barrier)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()
        assert racer.exitcode == 0
processor = AutoImageProcessor.from_pretrained(folder / "mini_clip")
print(processor(Image.new("RGB", (128, 128)))["pixel_values"][0].shape)
"""


@pytest.mark.slow
def test_two_processes_at_once_make_one_world_without_torchvision(first, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(3, 128, 128)\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert all(contents(folder) == first for folder in tmp_path.iterdir())
