"""Pictures that are read: OCR-VQA, TextVQA, TextCaps, Cyrillic handwriting."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.published import (
    check_form,
    entries,
    objects_by_key,
    read_json,
    shortened,
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
    stable_hash,
    text,
    texts,
)
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.converters.vqa import most_common
from lightning_llava.errors import SettingError
from lightning_llava.text.template import SHORT_ANSWER

SPLITS = {"train": 1, "val": 2, "test": 3}
"""OCR-VQA's numbers."""
CAPTION_PROMPT = "Provide a one-sentence caption for the provided image."
OCR_PROMPT = "\nReference OCR token: "
WHAT_IS_WRITTEN = (
    "Что здесь написано?",
    "Какой текст написан на изображении?",
    "Прочитай рукописный текст.",
    "Что написано от руки на этой картинке?",
)


def read_ocrvqa(
    dataset: Path,
    split: Literal["train", "val", "test", "all"] = "train",
    prompt: Prompt = "en",
) -> Iterator[Draft | LeftOut]:
    """Read OCR-VQA's questions about book covers, one conversation a book.

    Published: dataset.json (ocr-vqa.github.io). Books of other splits are passed over.
    Images are `{key}.jpg`, as LLaVA has them, or have the ending of their address.

    Args:
        dataset: The file.
        split: Which books.
        prompt: Language of the prompt for short answers.

    Raises:
        SettingError: not this file.
    """
    expected = "OCR-VQA's dataset.json"
    books = objects_by_key(read_json(dataset, expected), "key", "imageURL", dataset, expected)

    def answered() -> Iterator[Answered | LeftOut]:
        for number, book in enumerate(books):
            if split == "all" or book.get("split") in (None, SPLITS[split]):
                yield from _book(number, book)

    return merge_by_image(answered(), lambda _: SHORT_ANSWER[prompt])


def read_textvqa(
    questions: Path, ocr: Path | None = None, prompt: Prompt = "en"
) -> Iterator[Draft | LeftOut]:
    """Read TextVQA; the answer is the most common of the ten, the first of equals.

    Published: TextVQA_0.5.1_train.json and, optional, TextVQA_Rosetta_OCR_v0.2_train.json
    (textvqa.org), whose words then stand behind the first question, as in LLaVA's evaluation.
    Images are `{image_id}.jpg`; the test file has no answers.

    Raises:
        SettingError: not these files.
    """
    expected = "TextVQA's TextVQA_0.5.1_*.json"
    content = read_json(questions, expected, drop=("question_tokens", "image_classes"))
    records = entries(content, "data", questions, expected)
    tokens = read_ocr_tokens(ocr)

    def convert(record: Any) -> Answered:
        image, question = identifier(record, "image_id"), text(record, "question")
        answer = capitalised(most_common(texts(record, "answers")))
        name = identifier(record, "question_id")
        return Answered(image, f"{image}.jpg", question, answer, name)

    def ending(image: str) -> str:
        return ocr_line(tokens, image) + SHORT_ANSWER[prompt]

    checked = check_form(records, "question", questions, expected)
    return merge_by_image(read_each(checked, "question_id", convert), ending)


def read_textcaps(
    captions: Path, ocr: Path | None = None, per_image: Literal["one", "all"] = "one"
) -> Iterator[Draft | LeftOut]:
    """Read TextCaps, each caption a conversation.

    Published: TextCaps_0.1_train.json and, optional, TextVQA_Rosetta_OCR_v0.2_train.json
    (textvqa.org), whose words then stand in the question, as in mix665k. That has one record for
    each of the 21,953 images. Images are `{image_id}.jpg`.

    Args:
        captions: The file.
        ocr: Words that an OCR program has read.
        per_image: `one`: the first usable caption of each image; `all`: each of its five.

    Raises:
        SettingError: not these files.
    """
    expected = "TextCaps' TextCaps_0.1_*.json"
    unread = ("caption_tokens", "reference_tokens", "reference_strs", "image_classes")
    records = entries(read_json(captions, expected, drop=unread), "data", captions, expected)
    tokens, seen = read_ocr_tokens(ocr), set()

    def convert(record: Any) -> tuple[str, Draft]:
        image, caption = identifier(record, "image_id"), text(record, "caption_str")
        caption_id = identifier(record, "caption_id")
        name = image if per_image == "one" else f"{image}-{caption_id}"
        turns = about_image([(CAPTION_PROMPT + ocr_line(tokens, image), caption)])
        return image, Draft(name, turns, [f"{image}.jpg"], ids=[caption_id])

    checked = check_form(records, "caption_str", captions, expected)
    for item in read_each(checked, "caption_id", convert):
        if isinstance(item, LeftOut):
            yield item
        elif per_image == "all" or item[0] not in seen:
            seen.add(item[0])
            yield item[1]


def read_handwriting(labels: Path) -> Iterator[Draft | LeftOut]:
    """Read handwritten Russian; the answer is the text as it stands.

    Published: train.tsv and test.tsv of the Cyrillic Handwriting Dataset (Kaggle,
    constantinwerner), without a header, one `path<TAB>text` a line; images are in train and test.
    Which of a few wordings asks depends on the path alone.

    Raises:
        SettingError: not this file.
    """
    expected = "the Cyrillic Handwriting Dataset's *.tsv, one `path<TAB>text` a line"
    try:
        lines = labels.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(f"cannot read {labels}: {error}; expected {expected}") from error
    lines = [line.removesuffix("\r") for line in lines]
    if not any("\t" in line for line in lines):
        shown = next((shortened(line) for line in lines if line.strip()), "no line")
        raise SettingError(f"{labels} holds {shown} and no tab; expected {expected}")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        path, tab, written = line.partition("\t")
        problem = problem_of(written)
        if not (tab and path):
            yield LeftOut(path or f"line {number}", "record", "no `path<TAB>text`")
        elif problem:
            yield LeftOut(path, "conversation", f"the text {problem}")
        else:
            question = WHAT_IS_WRITTEN[stable_hash(path) % len(WHAT_IS_WRITTEN)]
            turns = about_image([(question, written.strip())])
            yield Draft(path, turns, [path], language="ru")


def _book(number: int, book: dict[str, Any]) -> Iterator[Answered | LeftOut]:
    """Read the questions about one cover; an unusable pair does not spoil the others."""
    key = name_of(book, "key", number)
    asked, given = book.get("questions"), book.get("answers")
    if "split" not in book:
        yield LeftOut(key, "record", "no `split`")
        return
    if not (isinstance(asked, list) and isinstance(given, list) and len(asked) == len(given)):
        detail = "`questions` and `answers` are not lists of one length"
        yield LeftOut(key, "record", detail)
        return
    for place, (question, answer) in enumerate(zip(asked, given, strict=True)):
        pair = {"question": question, "answer": answer}
        try:
            says = capitalised(text(pair, "answer"))
            yield Answered(key, f"{key}.jpg", text(pair, "question"), says)
        except Unusable as error:
            yield LeftOut(f"{key}, question {place}", error.reason, str(error))


def read_ocr_tokens(path: Path | None) -> dict[str, list[str]] | None:
    """Read the words of each image.

    Raises:
        SettingError: not this file.
    """
    if path is None:
        return None
    expected = "TextVQA's TextVQA_Rosetta_OCR_v0.2_*.json"
    records = entries(read_json(path, expected, drop=("ocr_info",)), "data", path, expected)
    try:
        return {identifier(item, "image_id"): texts(item, "ocr_tokens") for item in records}
    except Unusable as error:
        raise SettingError(f"{path}: {error}; expected {expected}") from error


def ocr_line(tokens: dict[str, list[str]] | None, image: str) -> str:
    """Write the words of an image; the line is there without words too, as in LLaVA's files."""
    return "" if tokens is None else OCR_PROMPT + ", ".join(tokens.get(image, []))
