"""Every kind from small files of its published form."""

import json
from pathlib import Path

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question, load_benchmark, subset, with_follow_ups
from lightning_llava.specs import BenchmarkSpec
from lightning_llava.text.template import SHORT_ANSWER

HUMANS = ["two"] * 6 + ["2"] * 3 + ["a few"]


@pytest.fixture
def write(tmp_path):
    """Write files, and images that are only there."""
    (tmp_path / "images").mkdir()

    def write(name, content):
        path = tmp_path / name
        if not isinstance(content, str):
            content = json.dumps(content, ensure_ascii=False)
        path.write_text(content, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def load(tmp_path):
    def load(kind, images=(), name="mine", **settings):
        for image in images:
            (tmp_path / "images" / image).touch()
        return load_benchmark(
            name, BenchmarkSpec(kind=kind, images=str(tmp_path / "images"), **settings)
        )

    return load


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def annotation(question_id, image_id, answers, answer_type="number"):
    return {
        "question_id": question_id,
        "image_id": image_id,
        "question_type": "how many",
        "answer_type": answer_type,
        "multiple_choice_answer": answers[0],
        "answers": [
            {"answer": answer, "answer_confidence": "yes", "answer_id": number}
            for number, answer in enumerate(answers, start=1)
        ],
    }


def vqa_question(question_id, image_id):
    return {"question_id": question_id, "image_id": image_id, "question": "How many dogs?"}


def test_vqav2(write, load):
    files = {"val": write("questions.json", {"questions": [vqa_question(5, 9)]})}
    right = write("annotations.json", {"annotations": [annotation(5, 9, HUMANS)]})
    (found,) = load(
        "vqav2", ["COCO_val2014_000000000009.jpg"], files=files, annotations={"val": right}
    )
    assert (found.question_id, found.text, found.label) == ("5", "How many dogs?", "two")
    assert found.answers == tuple(HUMANS)
    assert dict(found.types) == {"answer_type": "number", "question_type": "how many"}
    assert found.asked(SHORT_ANSWER) == "How many dogs?" + SHORT_ANSWER["en"]


def test_vqav2_testdev_has_the_images_of_test_and_no_answers(write, load):
    content = {"data_subtype": "test-dev2015", "questions": [vqa_question(5, 9)]}
    files = {"test-dev": write("questions.json", content)}
    (found,) = load("vqav2", ["COCO_test2015_000000000009.jpg"], files=files)
    assert (found.label, found.answers) == (None, ())


def test_vqav2_files_of_different_splits_are_refused(write, load):
    files = {"val": write("questions.json", {"questions": [vqa_question(5, 9)]})}
    other = write("other.json", {"annotations": [annotation(6, 9, HUMANS)]})
    with pytest.raises(SettingError, match=r"annotations\.val: 2 questions are in only one of"):
        load("vqav2", files=files, annotations={"val": other})
    moved = write("moved.json", {"annotations": [annotation(5, 8, HUMANS)]})
    with pytest.raises(SettingError, match="question 5 is about image 9, but annotated for 8"):
        load("vqav2", files=files, annotations={"val": moved})
    with pytest.raises(SettingError, match=r"mine\.annotations: 'test' is no split; .* has val"):
        load("vqav2", files=files, annotations={"test": moved})
    with pytest.raises(SettingError, match=r"annotations is given, but kind is gqa; it is for vq"):
        load("gqa", files=files, annotations={"val": moved})


def gqa(**more):
    row = {
        "imageId": "n1",
        "question": "Что слева?",
        "answer": "cat",
        "fullAnswer": "It is a cat.",
        "isBalanced": True,
    }
    return {**row, **more}


def test_gqa_asks_balanced_questions_and_xgqa_asks_them_in_russian(write, load):
    content = {"07": gqa(), "8": gqa(isBalanced=False, imageId="absent")}
    files = {"testdev": write("testdev.json", content)}
    (found,) = load("gqa", ["n1.jpg"], files=files, language="ru")
    assert (found.question_id, found.label, found.language) == ("07", "cat", "ru")
    assert found.asked(SHORT_ANSWER) == "Что слева?\nОтветь одним словом."
    files = {"testdev": write("all.json", {"8": gqa(isBalanced=False)})}
    with pytest.raises(SettingError, match="holds no questions that count"):
        load("gqa", files=files)


def test_gqa_questions_have_the_types_of_its_own_script(write, load):
    types = {"structural": "query", "semantic": "rel", "detailed": "relS"}
    content = {"1": gqa(types=types), "2": gqa(types=types | {"structural": "verify"}), "3": gqa()}
    files = {"testdev": write("testdev.json", content)}
    found = [dict(question.types) for question in load("gqa", ["n1.jpg"], files=files)]
    assert found == [
        {"structural": "query", "semantic": "rel", "answer_type": "open"},
        {"structural": "verify", "semantic": "rel", "answer_type": "binary"},
        {},
    ]
    files = {"testdev": write("wrong.json", {"1": gqa(types="query")})}
    with pytest.raises(SettingError, match="question 1: types are 'query', expected an object"):
        load("gqa", files=files)


@pytest.mark.usefixtures("write")
def test_gqa_ru_from_parquet(tmp_path, load):
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    folder = tmp_path / "testdev_balanced_instructions"
    folder.mkdir()
    row = {"id": "07", "imageId": "n1", "question": "Что слева?", "answer": "кот "}
    parquet.write_table(arrow.Table.from_pylist([row]), folder / "testdev-00000.parquet")
    (found,) = load("gqa_ru", ["n1.jpg"], files={"testdev": str(folder)}, language="ru")
    assert (found.question_id, found.label, found.image.name) == ("07", "кот", "n1.jpg")


def test_textvqa_with_and_without_ocr_words(write, load):
    row = {"question_id": 3, "image_id": "ab12", "question": "What brand?", "answers": HUMANS}
    files = {"val": write("val.json", {"data": [row]})}
    (plain,) = load("textvqa", ["ab12.jpg"], files=files)
    assert (plain.text, plain.label, len(plain.answers)) == ("What brand?", "two", 10)
    words = write("ocr.json", {"data": [{"image_id": "ab12", "ocr_tokens": ["NOKIA", "5"]}]})
    (given,) = load("textvqa", ["ab12.jpg"], files=files, ocr_tokens={"val": words})
    assert given.text == "What brand?"
    assert given.asked(SHORT_ANSWER) == (
        "What brand?\nReference OCR token: NOKIA, 5" + SHORT_ANSWER["en"]
    )
    assert given.prompt_key() != plain.prompt_key()
    half = write("half.json", {"data": [row, {**row, "question_id": 4, "answers": []}]})
    with pytest.raises(
        SettingError, match=r"1 of 2 questions of .* have no answer, the first is '"
    ):
        load("textvqa", files={"val": half})


def test_handwriting(write, load):
    files = {"test": write("test.tsv", "a1.png\tПривет, мир\nb2.png\tдом\n")}
    found = load("ocr", ["a1.png", "b2.png"], files=files, language="ru")
    assert [(q.question_id, q.label, q.image.name) for q in found] == [
        ("a1.png", "Привет, мир", "a1.png"),
        ("b2.png", "дом", "b2.png"),
    ]
    assert all(q.asked(SHORT_ANSWER) == q.text for q in found)
    with pytest.raises(SettingError, match=r"mine\.language is 'en'"):
        load("ocr", files=files)


def test_handwriting_whose_ids_are_no_files(write, load):
    rows = [{"question_id": 7, "image": "a1.png", "text": "дом"}]
    files = {"test": write("test.jsonl", "".join(json.dumps(row) + "\n" for row in rows))}
    (found,) = load("ocr", ["a1.png"], files=files, language="ru")
    assert (found.question_id, found.image.name) == ("7", "a1.png")


def test_texts_asked_for_in_words_of_their_own(write, load):
    row = {"question_id": 7, "image": "a1.png", "text": "SUN", "question": "Which word?"}
    (found,) = load("ocr", ["a1.png"], files={"test": write("test.jsonl", lines(row))})
    assert (found.text, found.label, found.language) == ("Which word?", "SUN", "en")


def test_pictures_of_ones_own_may_be_png(write, load):
    record = {"question": "?", "answer": "yes", "isBalanced": True}
    content = {name: {**record, "imageId": name} for name in "ab"}
    found = load("gqa", ["a.jpg", "a.png", "b.png"], files={"val": write("gqa.json", content)})
    assert [question.image.name for question in found] == ["a.jpg", "b.png"]


def mdetr(**more):
    image = {
        "id": 4,
        "file_name": "COCO_train2014_000000000009.jpg",
        "width": 400,
        "height": 200,
        "caption": "left dog",
    }
    box = {"image_id": 4, "bbox": [100, 50, 200, 100]}
    return {"images": [image], "annotations": [{**box, **more}]}


def test_regions_in_both_coordinates(write, load):
    files = {"val": write("refcoco.json", mdetr())}
    image = ["COCO_train2014_000000000009.jpg"]
    (found,) = load("regions", image, files=files, coordinates="image")
    assert found.label == "[0.2500, 0.2500, 0.7500, 0.7500]"
    assert found.text == (
        "Please provide the bounding box coordinate of the region this sentence describes: left "
        "dog."
    )
    assert found.asked(SHORT_ANSWER) == found.text
    # A hundred pixels above and below make it a square of 400.
    (padded,) = load("regions", image, files=files, language="ru")
    assert padded.label == "[0.2500, 0.3750, 0.7500, 0.6250]"
    assert padded.text.startswith("Укажи координаты")
    files = {"val": write("bad.json", mdetr(bbox=[500, 50, 10, 10]))}
    with pytest.raises(
        SettingError, match=r"files\.val: image 9: box .* is empty within 400 x 200"
    ):
        load("regions", files=files)


def test_mt_bench_has_second_turns(write, load):
    rows = [
        {"question_id": 81, "category": "writing", "turns": ["Write a post.", "Shorten it."]},
        {"question_id": 82, "category": "math", "turns": ["2 + 2?"]},
    ]
    first, single = load("mt_bench", files={"all": write("question.jsonl", lines(*rows))})
    assert (first.image, first.label, dict(first.types)) == (None, None, {"category": "writing"})
    second = first.next_question("A post")
    assert (second.split, second.question_id) == ("all_turn_2", "81")
    assert (second.text, second.history) == ("Shorten it.", ("Write a post.", "A post"))
    assert second.next_question("Short") is None
    assert [q.split for q in with_follow_ups([first, single])] == ["all", "all", "all_turn_2"]
    with pytest.raises(SettingError, match=r"line 1: turns are \[\], expected one or two texts"):
        load("mt_bench", files={"all": write("bad.jsonl", lines({**rows[0], "turns": []}))})
    with pytest.raises(SettingError, match="question_id '81' occurs twice"):
        load("mt_bench", files={"all": write("double.jsonl", lines(rows[0], rows[0]))})


def pope(count, word="image"):
    return lines(
        *(
            {"question_id": n, "image": "a.jpg", "text": f"Is {n} in the {word}?", "label": "yes"}
            for n in range(count)
        )
    )


def test_popes_older_version_is_asked_without_its_typing_error(write, load):
    files = {"popular": write("popular.json", pope(2, "imange"))}
    assert [q.text for q in load("pope", ["a.jpg"], files=files)] == [
        "Is 0 in the image?",
        "Is 1 in the image?",
    ]


def test_popes_versions_are_not_mixed(write, load):
    files = {
        "random": write("random.json", pope(3000)),
        "popular": write("popular.json", pope(3000, "imange")),
    }
    with pytest.raises(SettingError, match="the splits are of different versions of POPE"):
        load("pope", ["a.jpg"], files=files)


EMPTY = {"pope": "", "gqa": {}, "textvqa": {"data": []}, "ocr": "\n", "mt_bench": ""}


@pytest.mark.parametrize("kind", EMPTY)
def test_an_empty_file_is_refused(write, load, kind):
    with pytest.raises(SettingError, match="holds no questions"):
        load(kind, files={"all": write("empty.json", EMPTY[kind])}, language="ru")


def test_a_subset_of_open_answers_is_drawn_from_all_of_them():
    questions = [
        Question("gqa", "all", str(n), "?", None, label, "en", "gqa")
        for n, label in enumerate(["yes"] * 90 + [f"rare {n}" for n in range(10)])
    ]
    chosen = subset(questions, 20, seed=0)
    assert len(chosen) == 20
    # One of each label would be 10 rare ones; of 20 out of 100, two are to be expected.
    assert sum(question.label != "yes" for question in chosen) < 7
    assert chosen == subset(questions, 20, seed=0) != subset(questions, 20, seed=1)
    bare = [Question("x", "all", str(n), "?", None, None, "en", "vqav2") for n in range(9)]
    assert len(subset(bare, 4, seed=0)) == 4


@pytest.mark.usefixtures("write")
def test_real_files(shared_data, load):
    asked, right, pope_file, xgqa = shared_data(
        "vqav2/questions_1500.json",
        "vqav2/annotations_1500.json",
        "pope/coco_pope_random.json",
        "xgqa/train_48.ru.json",
    )
    content = json.loads(Path(asked).read_text())["questions"]
    names = {f"COCO_val2014_{row['image_id']:012d}.jpg" for row in content}
    files = {"val": str(asked)}
    found = load("vqav2", names, files=files, annotations={"val": str(right)})
    assert len(found) == 1500
    assert {len(question.answers) for question in found} == {10}
    rows = [json.loads(line) for line in Path(pope_file).read_text().splitlines()]
    questions = load("pope", {row["image"] for row in rows}, files={"random": str(pope_file)})
    assert len(questions) == 3000
    assert len({question.image for question in questions}) == 500
    rows = json.loads(Path(xgqa).read_text())
    images = {f"{row['imageId']}.jpg" for row in rows.values()}
    questions = load("gqa", images, files={"dev": str(xgqa)}, language="ru")
    assert len(questions) == len(rows)
