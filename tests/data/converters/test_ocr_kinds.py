import pytest
from reader_results import divide, reasons, save, spoken

from lightning_llava.data.converters.ocr import (
    WHAT_IS_WRITTEN,
    read_handwriting,
    read_ocrvqa,
    read_textcaps,
    read_textvqa,
)
from lightning_llava.errors import SettingError

SHORT = "\nAnswer the question using a single word or phrase."
CAPTION = "<image>\nProvide a one-sentence caption for the provided image."


def book(split, questions, answers):
    return {
        "questions": questions,
        "answers": answers,
        "split": split,
        "imageURL": "http://ecx.images-amazon.com/images/I/517h.jpg",
        "title": "Mom's Family Wall Calendar 2016",
        "authorName": "Sandra Boynton",
        "genre": "Calendars",
    }


def test_ocrvqa_reads_the_books_of_a_split(tmp_path):
    path = save(
        tmp_path / "dataset.json",
        {
            "761183272": book(
                1, ["Who wrote this book?", "Is this a calendar?"], ["Sandra Boynton", "yes"]
            ),
            "0545": book(3, ["What is the title?"], ["Tested"]),
            "1445": book(1, ["What is the title?", "Who?"], ["", "nobody"]),
            "bad": book(1, ["What?", "Who?"], ["One"]),
            "unsplit": {"questions": [], "answers": [], "imageURL": ""},
            "none": "no object",
        },
    )
    drafts, left_out = divide(read_ocrvqa(path))
    assert [(draft.id, draft.images) for draft in drafts] == [
        ("761183272", ["761183272.jpg"]),
        ("1445", ["1445.jpg"]),
    ]
    assert spoken(drafts[0]) == [
        f"<image>\nWho wrote this book?{SHORT}",
        "Sandra Boynton",
        "Is this a calendar?",
        "Yes",
    ]
    assert spoken(drafts[1]) == [f"<image>\nWho?{SHORT}", "Nobody"]
    assert reasons(left_out) == [
        ("1445, question 0", "conversation"),
        ("bad", "record"),
        ("unsplit", "record"),
        ("none", "record"),
    ]
    (tested,), _ = divide(read_ocrvqa(path, split="test", prompt="ru"))
    assert spoken(tested) == ["<image>\nWhat is the title?\nОтветь одним словом.", "Tested"]
    everything, _ = divide(read_ocrvqa(path, split="all"))
    assert [draft.id for draft in everything] == ["761183272", "0545", "1445"]


@pytest.mark.parametrize("content", [[{"imageURL": ""}], {"data": [{"image_id": 1}]}])
def test_ocrvqa_refuses_other_files(tmp_path, content):
    path = save(tmp_path / "other.json", content)
    with pytest.raises(SettingError, match=r"other\.json holds .*; expected OCR-VQA's dataset"):
        list(read_ocrvqa(path))


@pytest.fixture
def ocr(tmp_path):
    entries = [
        {"image_id": "0054c91", "ocr_tokens": ["MIRROR", "a,b"], "ocr_info": [{"word": "MIRROR"}]},
        {"image_id": "5566811", "ocr_tokens": [], "ocr_info": []},
    ]
    return save(tmp_path / "ocr.json", {"dataset_name": "textvqa", "data": entries})


def question(question_id, image_id, text, answers):
    names = {"question_id": question_id, "image_id": image_id, "set_name": "train"}
    tokens = {"question_tokens": text.split(), "image_classes": ["Camera"], "image_width": 1024}
    return names | tokens | {"question": text} | ({"answers": answers} if answers else {})


def test_textvqa_merges_and_shows_the_ocr_words_once(tmp_path, ocr):
    data = [
        question(1, "0054c91", "what is it?", ["mirror"] * 4 + ["a mirror"] * 5 + ["glass"]),
        question(2, "5566811", "who?", ["", "dakota", "", ""]),
        question(3, "0054c91", "which letters?", ["a,b"] * 10),
        question(4, "0054c91", "untold?", None),
        question(5, "0054c91", "empty?", ["", " "]),
    ]
    head = {"dataset_type": "train", "dataset_version": "0.5.1", "data": data}
    path = save(tmp_path / "TextVQA_0.5.1_train.json", head)
    drafts, left_out = divide(read_textvqa(path, ocr))
    assert [(draft.images, draft.ids) for draft in drafts] == [
        (["0054c91.jpg"], ["1", "3"]),
        (["5566811.jpg"], ["2"]),
    ]
    assert spoken(drafts[0]) == [
        f"<image>\nwhat is it?\nReference OCR token: MIRROR, a,b{SHORT}",
        "A mirror",
        "which letters?",
        "A,b",
    ]
    assert spoken(drafts[1]) == [f"<image>\nwho?\nReference OCR token: {SHORT}", "Dakota"]
    assert reasons(left_out) == [("4", "record"), ("5", "conversation")]
    without, _ = divide(read_textvqa(path))
    assert spoken(without[0])[0] == f"<image>\nwhat is it?{SHORT}"
    with pytest.raises(SettingError, match=r"ocr\.json holds records such as .*TextVQA_0\.5\.1"):
        list(read_textvqa(ocr))
    with pytest.raises(SettingError, match=r"no `ocr_tokens`; expected TextVQA's TextVQA_Rosetta"):
        list(read_textvqa(path, path))


def test_textcaps_takes_one_usable_caption_an_image(tmp_path, ocr):
    data = [
        {"caption_id": 0, "image_id": "0054c91", "caption_str": " ", "reference_strs": ["x"]},
        {"caption_id": 1, "image_id": "0054c91", "caption_str": "a small white box."},
        {"caption_id": 2, "image_id": "5566811", "caption_str": "A phone."},
        {"caption_id": 3, "image_id": "0054c91", "caption_str": "A box with a mirror."},
    ]
    path = save(tmp_path / "TextCaps_0.1_train.json", {"dataset_name": "textcaps", "data": data})
    drafts, left_out = divide(read_textcaps(path, ocr))
    assert [(draft.id, draft.images, draft.ids) for draft in drafts] == [
        ("0054c91", ["0054c91.jpg"], ["1"]),
        ("5566811", ["5566811.jpg"], ["2"]),
    ]
    assert spoken(drafts[0]) == [
        f"{CAPTION}\nReference OCR token: MIRROR, a,b",
        "a small white box.",
    ]
    assert reasons(left_out) == [("0", "conversation")]
    every, _ = divide(read_textcaps(path, per_image="all"))
    assert [draft.id for draft in every] == ["0054c91-1", "5566811-2", "0054c91-3"]
    assert spoken(every[2]) == [CAPTION, "A box with a mirror."]


def test_handwriting_asks_in_russian(tmp_path):
    path = tmp_path / "train.tsv"
    lines = ["aa1.png\tМедуза", "aa2.png\t Ёж\tи уж \r", "aa3.png", "aa4.png\t ", "", "\tтекст"]
    lines += [f"b{n}.png\tслово" for n in range(40)]
    path.write_text("\n".join(lines), encoding="utf-8-sig")
    drafts, left_out = divide(read_handwriting(path))
    assert [(draft.id, draft.images, draft.language) for draft in drafts[:2]] == [
        ("aa1.png", ["aa1.png"], "ru"),
        ("aa2.png", ["aa2.png"], "ru"),
    ]
    assert [spoken(draft)[1] for draft in drafts[:2]] == ["Медуза", "Ёж\tи уж"]
    assert {spoken(draft)[0] for draft in drafts} == {f"<image>\n{ask}" for ask in WHAT_IS_WRITTEN}
    assert reasons(left_out) == [
        ("aa3.png", "record"),
        ("aa4.png", "conversation"),
        ("line 6", "record"),
    ]
    moved = tmp_path / "moved.tsv"
    moved.write_text("b7.png\tслово\naa1.png\tМедуза\n", encoding="utf-8")
    by_id = {draft.id: draft for draft in drafts}
    assert [by_id[draft.id] for draft in divide(read_handwriting(moved))[0]] == divide(
        read_handwriting(moved)
    )[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path;text\n", r"holds 'path;text' and no tab; expected the Cyrillic"),
        (b'{"info": ' + b"0" * 200 + b"}", r"holds '\{\"info\": 0+\.\.\.0+\}' and no tab"),
        (b"", r"holds no line and no tab"),
        ("a.png\tслово".encode("cp1251"), r"cannot read .*utf-8"),
    ],
)
def test_handwriting_refuses_other_files(tmp_path, content, message):
    path = tmp_path / "train.tsv"
    path.write_bytes(content)
    with pytest.raises(SettingError, match=message):
        list(read_handwriting(path))
