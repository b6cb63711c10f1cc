import json
import re
import shlex
import tarfile
from argparse import ArgumentParser
from io import BytesIO
from pathlib import Path
from typing import get_args

import pytest
from PIL import Image

from lightning_llava.data.contact_sheet import MARGIN, WIDTH
from lightning_llava.data.converters.command import add_convert_command
from lightning_llava.data.converters.draft import Reason
from lightning_llava.data.converters.kinds import KINDS
from lightning_llava.data.schema import from_json
from photographs import write_photographs
from tool_files import load_tool


@pytest.fixture(scope="module")
def tool():
    return load_tool("shards")


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")  # help texts break at no hyphen


@pytest.fixture
def world(tmp_path):
    """Nine photographs and ten records: one has no image, the last one's image is missing."""
    paths = write_photographs(tmp_path / "images")
    answers = ["A person.", "Кофе.", "Ракета.", "Храм.", "A flower.", "Кот.", "Луна.", "Кофе."]
    records = [
        {
            "id": path.stem,
            "image": path.name,
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": answer},
            ],
        }
        for path, answer in zip(paths, answers, strict=False)
    ]
    talk = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    records.append({"id": "talk", "conversations": talk})
    records.append({**records[0], "id": "lost", "image": "lost.jpg"})
    (tmp_path / "photos.json").write_text(json.dumps(records), encoding="utf-8")
    return tmp_path


def arguments(world, *more):
    folders = ["--images", str(world / "images"), "--output", str(world / "shards")]
    return ["convert", "llava", "--json", str(world / "photos.json"), *folders, *more]


def read(shard):
    with tarfile.open(shard) as tar:
        members = {member.name: tar.extractfile(member).read() for member in tar}
    records = {name.split(".")[0]: name for name in members if name.endswith(".json")}
    return [
        from_json(
            members[name],
            [
                members[other]
                for other in sorted(members)
                if other.startswith(key) and other != name
            ],
        )
        for key, name in records.items()
    ]


def test_photographs_to_shards(tool, world, capsys):
    assert tool.main(arguments(world, "--max-samples", "4")) == 0
    shards = sorted((world / "shards").glob("*.tar"))
    assert [shard.name for shard in shards] == [f"photos-00000{number}.tar" for number in range(3)]
    samples = [sample for shard in shards for sample in read(shard)]
    assert [sample.id for sample in samples][-2:] == ["coffee_cmyk", "talk"]
    assert samples[1].images == [(world / "images" / "coffee.jpg").read_bytes()]
    assert " ".join(sample.language for sample in samples) == "en ru ru ru en ru ru ru en"
    assert {sample.source for sample in samples} == {"photos"}

    report = json.loads((world / "shards" / "photos.report.json").read_text(encoding="utf-8"))
    assert report["left_out"] == [
        {
            "position": 9,
            "id": "lost",
            "reason": "missing",
            "detail": f"lost.jpg: no such file in {(world / 'images').resolve()}, under no other"
            " ending either",
        }
    ]
    assert report["shards"] == {shard.name: shard.stat().st_size for shard in shards}
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["records", "10"] in rows
    assert ["written", "9"] in rows
    assert ["missing", "1"] in rows
    assert ["text-only", "1"] in rows
    assert not any(row[:1] == ["questions"] for row in rows)
    (size,) = (row for row in rows if row[:1] == ["bytes"])
    total = sum(shard.stat().st_size for shard in shards)
    assert size == ["bytes", f"{total:,}", "in", "3", "shards"]
    assert ["languages", "9", "(en", "3,", "ru", "6)"] in rows


def test_names_and_language_from_the_command_line(tool, world):
    options = ["--prefix", "train", "--source", "mine", "--language", "ru"]
    assert tool.main(arguments(world, *options)) == 0
    (shard,) = (world / "shards").glob("*.tar")
    assert shard.name == "train-000000.tar"
    assert {(sample.source, sample.language) for sample in read(shard)} == {("mine", "ru")}


def test_never_overwrites_shards(tool, world, capsys):
    assert tool.main(arguments(world)) == 0
    assert tool.main(arguments(world)) == 2
    error = capsys.readouterr().err
    assert "already holds 1 shard named photos-*.tar; remove it or choose another --prefix" in error


def test_nothing_usable(tool, world, capsys):
    (world / "photos.json").write_text('[{"conversations": 3}]')
    assert tool.main(arguments(world)) == 1
    output = capsys.readouterr().out
    assert "refused 1 (record 1)" in " ".join(output.replace("│", " ").split())
    assert output.splitlines()[-1] == ("1 of 1 records were left out, most often for `record` (1)")


def test_everything_that_can_be_asked(tool, world, capsys):
    records = json.loads((world / "photos.json").read_text(encoding="utf-8"))
    Image.new("RGB", (8, 8)).save(world / "images" / "drawing.bmp")
    renamed = {**records[1], "id": "renamed", "image": "drawing.jpg"}
    (world / "photos.json").write_text(json.dumps([*records, records[0], renamed]))
    options = ["--drop-duplicates", "--max-side", "512", "--reencode"]
    assert tool.main(arguments(world, *options)) == 0
    samples = [s for shard in (world / "shards").glob("*.tar") for s in read(shard)]
    widths = {s.id: Image.open(BytesIO(s.images[0])).width for s in samples if s.images}
    assert (widths["coffee"], widths["rocket"], widths["astronaut"]) == (512, 512, 512)
    assert samples[0].images == [(world / "images" / "astronaut.jpg").read_bytes()]
    assert samples[-1].images[0].startswith(b"\x89PNG")
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["records", "12"] in rows
    assert ["duplicates", "1", "(dropped", "1)"] in rows
    assert ["other", "extension", "1"] in rows
    assert ["re-encoded", "4"] in rows


def test_every_reason_is_counted_and_named(tool, world, capsys):
    records = json.loads((world / "photos.json").read_text(encoding="utf-8"))
    (world / "images" / "cut.jpg").write_bytes((world / "images" / "coffee.jpg").read_bytes()[:500])
    (world / "images" / "text.jpg").write_bytes(b"<html>Not found</html>")
    images = ["../photos.json", "cut.jpg", "cut.jpg", "text.jpg"]
    bad = [{**records[0], "id": f"bad {i}", "image": image} for i, image in enumerate(images)]
    odd = {"id": "odd", "conversations": records[8]["conversations"][:1]}
    (world / "photos.json").write_text(json.dumps([*bad, odd, 7, *records]))
    assert tool.main(arguments(world, "--processes", "1")) == 0
    output = capsys.readouterr().out
    rows = [" ".join(line.replace("│", " ").split()) for line in output.splitlines()]
    assert "records 16" in rows
    assert "written 9" in rows
    assert "missing 1" in rows
    assert "corrupt 2" in rows
    assert "refused 4 (conversation 1, format 1, path 1, record 1)" in rows
    assert rows[-5].startswith("left out: 2, id bad 2: corrupt: cut.jpg")
    assert rows[-4] == "and 4 more"
    assert rows[-3] == "reasons: explained by python tools/shards.py convert --help"
    assert "duplicates 1 (kept 1)" in rows
    report = json.loads((world / "shards" / "photos.report.json").read_text(encoding="utf-8"))
    assert [(entry["position"], entry["id"], entry["reason"]) for entry in report["left_out"]] == [
        (0, "bad 0", "path"),
        (1, "bad 1", "corrupt"),
        (2, "bad 2", "corrupt"),
        (3, "bad 3", "format"),
        (4, "odd", "conversation"),
        (5, "record 5", "record"),
        (15, "lost", "missing"),
    ]
    assert report["duplicates"] == [{"position": 2, "id": "bad 2", "same_as": 1}]


def test_a_format_that_can_be_converted_is_pointed_out(tool, world, capsys):
    Image.new("RGB", (8, 8)).save(world / "images" / "coffee.jpg", "BMP")
    assert tool.main(arguments(world)) == 0
    assert "--reencode converts BMP, GIF, TIFF" in capsys.readouterr().out


def test_ctrl_c_says_how_to_go_on(tool, world, capsys, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("lightning_llava.data.converters.run.write_task", pressed)
    assert tool.main(arguments(world)) == 130
    assert "stopped; give the same command again" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", ["index", "look"])
def test_ctrl_c_ends_the_other_commands_with_a_line(tool, world, capsys, monkeypatch, command):
    def pressed(*_):
        raise KeyboardInterrupt

    assert tool.main(arguments(world)) == 0
    monkeypatch.setattr("lightning_llava.data.indexer.ShardIndexer.known", pressed)
    assert tool.main([command, str(world / "shards" / "*.tar")]) == 130
    assert capsys.readouterr().err == "stopped; what was finished is kept\n"


def test_reasons_are_explained_and_text_needs_no_picture_options(tool, capsys):
    with pytest.raises(SystemExit, match="0"):
        tool.main(["convert", "--help"])
    shown = capsys.readouterr().out
    assert all(f"\n  {reason} " in shown for reason in get_args(Reason))
    with pytest.raises(SystemExit, match="0"):
        tool.main(["convert", "sharegpt", "--help"])
    shown = capsys.readouterr().out
    assert "--drop-duplicates" in shown
    assert not any(option in shown for option in ("--max-side", "--reencode", "--images"))


def test_text_alone(tool, tmp_path, capsys):
    said = [("system", "Be kind."), ("human", "Hi"), ("gpt", "Hello"), ("human", "?"), ("gpt", "!")]
    talk = {"id": "a", "conversations": [{"from": who, "value": what} for who, what in said]}
    (tmp_path / "talks.json").write_text(json.dumps([talk] * 1200))
    files = [f"--conversations={tmp_path / 'talks.json'}", f"--output={tmp_path / 'shards'}"]
    assert tool.main(["convert", "sharegpt", *files]) == 0
    output = capsys.readouterr().out
    rows = [" ".join(line.replace("│", " ").split()) for line in output.splitlines()]
    assert "records 1,200" in rows
    assert "questions 2,400" in rows
    assert "duplicates 1,199 (kept 1,199)" in rows
    assert "note: system turns dropped 1,200" in rows
    assert next(row for row in rows if row.startswith("bytes")).endswith(" in 1 shard")
    assert not any(row.startswith("reasons") for row in rows)


def test_a_wrong_folder_ends_it_before_anything_is_written(tool, world, capsys):
    records = json.loads((world / "photos.json").read_text(encoding="utf-8"))
    lost = [{**records[0], "id": str(i), "image": f"coco/{i}.jpg"} for i in range(100)]
    (world / "photos.json").write_text(json.dumps([*lost, *records]))
    assert tool.main(arguments(world, "--max-samples", "3")) == 2
    images = world / "images"
    assert capsys.readouterr().err == (
        "error: the first 100 records with pictures all lack them; the first is coco/0.jpg: no such"
        f" file in {images.resolve()}, under no other ending either; --images {images} must be the"
        " folder that their paths start from\n"
    )
    assert not [*(world / "shards").iterdir()]
    # Fewer, and a text among them: a conversion, though a poor one.
    (world / "photos.json").write_text(json.dumps([*lost[:50], records[8], *lost[50:99]]))
    assert tool.main(arguments(world)) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        f"99 of 100 records were left out, most often for `missing` (99): --images {images} must be"
        " the folder that their paths start from"
    )
    # One that is there, and they are converted as ever.
    (world / "photos.json").write_text(json.dumps([*lost[:99], *records[:1], *lost]))
    assert tool.main(arguments(world, "--prefix", "p")) == 0


def test_wrong_names_of_pictures_are_told(tool, world, capsys):
    asked = [{"question_id": i, "image_id": i, "question": "What?"} for i in range(120)]
    given = [{"question_id": i, "image_id": i, "multiple_choice_answer": "a"} for i in range(120)]
    for name, content in (("questions", asked), ("annotations", given)):
        (world / f"{name}.json").write_text(json.dumps({name: content}))
    files = [f"--{name}={world / name}.json" for name in ("questions", "annotations")]
    folders = [f"--images={world / 'images'}", f"--output={world / 'shards'}"]
    assert tool.main(["convert", "vqav2", *files, *folders]) == 2
    error = capsys.readouterr().err
    assert "the first is COCO_train2014_000000000000.jpg: no such file in " in error
    assert error.endswith("start from, and --names train2014 the form of their names\n")


def test_every_kind_is_offered(tool, capsys):
    for name, kind in KINDS.items():
        with pytest.raises(SystemExit, match="0"):
            tool.main(["convert", name, "--help"])
        shown = capsys.readouterr().out
        flags = [f"--{argument.replace('_', '-')} " for argument in (*kind.files, *kind.optional)]
        assert all(flag in shown for flag in flags), shown
        assert ("--images FOLDER" in shown) == bool(kind.images)
    with pytest.raises(SystemExit, match="2"):
        tool.main(["convert", "nothing"])
    assert "llava" in capsys.readouterr().err


def test_wrong_input_is_one_sentence(tool, world, capsys):
    (world / "photos.json").unlink()
    assert tool.main(arguments(world)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read ")
    assert error.count("\n") == 1


def explained(tool, capsys, *command):
    """What `--help` says of each option, and after them all."""
    with pytest.raises(SystemExit, match="0"):
        tool.main([*command, "--help"])
    options, _, after = capsys.readouterr().out.split("options:\n")[1].partition("\n\n")
    texts = [" ".join(text.split()) for text in options.split("\n  --")[1:]]
    return {text.split()[0]: text for text in texts}, after


@pytest.mark.parametrize(
    ("command", "count"),
    [
        *((("convert", name), 9 if KINDS[name].text_only else 11) for name in KINDS),
        (("index",), 9),
        (("look",), 9),
    ],
)
def test_help_explains_every_option_and_names_its_default(tool, capsys, command, count):
    options, after = explained(tool, capsys, *command)
    assert len(options) >= count - 1
    for option in options.values():
        assert "(required)" in option or re.search(r"\(default: [^)]+\)$", option), option
    assert f"python tools/shards.py {' '.join(command)}" in after


@pytest.mark.parametrize("name", KINDS)
def test_help_explains_every_value_and_its_example_can_be_given(tool, capsys, name):
    options, after = explained(tool, capsys, "convert", name)
    for option, choice in KINDS[name].choices.items():
        for value, does in choice.values.items():
            assert f"{value}: {does}" in options[option.replace("_", "-")]
    parser = ArgumentParser()
    add_convert_command(parser.add_subparsers())
    python, script, *given = shlex.split(after.removeprefix("example:\n").replace("\\\n", ""))
    assert (python, script) == ("python", "tools/shards.py")
    asked = parser.parse_args(given)
    paths = {option: Path(path) for option, path in KINDS[name].example.items()}
    assert {option: getattr(asked, option) for option in paths} == paths
    assert (asked.output, asked.prefix) == (Path("shards"), name)


def test_positions_of_what_is_left_out_are_the_keys_that_shards_lack(tool, tmp_path):
    """A conversation holds many questions: the questions' own numbers would be other keys."""
    images = write_photographs(tmp_path / "images")
    images[0].rename(images[0].with_name("000000000007.jpg"))
    images[1].rename(images[1].with_name("000000000009.jpg"))
    asked = [(1, 7), (2, 7), (3, 8), (4, 9), (5, 9), (6, 9)]  # there is no picture 8
    questions = [
        {"question_id": name, "image_id": image, "question": f"What is {name}?"}
        for name, image in asked
    ]
    annotations = [
        {"question_id": name, "image_id": image, "multiple_choice_answer": "" if name == 5 else "a"}
        for name, image in asked
    ]
    for name, content in (("questions", questions), ("annotations", annotations)):
        (tmp_path / f"{name}.json").write_text(json.dumps({name: content}))
    files = [f"--{name}={tmp_path / name}.json" for name in ("questions", "annotations")]
    folders = [f"--images={tmp_path / 'images'}", f"--output={tmp_path / 'shards'}"]
    assert tool.main(["convert", "vqav2", *files, *folders, "--names=bare", "--prefix=v"]) == 0
    report = json.loads((tmp_path / "shards" / "v.report.json").read_text())
    left_out = {each["position"]: (each["id"], each["reason"]) for each in report["left_out"]}
    assert left_out == {0: ("5", "conversation"), 2: ("8", "missing")}
    with tarfile.open(tmp_path / "shards" / "v-000000.tar") as tar:
        keys = {int(name.split(".")[0]) for name in tar.getnames()}
    assert report["records"] == 4
    assert keys == {1, 3} == set(range(4)) - set(left_out)


def test_look_draws_and_counts(tool, world, capsys):
    assert tool.main(arguments(world)) == 0
    capsys.readouterr()
    shards, sheet = str(world / "shards" / "photos-*.tar"), world / "sheet.png"
    look = ["look", shards, "--output", str(sheet), "--number", "4", "--columns", "2"]
    assert tool.main([*look, "--processes", "1"]) == 0
    printed = capsys.readouterr().out
    rows = [line.replace("│", " ").split() for line in printed.splitlines()]
    assert ["photos", "ru", "6", "66.7%"] in rows
    assert ["photos", "en", "3", "33.3%"] in rows
    assert ["text-only", "1", "11.1%"] in rows
    assert f"4 samples drawn: {sheet}" in printed
    with Image.open(sheet) as drawn:
        assert (drawn.format, drawn.width) == ("PNG", 2 * (WIDTH + MARGIN) + MARGIN)
    assert tool.main(["look", str(world / "none-*.tar")]) == 2
    assert "none-*.tar" in capsys.readouterr().err
