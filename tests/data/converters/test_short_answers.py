import json

import pyarrow as arrow
import pytest
from pyarrow import parquet
from reader_results import divide, reasons, save, spoken

from lightning_llava.data.converters.vqa import (
    read_aokvqa,
    read_gqa,
    read_gqa_ru,
    read_okvqa,
    read_vqav2,
)
from lightning_llava.errors import SettingError

SHORT = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."


def asked(question_id, image_id, question):
    return {"question_id": question_id, "image_id": image_id, "question": question}


def annotated(question_id, image_id, answer):
    ten = [{"answer": answer, "answer_confidence": "yes", "answer_id": n} for n in range(1, 11)]
    names = {"question_id": question_id, "image_id": image_id, "answer_type": "other"}
    return names | {"multiple_choice_answer": answer, "answers": ten}


@pytest.fixture
def vqa(tmp_path):
    def make(questions, annotations):
        head = {"info": {"version": "2.0"}, "license": {}, "data_subtype": "train2014"}
        return {
            "questions": save(tmp_path / "questions.json", head | {"questions": questions}),
            "annotations": save(tmp_path / "annotations.json", head | {"annotations": annotations}),
        }

    return make


def test_vqav2_merges_the_questions_about_an_image(vqa):
    files = vqa(
        [
            asked(458752000, 458752, "What is this photo taken looking through?"),
            asked(262146000, 262146, " Is it {snowing}? "),
            asked(458752001, 458752, "What position is this man playing?"),
        ],
        [
            annotated(262146000, 262146, "no"),
            annotated(458752001, 458752, "pitcher"),
            annotated(458752000, 458752, "net"),
        ],
    )
    drafts, left_out = divide(read_vqav2(**files))
    assert not left_out
    assert [draft.id for draft in drafts] == ["458752", "262146"]
    assert drafts[0].images == ["COCO_train2014_000000458752.jpg"]
    assert drafts[0].ids == ["458752000", "458752001"]
    assert spoken(drafts[0]) == [
        f"<image>\nWhat is this photo taken looking through?{SHORT}",
        "Net",
        "What position is this man playing?",
        "Pitcher",
    ]
    assert spoken(drafts[1]) == [f"<image>\nIs it {{snowing}}?{SHORT}", "No"]
    (first, _), _ = divide(read_vqav2(**files, prompt="ru", names="bare"))
    assert first.images == ["000000458752.jpg"]
    assert spoken(first)[0].endswith("through?\nОтветь одним словом.")


def test_vqav2_names_every_question_and_annotation_that_is_left_out(vqa):
    files = vqa(
        [
            asked(1, 7, "Good?"),
            asked(2, 7, "Not annotated?"),
            asked(1, 7, "Again?"),
            "no object",
            asked(3, "x", "Whose?"),
            asked(4, 7, "  "),
            asked(5, 7, "See <image>?"),
            asked(6, 7, "\ud83d?"),
            asked(8, 7, "Other image?"),
        ],
        [
            annotated(1, 7, "yes"),
            annotated(1, 7, "no"),
            *(annotated(n, 7, "yes") for n in (3, 4, 5, 6)),
            annotated(8, 9, "yes"),
            annotated(99, 7, "yes"),
        ],
    )
    drafts, left_out = divide(read_vqav2(**files))
    assert [spoken(draft) for draft in drafts] == [[f"<image>\nGood?{SHORT}", "Yes"]]
    assert reasons(left_out) == [
        ("1", "record"),
        ("2", "record"),
        ("1", "record"),
        ("record 3", "record"),
        ("3", "record"),
        ("4", "conversation"),
        ("5", "conversation"),
        ("6", "conversation"),
        ("8", "record"),
        ("3", "record"),
        ("99", "record"),
    ]
    details = [entry.detail for entry in left_out]
    assert details[4] == "`image_id` is 'x', expected a whole number"
    assert details[5:8] == [
        "`question` is empty",
        "`question` holds <image>, which stands for a picture",
        "`question` holds half of a surrogate pair",
    ]
    assert details[8] == "about image 7, but annotated for 9"


def test_vqav2_refuses_other_files(vqa, tmp_path):
    files = vqa([asked(1, 7, "Good?")], [annotated(1, 7, "yes")])
    exchanged = {"questions": files["annotations"], "annotations": files["questions"]}
    with pytest.raises(SettingError, match=r"annotations\.json holds .*v2_OpenEnded.*`questions`"):
        read_vqav2(**exchanged)
    ok_vqa = save(tmp_path / "ok.json", {"annotations": [{"question_id": 1, "answers": []}]})
    with pytest.raises(SettingError, match=r"ok\.json holds records such as an object with"):
        read_vqav2(files["questions"], ok_vqa)


def test_okvqa_takes_the_most_common_of_the_ten(vqa):
    def ten(*pairs):
        return [
            {"answer_id": n, "raw_answer": raw, "answer": stem}
            for n, (raw, stem) in enumerate(pairs, start=1)
        ]

    two = [("", ""), ("", ""), ("b", "b"), ("a", "a")]
    raced = [("racing", "race")] * 2 + [("motocross", "motocross")] * 3 + [("raced", "race")] * 2
    files = vqa(
        [
            asked(51606, 516, "What sport?"),
            asked(51607, 516, "And?"),
            asked(1, 2, "None?"),
            asked(2, 2, "Blank?"),
            asked(3, 2, "Number?"),
        ],
        [
            {"question_id": 51606, "image_id": 516, "answers": ten(*raced)},
            {
                "question_id": 51607,
                "image_id": 516,
                "answers": ten(*two),
            },
            {"question_id": 1, "image_id": 2, "answers": []},
            {"question_id": 2, "image_id": 2, "answers": ten(("", " "), ("", ""))},
            {"question_id": 3, "image_id": 2, "answers": ten(("two", "two"), (2, 2))},
        ],
    )
    (draft,), left_out = divide(read_okvqa(**files))
    assert spoken(draft) == [f"<image>\nWhat sport?{SHORT}", "Race", "And?", "B"]
    assert reasons(left_out) == [("1", "conversation"), ("2", "conversation"), ("3", "record")]
    (draft,), _ = divide(read_okvqa(**files, answers="raw_answer"))
    assert spoken(draft)[1] == "Motocross"


def choice(question_id, image_id, question, choices, correct):
    names = {"split": "train", "image_id": image_id, "question_id": question_id}
    return names | {
        "question": question,
        "choices": choices,
        "correct_choice_idx": correct,
        "direct_answers": ["ride"] * 10,
        "difficult_direct_answer": False,
        "rationales": ["A train would not be on the street."] * 3,
    }


def test_aokvqa_turns_the_choices_once_for_each_of_them(tmp_path):
    bags = ["skateboarder", "train", "delivery", "cab"]
    path = save(
        tmp_path / "aokvqa_v1p0_train.json",
        [
            choice("22Mex", 299207, "What does the man await?", bags, 3),
            choice("2BPzq", 299207, "Where is he?", ["street", "sea"], 0),
            choice("bad", 5, "Which?", ["a", "b"], 2),
            {"question_id": "test", "image_id": 6, "question": "Which?", "choices": ["a", "b"]},
        ],
    )
    drafts, left_out = divide(read_aokvqa(path))
    assert reasons(left_out) == [("bad", "record"), ("test", "record")]
    assert left_out[1].detail == "no `correct_choice_idx`"
    assert [draft.id for draft in drafts] == [f"299207-{n}" for n in range(4)]
    assert {(*draft.images, *draft.ids) for draft in drafts} == {
        ("000000299207.jpg", "22Mex", "2BPzq")
    }
    question = "<image>\nWhat does the man await?"
    assert spoken(drafts[0]) == [
        f"{question}\nA. skateboarder\nB. train\nC. delivery\nD. cab{LETTER}",
        "D",
        "Where is he?\nA. street\nB. sea",
        "A",
    ]
    assert spoken(drafts[3]) == [
        f"{question}\nA. cab\nB. skateboarder\nC. train\nD. delivery{LETTER}",
        "A",
        "Where is he?\nA. sea\nB. street",
        "B",
    ]
    (once,), _ = divide(read_aokvqa(path, rotations="one"))
    assert (once.id, once.turns) == ("299207", drafts[0].turns)


def test_gqa_takes_the_short_answer(tmp_path):
    def question(image, text, answer):
        extra = {"semantic": [{"operation": "select"}], "annotations": {"answer": {}}}
        full = {"fullAnswer": "It is.", "isBalanced": True, "groups": {"global": None}}
        return {"imageId": image, "question": text, "answer": answer} | full | extra

    questions = {
        "02930152": question("2354786", "Is the sky dark?", "yes"),
        "07333408": question("2375429", "What is the wall made of?", "hardwood floor"),
        "07333405": question("2354786", "Is it overcast?", "no"),
        "bad": ["no object"],
        "201": {"imageId": "1", "question": "No answer, as in test?"},
    }
    path = save(tmp_path / "train_balanced_questions.json", questions)
    drafts, left_out = divide(read_gqa(path))
    assert [(draft.id, draft.images, draft.ids) for draft in drafts] == [
        ("2354786", ["2354786.jpg"], ["02930152", "07333405"]),
        ("2375429", ["2375429.jpg"], ["07333408"]),
    ]
    assert spoken(drafts[0]) == [
        f"<image>\nIs the sky dark?{SHORT}",
        "Yes",
        "Is it overcast?",
        "No",
    ]
    assert spoken(drafts[1])[1] == "Hardwood floor"
    assert reasons(left_out) == [("bad", "record"), ("201", "record")]
    for other in ([questions], {"questions": [1]}):
        with pytest.raises(SettingError, match=r"expected GQA's \{train,val,testdev\}"):
            read_gqa(save(path, other))
    vqav2 = {"info": {}, "license": {}, "questions": [{"question_id": 1, "image_id": 2}]}
    with pytest.raises(SettingError) as error:
        read_gqa(save(path, vqav2))
    assert str(error.value) == (
        f"{path} holds an object with info, license, questions; expected GQA's"
        " {train,val,testdev}_{balanced,all}_questions.json, an object of records that have"
        " `imageId`"
    )


@pytest.fixture
def gqa_ru(tmp_path):
    asked = [
        ("1", "n1", "Небо тёмное?", "да", "Да, небо тёмное."),
        ("2", "n2", "Из чего стена?", "дерево", "Из дерева."),
        ("3", "n1", "Сколько окон?", "два", "Два."),
        ("4", "n3", "Где кот?", "слева", "Слева."),
        ("5", "n1", "Пусто?", "", ""),
    ]
    columns = ("id", "imageId", "question", "answer", "fullAnswer")
    rows = [dict(zip(columns, row, strict=True)) | {"isBalanced": True} for row in asked]
    for name, content in {
        "train_balanced_instructions": rows,
        "train_balanced_images": [
            {"id": "n2", "image": {"bytes": b"two", "path": "n2.jpg"}},
            {"id": "n3", "image": {"bytes": None, "path": "n3.jpg"}},
            {"id": "n0", "image": {"bytes": b"none", "path": "n0.jpg"}},
            {"id": "n1", "image": {"bytes": b"one", "path": "n1.jpg"}},
        ],
    }.items():
        (tmp_path / name).mkdir()
        table = arrow.Table.from_pylist(content)
        parquet.write_table(table, tmp_path / name / "train-00000-of-00001.parquet")
    return tmp_path


def test_gqa_ru_joins_questions_and_pictures(gqa_ru):
    results = read_gqa_ru(
        gqa_ru / "train_balanced_instructions",
        gqa_ru / "train_balanced_images" / "train-00000-of-00001.parquet",
    )
    drafts, left_out = divide(results)
    assert [(draft.id, draft.images, draft.ids, draft.language) for draft in drafts] == [
        ("n2", [b"two"], ["2"], "ru"),
        ("n1", [b"one"], ["1", "3"], "ru"),
    ]
    assert spoken(drafts[1]) == [
        "<image>\nНебо тёмное?\nОтветь одним словом.",
        "да",
        "Сколько окон?",
        "два",
    ]
    assert reasons(left_out) == [("5", "conversation"), ("4", "missing")]


def test_gqa_ru_exchanged(gqa_ru):
    names = ("train_balanced_images", "train_balanced_instructions")
    with pytest.raises(SettingError, match="no column answer, imageId, question, but id, image"):
        list(read_gqa_ru(*(gqa_ru / name for name in names)))


def test_real_rows_of_vqav2(shared_data):
    paths = shared_data("vqav2/questions_1500.json", "vqav2/annotations_1500.json")
    drafts, left_out = divide(read_vqav2(*paths, names="val2014"))
    assert not left_out
    assert len(drafts) == 1477
    assert sum(len(draft.turns) for draft in drafts) == 2 * 1500
    by_id = {draft.id: draft for draft in drafts}
    assert spoken(by_id["409216"]) == [
        f"<image>\nWhat color is the woman's dress?{SHORT}",
        "Red",
        "Is this girl a magician?",
        "Yes",
    ]
    assert spoken(drafts[0]) == [
        f"<image>\nWhat insurance company is a sponsor?{SHORT}",
        "State farm",
    ]
    assert drafts[0].images == ["COCO_val2014_000000413918.jpg"]


@pytest.mark.parametrize(
    ("language", "question"),
    [("en", "Which color is the cake?"), ("ru", "Какого цвета торт?")],
)
def test_real_rows_of_xgqa(shared_data, language, question):
    (path,) = shared_data(f"xgqa/train_48.{language}.json")
    drafts, left_out = divide(read_gqa(path))
    assert not left_out
    assert len(drafts) == 48
    rows = json.loads(path.read_text(encoding="utf-8"))
    assert sum(len(draft.turns) for draft in drafts) == 2 * len(rows) == 2980
    cake = next(draft for draft in drafts if draft.id == "n200692")
    assert spoken(cake)[:2] == [f"<image>\n{question}{SHORT}", "White"]
    assert {name for draft in drafts for name in draft.ids} == set(rows)
