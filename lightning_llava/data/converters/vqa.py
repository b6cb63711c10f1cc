"""Short answers about photographs: VQAv2, OK-VQA, A-OKVQA, GQA, GQA-ru.

All questions about an image become one conversation (LLaVA-1.5, appendix A: data). The prompt for
short answers stands after the first question only, and answers begin with a capital letter, as in
llava_v1_5_mix665k.json.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from string import ascii_uppercase
from typing import Any, Literal

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.published import (
    check_form,
    entries,
    objects_by_key,
    other_form,
    parquet_rows,
    read_json,
)
from lightning_llava.data.converters.reading import (
    Answered,
    Prompt,
    about_image,
    capitalised,
    identifier,
    merge_by_image,
    name_of,
    problem_of,
    read_each,
    text,
    texts,
    value,
    whole_number,
)
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.text.template import SHORT_ANSWER

LETTER_PROMPT = "\nAnswer with the option's letter from the given choices directly."
CocoNames = Literal["train2014", "val2014", "bare"]
"""How COCO's images are called: as in 2014, `COCO_train2014_000000000009.jpg`, or bare, as in
2017: `000000000009.jpg`."""


@dataclass(frozen=True)
class MultipleChoice:
    """A question that a letter answers."""

    id: str
    image: int
    """COCO's number of it."""
    question: str
    choices: list[str]
    correct: int
    """Position among the choices."""

    def by_letter(self, turned: int) -> tuple[str, str]:
        """Write question and answer, the choices turned by so many places."""
        order = [(turned + place) % len(self.choices) for place in range(len(self.choices))]
        letters = ascii_uppercase[: len(order)]
        lines = [f"{letter}. {self.choices[i]}" for letter, i in zip(letters, order, strict=True)]
        return "\n".join([self.question, *lines]), letters[order.index(self.correct)]


def coco_name(image_id: int, names: CocoNames) -> str:
    """Name the file of a COCO image."""
    return f"{image_id:012d}.jpg" if names == "bare" else f"COCO_{names}_{image_id:012d}.jpg"


def read_vqav2(
    questions: Path, annotations: Path, prompt: Prompt = "en", names: CocoNames = "train2014"
) -> Iterator[Draft | LeftOut]:
    """Read VQAv2; the answer is the annotation's `multiple_choice_answer`.

    Published: v2_OpenEnded_mscoco_train2014_questions.json and
    v2_mscoco_train2014_annotations.json (visualqa.org), and files of the same form.

    Raises:
        SettingError: not these files.
    """
    expected = ("VQAv2's v2_OpenEnded_mscoco_*_questions.json", "v2_mscoco_*_annotations.json")
    asked = _listed(questions, "questions", "question", expected[0])
    given = "multiple_choice_answer"
    annotated = _listed(annotations, "annotations", given, expected[1], drop=("answers",))
    return _short_answers(_joined(asked, annotated, lambda each: text(each, given), names), prompt)


def read_okvqa(
    questions: Path,
    annotations: Path,
    prompt: Prompt = "en",
    names: CocoNames = "train2014",
    answers: Literal["answer", "raw_answer"] = "answer",
) -> Iterator[Draft | LeftOut]:
    """Read OK-VQA; the answer is the most common of the ten, the first of equals.

    Published: OpenEnded_mscoco_train2014_questions.json and mscoco_train2014_annotations.json
    (okvqa.allenai.org). Each of the ten is there as it was given, `raw_answer`, and stemmed,
    `answer`, which is what the benchmark scores.

    Raises:
        SettingError: not these files.
    """
    expected = ("OK-VQA's OpenEnded_mscoco_*_questions.json", "mscoco_*_annotations.json")
    asked = _listed(questions, "questions", "question", expected[0])
    annotated = _listed(annotations, "annotations", "answers", expected[1])

    def answer(annotation: Any) -> str:
        given = value(annotation, "answers")
        if not isinstance(given, list):
            raise Unusable("record", f"`answers` is {given!r:.80}, expected a list")
        return most_common(texts({answers: [value(item, answers) for item in given]}, answers))

    return _short_answers(_joined(asked, annotated, answer, names), prompt)


def read_aokvqa(
    questions: Path, rotations: Literal["all", "one"] = "all"
) -> Iterator[Draft | LeftOut]:
    """Read A-OKVQA as questions that a letter answers.

    Published: aokvqa_v1p0_train.json (aokvqa.allenai.org); its images are COCO's of 2017. The test
    file has no answers. LLaVA-1.5 shows every image once per choice, with the choices in other
    places (16,540 images, 66,160 records); here the choices are turned by one each time.

    Raises:
        SettingError: not this file.
    """
    expected = "A-OKVQA's aokvqa_v1p0_*.json"
    content = read_json(questions, expected, drop=("rationales", "direct_answers"))
    if not isinstance(content, list):
        other_form(content, questions, f"{expected}, an array")
    images: dict[int, list[MultipleChoice]] = {}
    records = check_form(content, "choices", questions, expected)
    for item in read_each(records, "question_id", _multiple_choice):
        if isinstance(item, LeftOut):
            yield item
        else:
            images.setdefault(item.image, []).append(item)
    for image, asked in images.items():
        times = max(len(each.choices) for each in asked) if rotations == "all" else 1
        ids = [each.id for each in asked]
        for turned in range(times):
            turns = about_image([each.by_letter(turned) for each in asked], LETTER_PROMPT)
            name = f"{image}-{turned}" if rotations == "all" else str(image)
            yield Draft(name, turns, [coco_name(image, "bare")], ids=ids)


def read_gqa(questions: Path, prompt: Prompt = "en") -> Iterator[Draft | LeftOut]:
    """Read GQA with its short answers.

    Published: train_balanced_questions.json and the like (cs.stanford.edu/people/dorarad/gqa), and
    xGQA's files of the same form, whose answers are English in every language; images are
    `{imageId}.jpg`. The test files have no answers.

    Raises:
        SettingError: not this file.
    """
    expected = "GQA's {train,val,testdev}_{balanced,all}_questions.json"
    unread = ("semantic", "semanticStr", "annotations", "groups", "entailed", "equivalent")
    content = read_json(questions, expected, drop=unread)
    records = objects_by_key(content, "id", "imageId", questions, expected)
    return _short_answers(read_each(records, "id", lambda each: _gqa(each, capitalised)), prompt)


def read_gqa_ru(instructions: Path, pictures: Path) -> Iterator[Draft | LeftOut]:
    """Read GQA-ru; questions and answers are Russian, and answers stay as they are published.

    Published: deepvk/GQA-ru on the Hugging Face hub, parquet: the folders
    train_balanced_instructions (id, imageId, question, answer, …) and train_balanced_images
    (id, image with its bytes), or single files of them. Images are read as they come; the
    questions are held in memory.

    Raises:
        SettingError: not these files, or pyarrow is missing.
    """
    expected = "deepvk/GQA-ru's *_balanced_instructions"
    columns = ("id", "imageId", "question", "answer")
    rows = parquet_rows(instructions, columns, expected)
    images: dict[str, list[Answered]] = {}
    for item in read_each(rows, "id", lambda row: _gqa(row, str.strip)):
        if isinstance(item, LeftOut):
            yield item
        else:
            images.setdefault(item.image, []).append(item)
    for row in parquet_rows(pictures, ("id", "image"), "deepvk/GQA-ru's *_balanced_images"):
        name, image = str(row["id"]), row["image"]
        encoded = image.get("bytes") if isinstance(image, dict) else None
        if encoded and name in images:
            pairs = images.pop(name)
            asked = [(pair.question, pair.answer) for pair in pairs]
            turns = about_image(asked, SHORT_ANSWER["ru"])
            ids = [pair.id for pair in pairs if pair.id]
            yield Draft(name, turns, [encoded], ids=ids, language="ru")
    for pair in chain.from_iterable(images.values()):
        detail = f"no picture {pair.image} with bytes in {pictures}"
        yield LeftOut(pair.id or pair.image, "missing", detail)


def most_common(answers: Iterable[str]) -> str:
    """Find what most people answered, of those who did; the first of equals.

    Raises:
        Unusable: nobody did, or it cannot be a turn's.
    """
    counted = Counter(answer for answer in answers if answer.strip()).most_common(1)
    if not counted:
        raise Unusable("conversation", "no answers")
    answer, _ = counted[0]
    if problem := problem_of(answer):
        raise Unusable("conversation", f"the answer {problem}")
    return answer.strip()


def _listed(
    path: Path, key: str, record_key: str, expected: str, drop: Collection[str] = ()
) -> list[Any]:
    records = entries(read_json(path, expected, drop), key, path, expected)
    return list(check_form(records, record_key, path, expected))


def _short_answers(
    answered: Iterable[Answered | LeftOut], prompt: Prompt
) -> Iterator[Draft | LeftOut]:
    return merge_by_image(answered, lambda _: SHORT_ANSWER[prompt])


def _joined(
    questions: list[Any], annotations: list[Any], answer: Callable[[Any], str], names: CocoNames
) -> Iterator[Answered | LeftOut]:
    """Join questions and annotations by `question_id`."""
    by_id: dict[str, Any] = {}
    for number, annotation in enumerate(annotations):
        name = name_of(annotation, "question_id", number)
        if name in by_id:
            yield LeftOut(name, "record", "a second annotation of this question")
        else:
            by_id[name] = annotation

    def convert(question: Any) -> Answered:
        name, image = identifier(question, "question_id"), whole_number(question, "image_id")
        if name not in by_id:
            raise Unusable("record", "no annotation of this question, or it is there twice")
        annotation = by_id.pop(name)
        if value(annotation, "image_id") != image:
            other = annotation["image_id"]
            raise Unusable("record", f"about image {image}, but annotated for {other!r:.40}")
        asked, answered = text(question, "question"), capitalised(answer(annotation))
        return Answered(str(image), coco_name(image, names), asked, answered, name)

    yield from read_each(questions, "question_id", convert)
    for name in by_id:
        yield LeftOut(name, "record", "an annotation without its question")


def _gqa(record: Any, write: Callable[[str], str]) -> Answered:
    image, name = identifier(record, "imageId"), identifier(record, "id")
    question, answer = text(record, "question"), write(text(record, "answer"))
    return Answered(image, f"{image}.jpg", question, answer, name)


def _multiple_choice(record: Any) -> MultipleChoice:
    name, image = identifier(record, "question_id"), whole_number(record, "image_id")
    choices = [text({"choices": choice}, "choices") for choice in texts(record, "choices")]
    correct = whole_number(record, "correct_choice_idx")
    if not correct < len(choices) <= len(ascii_uppercase):
        detail = f"`correct_choice_idx` is {correct}, and there are {len(choices)} choices"
        raise Unusable("record", detail)
    return MultipleChoice(name, image, text(record, "question"), choices, correct)
