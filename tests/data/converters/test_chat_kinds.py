import pyarrow as arrow
import pytest
from pyarrow import parquet
from reader_results import divide, reasons, save, spoken

from lightning_llava.data.converters.chat import read_llava_instruct_ru, read_sharegpt
from lightning_llava.errors import SettingError


def talk(*said, **names):
    messages = [{"from": speaker, "value": value} for speaker, value in said]
    return {"id": "QWJhYvA_0", "conversations": messages} | names


def test_sharegpt_is_cut_from_the_first_question_to_the_last_answer(tmp_path):
    path = save(
        tmp_path / "sharegpt.json",
        [
            talk(("human", "Hi\n"), ("gpt", " Hello")),
            talk(("system", "Be kind."), ("gpt", "Go on"), ("user", "A?"), ("bing", "B"), id="a"),
            talk(("gpt", "x"), ("human", "1?"), ("chatgpt", "1"), ("human", "2?"), id="b"),
        ],
    )
    drafts, left_out = divide(read_sharegpt(path))
    assert not left_out
    assert [draft.id for draft in drafts] == ["QWJhYvA_0", "a", "b"]
    assert [spoken(draft) for draft in drafts] == [["Hi\n", " Hello"], ["A?", "B"], ["1?", "1"]]
    assert all(draft.images == [] and draft.language is None for draft in drafts)
    system, leading, trailing = (
        "system turns dropped",
        "answers before the first question dropped",
        "questions after the last answer dropped",
    )
    assert [draft.notes for draft in drafts] == [[], [system, leading], [leading, trailing]]


@pytest.mark.parametrize(
    ("record", "reason", "detail"),
    [
        (talk(("human", "A?"), ("human", "B?"), ("gpt", "C")), "conversation", "user speaks twice"),
        (
            talk(("human", "A?"), ("gpt", "B"), ("gpt", "C")),
            "conversation",
            "turn 2 of 3: assistant speaks twice",
        ),
        (talk(("human", "A?")), "conversation", "no question that is answered"),
        (talk(("gpt", "A")), "conversation", "no question that is answered"),
        (talk(("system", "A")), "conversation", "a system turn that is not at the start"),
        (talk(), "conversation", "no question that is answered"),
        (talk(("human", "A?"), ("gpt", " ")), "conversation", "turn 1 is empty"),
        (talk(("human", "A <image>?"), ("gpt", "B")), "conversation", "turn 0 holds <image>"),
        (talk(("human", "A"), ("gpt", "\udc00")), "conversation", "half of a surrogate pair"),
        (talk(("human", "A?"), ("tool", "B")), "record", "turn 1 is from 'tool'"),
        (talk(("human", "A?"), ("gpt", None)), "record", "no `value`"),
        (talk(("human", "A?"), ("gpt", 3)), "record", "`value` is 3"),
        (talk(("human", "A?"), ([], "B")), "record", "turn 1 is from []"),
        (talk(conversations="A"), "record", "`conversations` is 'A', expected a list"),
        (talk(conversations=["A"]), "record", "str, expected an object"),
        (7, "record", "int, expected an object"),
    ],
)
def test_sharegpt_leaves_out(tmp_path, record, reason, detail):
    good = talk(("human", "Hi"), ("gpt", "Hello"))
    path = save(tmp_path / "sharegpt.json", [good, record, good])
    drafts, (entry,) = divide(read_sharegpt(path))
    assert len(drafts) == 2
    assert entry.id == ("record 1" if record == 7 else "QWJhYvA_0")
    assert entry.reason == reason
    assert detail in entry.detail


def test_sharegpt_refuses_other_files(tmp_path):
    path = save(tmp_path / "a.json", [{"question": "Hi"}])
    with pytest.raises(SettingError, match=r"an object with question; expected ShareGPT_V3"):
        list(read_sharegpt(path))


RECORDS = [
    talk(
        ("human", "<image>\nЧто на столе?"),
        ("gpt", "На столе чашка."),
        ("human", "А рядом?"),
        ("gpt", "Ложка."),
        id="33471",
        image="coco/train2014/COCO_train2014_000000033471.jpg",
        type="conversation",
    ),
    talk(
        ("human", "Почему?"),
        ("gpt", "Потому."),
        id="33471",
        image="val2014/COCO_val2014_000000033471.jpg",
        type="complex_reasoning",
    ),
    talk(("human", "<image>"), ("gpt", "Да."), id="5", image="a.jpg", type="conversation"),
    talk(("human", "Без картинки?"), ("gpt", "Да."), id="6", image=None, type="conversation"),
]


@pytest.mark.parametrize("published", ["array", "lines", "parquet"])
def test_llava_instruct_ru(tmp_path, published):
    path = tmp_path / f"train.{'parquet' if published == 'parquet' else 'json'}"
    if published == "parquet":
        parquet.write_table(arrow.Table.from_pylist(RECORDS), path)
    elif published == "array":
        save(path, RECORDS)
    else:
        lines = [save(path, record).read_text() for record in RECORDS]
        path.write_text("\n".join(lines), encoding="utf-8")
    drafts, left_out = divide(read_llava_instruct_ru(path))
    assert [(draft.id, draft.images, draft.language) for draft in drafts] == [
        ("33471", ["coco/train2014/COCO_train2014_000000033471.jpg"], "ru"),
        ("33471", ["val2014/COCO_val2014_000000033471.jpg"], "ru"),
    ]
    assert spoken(drafts[0]) == [
        "<image>\nЧто на столе?",
        "На столе чашка.",
        "А рядом?",
        "Ложка.",
    ]
    assert spoken(drafts[1]) == ["<image>\nПочему?", "Потому."]
    assert [draft.notes for draft in drafts] == [[], ["picture placed before the first question"]]
    assert reasons(left_out) == [("5", "conversation"), ("6", "record")]
