import importlib.util
import json
import tarfile
from pathlib import Path

import pytest

from lightning_llava.data.schema import from_json
from photographs import write_photographs

TOOL = Path(__file__).parents[2] / "tools" / "shards.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("shards_tool", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
        {"record": 9, "id": "lost", "reason": "missing", "detail": "lost.jpg: no such file"}
    ]
    assert report["shards"] == {shard.name: shard.stat().st_size for shard in shards}
    rows = [line.replace("│", " ").split() for line in capsys.readouterr().out.splitlines()]
    assert ["records", "10"] in rows
    assert ["written", "9"] in rows
    assert ["missing", "1"] in rows
    assert ["text-only", "1"] in rows
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
    assert (
        "already holds 1 shards named photos-*.tar; remove them or choose another --prefix" in error
    )


def test_nothing_usable(tool, world, capsys):
    (world / "photos.json").write_text("[{}]")
    assert tool.main(arguments(world)) == 1
    assert "refused 1 (record 1)" in " ".join(capsys.readouterr().out.replace("│", " ").split())


def test_wrong_input_is_one_sentence(tool, world, capsys):
    (world / "photos.json").unlink()
    assert tool.main(arguments(world)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: cannot read ")
    assert error.count("\n") == 1


def test_help_names_every_default(tool, capsys):
    with pytest.raises(SystemExit, match="0"):
        tool.main(["convert", "llava", "--help"])
    options = capsys.readouterr().out.split("options:")[1].split("\n  --")
    assert len(options) == 8
    for option in options[1:]:
        assert "(required)" in option or "default: " in " ".join(option.split()), option
