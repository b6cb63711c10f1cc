"""Conversations that are published as such: ShareGPT, LLaVA-Instruct-ru."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from lightning_llava.data.converters.draft import (
    LEADING_ANSWER,
    MERGED,
    PLACED,
    SYSTEM_TURN,
    TRAILING_QUESTION,
    Draft,
    LeftOut,
)
from lightning_llava.data.converters.published import (
    check_form,
    is_parquet,
    json_records,
    parquet_rows,
)
from lightning_llava.data.converters.reading import (
    identifier,
    problem_of,
    read_each,
    text,
    value,
)
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

SPEAKERS: dict[str, Literal["user", "assistant"]] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "bing": "assistant",
    "bard": "assistant",
}


def read_sharegpt(conversations: Path) -> Iterator[Draft | LeftOut]:
    """Read ShareGPT's conversations, text only.

    Published: ShareGPT_V3_unfiltered_cleaned_split.json (anon8231489123/ShareGPT_Vicuna_unfiltered
    on the Hugging Face hub); read one by one. System turns at the start, assistant turns before the
    first question and user turns after the last answer are dropped, and noted; what then does not
    alternate is left out, as Vicuna does.

    Raises:
        SettingError: not this file.
    """
    expected = "ShareGPT_V3_unfiltered_cleaned_split.json"
    records = check_form(
        json_records(conversations, expected), "conversations", conversations, expected
    )

    def convert(record: Any) -> Draft:
        turns, notes = _trimmed(_turns(record))
        for place, turn in enumerate(turns):
            if problem := problem_of(turn.text):
                raise Unusable("conversation", f"turn {place} {problem}")
        return Draft(identifier(record, "id"), turns, notes=notes)

    yield from read_each(records, "id", convert)


def read_llava_instruct_ru(conversations: Path) -> Iterator[Draft | LeftOut]:
    """Read LLaVA-Instruct-ru; the answers are Russian.

    Published: llava_instruct_ru_train.json and llava_instruct_ru_val.json
    (deepvk/LLaVA-Instruct-ru on the Hugging Face hub): type, conversations, id (COCO's image, not
    unique), image (a path inside COCO's folder); or the same as parquet, a file or a folder of one
    split. The `val` split has no `<image>`; it is put in front of the first question. Turns are
    dropped and noted as of ShareGPT.

    Raises:
        SettingError: not this file, or pyarrow is missing.
    """
    expected = "deepvk/LLaVA-Instruct-ru's llava_instruct_ru_*.json or its parquet"
    if is_parquet(conversations):
        records = parquet_rows(conversations, ("id", "image", "conversations"), expected)
    else:
        read = json_records(conversations, expected)
        records = check_form(read, "conversations", conversations, expected)

    def convert(record: Any) -> Draft:
        turns, notes = _trimmed(_turns(record))
        if (placeholders := turns[0].text.count(IMAGE_PLACEHOLDER)) != 1:
            notes.append(MERGED if placeholders else PLACED)
        asked = turns[0].text.replace(IMAGE_PLACEHOLDER, "").strip()
        turns[0] = replace(turns[0], text=asked)
        for place, turn in enumerate(turns):
            if problem := problem_of(turn.text):
                raise Unusable("conversation", f"turn {place} {problem}")
        turns[0] = replace(turns[0], text=f"{IMAGE_PLACEHOLDER}\n{asked}")
        name, image = identifier(record, "id"), text(record, "image")
        return Draft(name, turns, [image], language="ru", notes=notes)

    yield from read_each(records, "id", convert)


def _turns(record: Any) -> list[tuple[str, str]]:
    """Take who says what.

    Raises:
        Unusable: no list of `{"from", "value"}`, or a speaker that is not known.
    """
    messages = value(record, "conversations")
    if not isinstance(messages, list):
        raise Unusable("record", f"`conversations` is {messages!r:.80}, expected a list")
    turns = []
    for place, message in enumerate(messages):
        speaker, said = value(message, "from"), value(message, "value")
        if not isinstance(said, str):
            raise Unusable("record", f"turn {place}: `value` is {said!r:.80}, expected a text")
        if speaker not in (*SPEAKERS, "system"):
            detail = f"turn {place} is from {speaker!r:.40}, expected human, gpt or system"
            raise Unusable("record", detail)
        turns.append((speaker, said))
    return turns


def _trimmed(said: list[tuple[str, str]]) -> tuple[list[Turn], list[str]]:
    """Cut a conversation to the part from the first question to the last answer.

    Returns:
        The turns, and notes of what was cut off.

    Raises:
        Unusable: nothing is left, or it does not alternate.
    """
    spoken = said[next((i for i, (speaker, _) in enumerate(said) if speaker != "system"), 0) :]
    if any(speaker == "system" for speaker, _ in spoken):
        raise Unusable("conversation", "a system turn that is not at the start")
    notes = [SYSTEM_TURN] if len(spoken) < len(said) else []
    turns = [Turn(SPEAKERS[speaker], text) for speaker, text in spoken]
    if turns and turns[0].role == "assistant":
        notes.append(LEADING_ANSWER)
    while turns and turns[0].role == "assistant":
        turns.pop(0)
    if turns and turns[-1].role == "user":
        notes.append(TRAILING_QUESTION)
    while turns and turns[-1].role == "user":
        turns.pop()
    if not turns:
        raise Unusable("conversation", "no question that is answered")
    for place, turn in enumerate(turns):
        if turn.role != ("user", "assistant")[place % 2]:
            detail = f"turn {place} of {len(turns)}: {turn.role} speaks twice"
            raise Unusable("conversation", detail)
    return turns, notes
