import copy
import json
import os
from argparse import ArgumentParser

import pytest
from handmade import picture, record, says, write_tar

from lightning_llava.data.index_command import add_index_command
from lightning_llava.data.measure import encoder_fingerprint
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
from lightning_llava.specs import VisionSpec

QUESTION = says("<image>\nWhat is it?", "A cat.")
ONE = record("a", QUESTION, 1)


@pytest.fixture(autouse=True)
def wide(monkeypatch, tmp_path):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


def call(*arguments):
    parser = ArgumentParser(prog="shards.py")
    add_index_command(parser.add_subparsers())
    options = parser.parse_args(["index", *map(str, arguments), "--processes", "1"])
    return options.run(options)


def call_json(capsys, *arguments):
    code = call(*arguments, "--json")
    output = capsys.readouterr()
    assert output.err == ""
    return code, json.loads(output.out)


@pytest.fixture
def shards(tmp_path):
    a = write_tar(
        tmp_path / "a.tar",
        *[("0.json", ONE), ("0.png", picture(0, (640, 480)))],
        *[("1.json", ONE), ("1.png", picture(1, (10, 30)))],
        ("2.json", record("t", says("Привет", "Да", "Ещё", "Нет"), language="ru")),
        ("2.txt", b""),
    )
    b = write_tar(tmp_path / "b.tar", ("0.json", ONE), ("0.png", picture(2, (200, 200))))
    return [a, b]


def spoil(shards):
    members = [("0.json", ONE), ("0.png", b"")]
    members += [(f"{number}.png", picture(0)) for number in range(1, 6)]
    write_tar(shards[1], *members)


def test_what_the_shards_hold(shards, capsys):
    code, found = call_json(capsys, *shards)
    assert code == 0
    assert found == {
        "shards": 2,
        "samples": 4,
        "text_only": 1,
        "images": 3,
        "bytes": sum(path.stat().st_size for path in shards),
        "pairs": 5,
        "languages": {"en": 3, "ru": 1},
        "image_sizes": {"least": 30, "median": 200, "most": 640},
        "quarantined": 0,
        "reasons": {},
        "notes": {"members ignored that end in .txt": 1},
        "quarantine": [],
    }
    assert all(path.with_name(f"{path.name}.index.json").exists() for path in shards)


def test_the_table(shards, capsys):
    assert call("*.tar") == 0
    lines = [
        " ".join(line.replace("│", " ").split()) for line in capsys.readouterr().out.splitlines()
    ]
    size = sum(path.stat().st_size for path in shards)
    assert lines[1:7] == [
        f"shards 2, {size:,} bytes",
        "samples 4 (1 text-only)",
        "questions 5",
        "languages en 3, ru 1",
        "images 3; longer side 30 to 640 pixels, median 200",
        "left out 0",
    ]
    assert lines[-1] == "note: 1 members ignored that end in .txt"


def test_everything_left_out_is_named(shards, capsys):
    spoil(shards)
    code, found = call_json(capsys, *shards)
    assert code == 1
    missing = "the .json member is missing"
    assert (found["quarantined"], found["samples"]) == (6, 3)
    assert found["reasons"] == {missing: 5, "image 0 is empty": 1}
    assert found["quarantine"][0] == {
        "shard": str(shards[1]),
        "key": "0",
        "reason": "image 0 is empty",
    }
    assert [entry["key"] for entry in found["quarantine"]] == [*"012345"]
    assert call(*shards) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[-7:] == [
        f"left out: 5 x {missing}",
        *[f"  shard {shards[1]}, sample {key}: {missing}" for key in "123"],
        "  and 2 more (--json names all)",
        "left out: 1 x image 0 is empty",
        f"  shard {shards[1]}, sample 0: image 0 is empty",
    ]


def test_what_no_terminal_takes_is_escaped(tmp_path, capsys):
    half = record("half", says("Why?", "So."), version="\ud800")
    shard = write_tar(tmp_path / "half.tar", ("0.json", half))
    assert call(shard) == 1
    assert "schema version \\ud800, expected 1" in capsys.readouterr().out


def test_tokens(shards, tokenizer_folder, encoder, capsys):
    options = ["--tokenizer", tokenizer_folder, "--template", "mistral_instruct"]
    code, found = call_json(capsys, *shards, *options, "--image-tokens", "16")
    lengths = [
        encoder.encode(turns, images).length
        for turns, images in (
            *[(parsed(QUESTION), 1)] * 3,
            (parsed(says("Привет", "Да", "Ещё", "Нет")), 0),
        )
    ]
    assert code == 0
    assert (found["usable"], found["tokens"], found["truncated"]) == (4, sum(lengths), 0)
    assert found["lengths"]["most"] == max(lengths)
    # Kept for training with the same settings.
    index = json.loads(shards[1].with_name("b.tar.index.json").read_bytes())["index"]
    assert [value["lengths"] for value in index["encoders"].values()] == [lengths[:1]]
    call(*shards, *options, "--image-tokens", "16")
    assert f"{sum(lengths):,}; a sample" in capsys.readouterr().out


def parsed(turns):
    from lightning_llava.text.turns import Turn

    return [Turn(**turn) for turn in turns]


def test_image_tokens_are_those_of_a_tower(shards, tokenizer_folder, clip, capsys):
    options = ["--tokenizer", tokenizer_folder, "--template", "mistral_instruct"]
    tokens = [
        call_json(capsys, shards[1], *options, *more)[1]["tokens"]
        for more in (["--vision", clip], ["--image-tokens", "16"], [])
    ]
    assert tokens[0] == tokens[1] == tokens[2] - 576 + 16


def test_tokens_of_tiles_are_those_of_training(shards, tokenizer_folder, clip, encoder, capsys):
    options = ["--tokenizer", tokenizer_folder, "--template", "mistral_instruct", "--vision", clip]
    specs = [
        (VisionSpec(str(clip), any_resolution=True), []),
        (VisionSpec(str(clip), any_resolution=True, grids=[[1, 1], [2, 3]]), ["--grids=1x1,2x3"]),
    ]
    totals = set()
    for spec, more in specs:
        trained = copy.copy(encoder)
        trained.tiling = vision_geometry(load_vision_config(spec), spec).tiling
        sizes = ((640, 480), (10, 30))
        expected = [trained.encode(parsed(QUESTION), [size]).length for size in sizes]
        _, found = call_json(capsys, shards[0], *options, "--any-resolution", *more)
        index = json.loads(shards[0].with_name("a.tar.index.json").read_bytes())["index"]
        lengths = index["encoders"][encoder_fingerprint(trained)]["lengths"]
        assert lengths[:2] == expected
        assert found["tokens"] == sum(lengths)
        totals.add(found["tokens"])
    assert len(totals) == 2


@pytest.mark.parametrize(
    ("options", "found"),
    [
        (["--any-resolution"], "--any-resolution depends on the tower's image size; add --vision"),
        (["--vision", "a", "--grids", "1x2"], "--grids are those of --any-resolution; add that"),
        (["--vision", "a", "--any-resolution", "--grids", "2"], "--grids is '2'; expected rows x"),
    ],
)
def test_tiles_without_what_they_need_are_refused(shards, tokenizer_folder, options, found):
    named = ["--tokenizer", tokenizer_folder, "--template", "mistral_instruct"]
    with pytest.raises(SettingError, match=found):
        call(*shards, *named, *options)


def test_refused_by_the_template(shards, tokenizer_folder, capsys):
    options = ["--tokenizer", tokenizer_folder, "--template", "plain"]
    code, found = call_json(capsys, *shards, *options)
    assert code == 1
    assert (found["samples"], found["usable"]) == (4, 3)
    assert found["quarantine"][0]["key"] == "2"
    assert "the template 'plain' takes 1" in found["quarantine"][0]["reason"]


def test_full_decoding(shards, capsys):
    cut = picture(3, (64, 64), "JPEG")[:-300]
    write_tar(shards[1], ("0.json", ONE), ("0.jpg", cut))
    assert call_json(capsys, *shards)[0] == 0
    code, found = call_json(capsys, *shards, "--decode")
    assert (code, found["reasons"]) == (1, {"image 0 cannot be decoded": 1})


def test_a_damaged_shard(shards, capsys):
    os.truncate(shards[1], 1600)
    code, found = call_json(capsys, *shards)
    assert code == 1
    assert found["samples"] == 3
    assert found["reasons"] == {
        "the shard is damaged and what follows is lost": 1,
        "stands where the shard is damaged": 1,
    }
    call(shards[1])
    assert "are not used" not in capsys.readouterr().out  # all of the 1,600 are; more is missing


def test_bytes_after_the_damage_are_counted(shards, capsys):
    size = shards[0].stat().st_size
    second = shards[0].read_bytes().index(b"1.json")  # of its header
    with shards[0].open("r+b") as shard:
        shard.seek(second)
        shard.write(b"\xff" * 512)
    assert call(shards[0]) == 1
    told = f"; the last {size - second:,} of its {size:,} bytes are not used"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing-*.tar"], r"^SHARDS: nothing matches 'nothing-\*.tar' in "),
        (["a.tar", "*.tar"], "^SHARDS: .*a.tar is named twice"),
        (["a.tar", "--template", "plain"], "^--template, --vision and --any-resolution count"),
        (["a.tar", "--tokenizer", "x/y"], r"^--tokenizer needs --template"),
    ],
)
def test_wrong_input(shards, arguments, message):
    arguments = [str(shards[0]) if name == "a.tar" else name for name in arguments]
    with pytest.raises(SettingError, match=message):
        call(*arguments)
