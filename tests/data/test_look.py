import io
import re
from argparse import ArgumentParser

import numpy as np
import pytest
from handmade import picture, record, says, write_tar
from PIL import Image
from sentencepiece import SentencePieceProcessor

from lightning_llava.data.contact_sheet import MARGIN, PICTURE_HEIGHT, WIDTH, Tile, draw_sheet
from lightning_llava.data.look import add_look_command, found_samples
from lightning_llava.data.schema import Box, Sample, Turn
from lightning_llava.data.statistics import answer_type
from lightning_llava.errors import SettingError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def call(*arguments):
    parser = ArgumentParser(prog="shards.py")
    add_look_command(parser.add_subparsers())
    options = parser.parse_args(["look", *map(str, arguments), "--processes", "1"])
    return options.run(options)


TALK = says("Сколько\nкотов?", "2", "Правда?", "Да.")
MEMBERS = [
    ("0.json", record("a", says("<image>\nWhat is it on?", "A red carpet"), 1, source="vqa")),
    ("0.png", picture(0, (64, 48))),
    ("1.json", record("b", says("<image><image>Same?", "No"), 2, source="vqa")),
    ("1.0.jpg", picture(1, (64, 48), "JPEG")),
    ("1.1.jpg", picture(2, (30, 40), "JPEG")),
    ("2.json", record("c", TALK, source="text", language="ru")),
]


@pytest.fixture
def shard(folder):
    return write_tar(folder / "a.tar", *MEMBERS)


def rows(output):
    """Every row of every table, without its frame."""
    found = [[cell.strip() for cell in line[1:-1].split("│")] for line in output.splitlines()]
    return [row for row in found if len(row) > 1]


def test_statistics_of_a_shard_counted_by_hand(shard, capsys):
    assert call(shard) == 0
    found = rows(capsys.readouterr().out)
    expected = [
        ["vqa", "en", "2", "66.7%"],
        ["text", "ru", "1", "33.3%"],
        ["text-only", "1", "33.3%"],
        ["1", "1", "33.3%"],
        ["2", "1", "33.3%"],
        ["questions a sample", "1", "1", "1.3", "2", "2"],
        ["words of a question", "1", "2", "2.0", "4", "4"],  # 4, 1, 2, 1
        ["words of an answer", "1", "1", "1.5", "3", "3"],  # 3, 1, 1, 1
        ["width of an image", "30", "64", "52.7", "64", "64"],
        ["height of an image", "40", "48", "45.3", "48", "48"],
        ["yes/no", "2", "50.0%"],
        ["number", "1", "25.0%"],
        ["phrase", "1", "25.0%"],
        ["64 x 48", "2", "66.7%"],
        ["30 x 40", "1", "33.3%"],
    ]
    for row in expected:
        assert row in found, row
    assert sum("tokens" in row[0] for row in found) == 0


def test_tokens_with_a_tokenizer(shard, capsys, tokenizer_folder, encoder):
    template = ("--tokenizer", tokenizer_folder, "--template", "mistral_instruct")
    assert call(shard, *template, "--image-tokens", 16) == 0
    found = {row[0]: row[1:] for row in rows(capsys.readouterr().out)}
    pieces = SentencePieceProcessor(model_file=str(tokenizer_folder / "tokenizer.model"))
    for name, texts in (
        ("tokens of a question", ["What is it on?", "Same?", "Сколько\nкотов?", "Правда?"]),
        ("tokens of an answer", ["A red carpet", "No", "2", "Да."]),
    ):
        counts = [len(pieces.encode(text)) for text in texts]
        assert found[name][0] == str(min(counts))
        assert found[name][-1] == str(max(counts))
        assert float(found[name][2]) == round(sum(counts) / 4, 1)
    lengths = [
        encoder.encode(turns, images).length
        for turns, images in (
            ([Turn("user", "<image>\nWhat is it on?"), Turn("assistant", "A red carpet")], 1),
            ([Turn("user", "<image><image>Same?"), Turn("assistant", "No")], 2),
            ([Turn(turn["role"], turn["text"]) for turn in TALK], 0),
        )
    ]
    least, median, mean, _, most = found["tokens of a sample"]
    assert [int(least), int(median), int(most)] == sorted(lengths)
    assert float(mean) == round(sum(lengths) / 3, 1)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *[(text, "yes/no") for text in ("Yes", "no.", "Да", "нет", "YES!")],
        *[(text, "number") for text in ("3", "-1.5", "12,000", "50 %", "7:30", "1/2", "4.")],
        *[(text, "one word") for text in ("Red", "кот.", "U.S.A", "B12")],
        *[(text, "phrase") for text in ("a red cup", "yes it is", "Москва, Россия", "2 cats")],
        *[(text, "sentence") for text in ("It is a cup.", "Это кот!", "a " * 13)],
        *[(text, "box") for text in ("[0.1, 0.2, 0.3, 0.45]", "(10,20,30,40)", "[0 0 1 .5].")],
        ("[0.1, 0.2, 0.3]", "phrase"),
        (" ", "empty"),
    ],
)
def test_types_of_answers(answer, kind):
    assert answer_type(answer) == kind


def test_the_sheet_shows_every_picture(shard, folder):
    assert call(shard, "--columns", 2) == 0
    sheet = np.asarray(Image.open(folder / "sheet.png"))
    assert sheet.shape[1] == 2 * (WIDTH + MARGIN) + MARGIN
    # 64 x 48 is not enlarged, and stands in the middle of its tile's upper part.
    left, top = MARGIN + (WIDTH - 64) // 2, MARGIN + (PICTURE_HEIGHT - 48) // 2
    expected = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(sheet[top : top + 48, left : left + 64], expected)


def test_the_same_seed_draws_the_same_sheet(folder):
    members = []
    for number in range(20):
        name = str(number)
        members += [(f"{name}.json", record(name, says("<image>\nWhat?", name), 1))]
        members += [(f"{name}.png", picture(number, (32, 32)))]
    shard = write_tar(folder / "b.tar", *members)
    sheets = []
    for seed in (1, 1, 2):
        output = folder / "x.png"
        assert call(shard, "--number", 4, "--seed", seed, "--output", output) == 0
        sheets.append(output.read_bytes())
    assert sheets[0] == sheets[1] != sheets[2]


def tile(text="Что это?", answer="Кот", images=(), boxes=()):
    turns = [Turn("user", text), Turn("assistant", answer)]
    return Tile("a.tar", "7", Sample("a", turns, list(images), "vqa", "ru", list(boxes)))


def test_cyrillic_is_legible():
    sheets = {draw_sheet([tile(f"{letter}то это?")], 1).tobytes() for letter in "ЧКЁЩЖ"}
    assert len(sheets) == 5


def test_text_only_and_unreadable_samples_have_tiles():
    text, broken, lost = (
        draw_sheet([one], 1)
        for one in (
            tile(),
            tile(images=[b"<html>"]),
            Tile("a.tar", "7", None, "ends at byte 9"),
        )
    )
    sizes = {sheet.width for sheet in (text, broken, lost)}
    assert sizes == {WIDTH + 2 * MARGIN}
    pictures = [np.asarray(sheet)[: PICTURE_HEIGHT + MARGIN] for sheet in (text, broken, lost)]
    for pixels in pictures:
        assert (pixels < 200).any()
    red = [((pixels[..., 0] > 150) & (pixels[..., 1] < 60)).any() for pixels in pictures]
    assert red == [False, True, True]


def test_regions_of_the_first_image_are_outlined():
    stream = io.BytesIO()
    Image.new("RGB", (101, 101), "white").save(stream, "PNG")
    boxes = [Box((0.1, 0.2, 0.5, 0.6), "cat"), Box((0.0, 0.0, 1.0, 1.0), "dog", image=1)]
    sheet = np.asarray(
        draw_sheet([tile("<image>Что?", images=[stream.getvalue()], boxes=boxes)], 1)
    )
    left, top = MARGIN + (WIDTH - 101) // 2, MARGIN + (PICTURE_HEIGHT - 101) // 2
    shown = sheet[top : top + 101, left : left + 101]
    rows_, columns = np.nonzero((shown != 255).any(axis=2))
    assert (rows_.min(), rows_.max(), columns.min(), columns.max()) == (20, 60, 10, 50)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--number", "0"], "--number is 0, expected 1 to 500"),
        (["--number", "501"], "--number is 501"),
        (["--columns", "0"], "--columns is 0, expected 1 or more"),
        (["--seed", "-1"], "--seed is -1, expected 0 or more"),
        (["--output", "nowhere/x.png"], "--output: the folder nowhere does not exist"),
        (["--output", "."], "--output .: Is a directory"),
        (["--tokenizer", "x"], "--tokenizer needs --template"),
    ],
)
def test_wrong_inputs(shard, arguments, message):
    with pytest.raises(SettingError, match=re.escape(message)):
        call(shard, *arguments)


def test_nothing_matches():
    with pytest.raises(SettingError, match=r"nothing matches 'none-\*.tar'"):
        call("none-*.tar")


def test_what_is_left_out_is_counted(folder, capsys):
    shard = write_tar(folder / "c.tar", *MEMBERS, ("3.json", b"{"), ("4.png", b""))
    assert call(shard) == 0
    assert "left out: 2 (tools/shards.py index names them)" in capsys.readouterr().out
    empty = write_tar(folder / "d.tar", ("3.json", b"{"))
    assert call(empty) == 1
    output = capsys.readouterr().out
    assert "no sample in 1 shard\n" in output
    assert "left out: 1" in output


def test_a_shard_that_vanishes_after_it_was_indexed(shard, monkeypatch):
    monkeypatch.setattr("lightning_llava.data.look.found_samples", vanish(shard))
    with pytest.raises(SettingError, match=r"shard .*a\.tar: .*No such file"):
        call(shard)


def vanish(shard):
    def found(indexed):
        samples = list(found_samples(indexed))
        shard.unlink()
        return iter(samples)

    return found
