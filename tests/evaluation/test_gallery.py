import base64
import io
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from ledgers import ledger_row
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.gallery import build_gallery

ATTACK = "<script>alert('Нет')</script>"


class Page(HTMLParser):
    """Tags and texts, as a browser would find them."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.texts, self.images, self.links = [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        if tag == "img":
            self.images.append(values)
        self.links += [value for name, value in attrs if name in ("href", "src", "srcset")]

    def handle_data(self, data):
        if data.strip():
            self.texts.append(data.strip())


@pytest.fixture
def rows(tmp_path):
    pixels = np.full((300, 900, 3), (200, 30, 30), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "кот.png")
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    row = ledger_row(
        benchmark="pope_ru",
        image=str(tmp_path / "кот.png"),
        language="ru",
        question="Есть ли кот & пёс?",
        raw_answer=ATTACK,
        parsed="no",
        correct=False,
        types={"answer_type": "yes/no"},
        source="Is there a cat & a dog?",
        english="no",
        route="map",
    )
    return [
        row,
        replace(row, question_id="2", raw_answer="  "),
        replace(row, question_id="3", correct=True, raw_answer="верно", english="yes"),
        replace(row, question_id="4", image=str(tmp_path / "missing.jpg")),
        replace(row, question_id="5", image=str(tmp_path / "broken.jpg")),
    ]


def test_page_shows_every_step_and_stays_text(rows):
    gallery = build_gallery(rows, title="Ответы & <ошибки>")
    page = Page(gallery.html)
    assert "script" not in page.tags
    assert page.texts.count(ATTACK) == 3
    for text in (
        "Ответы & <ошибки>",
        "Есть ли кот & пёс?",
        "Is there a cat & a dog?",
        "by map",
        "(empty)",
        "no, score 0.0",
        "random, question 1, answer_type: yes/no",
    ):
        assert text in page.texts
    assert "верно" not in gallery.html, "a right answer is not shown"
    assert (gallery.wrong, gallery.shown) == (4, 4)


def test_pictures_are_inside_and_small(rows):
    gallery = build_gallery(rows, side=90)
    page = Page(gallery.html)
    assert len(page.images) == 1, "two questions about one picture show it once"
    head, data = page.images[0]["src"].split(",", 1)
    assert head == "data:image/jpeg;base64"
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (picture.format, picture.size) == ("JPEG", (90, 30))
    assert np.abs(np.asarray(picture)[15, 45] - np.array([200, 30, 30])).max() < 8
    assert all(link.startswith("data:") for link in page.links)


def test_pictures_that_cannot_be_read_are_said_and_counted(rows, tmp_path):
    gallery = build_gallery(rows)
    assert (gallery.pictures, gallery.unreadable) == (3, 2)
    texts = Page(gallery.html).texts
    assert "not found: No such file or directory" in texts
    assert any("the image cannot be decoded" in text for text in texts)
    assert any("2 of 3 pictures could not be read." in text for text in texts)
    moved = [replace(row, image="/elsewhere/кот.png") for row in rows]
    assert build_gallery(moved, folder=tmp_path).unreadable == 0


def test_the_first_or_those_of_a_seed(rows):
    many = [
        replace(rows[0], question_id=str(n), image=None, raw_answer=f"answer-{n}.")
        for n in range(40)
    ]

    def shown(**choice):
        html = build_gallery(many, most=5, **choice).html
        return [n for n in range(40) if f"answer-{n}." in html]

    assert shown() == [0, 1, 2, 3, 4]
    assert shown(seed=1) == shown(seed=1) != shown(seed=2)
    assert len(shown(seed=1)) == 5
    other = [replace(row, benchmark="other") for row in many]
    assert build_gallery([*many, *other], most=5).shown == 10, "so many per benchmark"


def test_expected_answers_of_ten_people(rows):
    vqa = replace(
        rows[0],
        kind="vqav2",
        label="red",
        answers=["red"] * 8 + ["dark red", "maroon"],
        english="a",
    )
    texts = Page(build_gallery([vqa, replace(vqa, question_id="2", english="red")]).html).texts
    assert texts.count("red ×8, dark red, maroon") == 1
    with pytest.raises(SettingError, match="--most is 0, expected 1 or more"):
        build_gallery(rows, most=0)
