"""MT-Bench for a bare LLM: FastChat's question file in, the answer file that its judge reads out.

The judge itself asks GPT-4 and is not here: `python -m fastchat.llm_judge.gen_judgment` reads
`data/mt_bench/model_answer/MODEL.jsonl`.
"""

import hashlib
import json
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, TypeGuard

from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.language_model import LanguageModel
from lightning_llava.evaluation.asking_bar import AskingBar
from lightning_llava.evaluation.json_lines import read_json_lines, write_atomically
from lightning_llava.evaluation.store import Store, answer_key
from lightning_llava.text.turns import Turn

OPTION = "--mt-bench"


def read_conversations(path: Path) -> list[tuple[int | str, list[str]]]:
    """Read (question_id, what the user says turn by turn).

    Raises:
        SettingError: no such file, or not FastChat's `question.jsonl`.
    """
    conversations: dict[int | str, list[str]] = {}
    for number, record in read_json_lines(path, OPTION):
        question_id, turns = record.get("question_id"), record.get("turns")
        if not isinstance(question_id, int | str) or not _are_texts(turns):
            raise SettingError(
                f"{path}, line {number}: expected question_id and turns, a list of texts, among "
                f"the keys {list(record)}; give FastChat's question.jsonl"
            )
        if question_id in conversations:
            raise SettingError(f"{path}, line {number}: question_id {question_id!r} occurs twice")
        conversations[question_id] = turns
    if not conversations:
        raise SettingError(f"{OPTION}: {path} holds no questions")
    return list(conversations.items())


def answer_conversations(
    model: LanguageModel,
    conversations: Sequence[tuple[int | str, list[str]]],
    folder: Path,
    console: Console,
) -> Path:
    """Answer turn after turn, each answer kept as it comes, and write the file for the judge.

    Returns:
        Its path.
    """
    lines: list[str] = []
    turns = sum(len(said) for _, said in conversations)
    with closing(Store(folder)) as store, AskingBar(console, turns, 0) as bar:
        for question_id, said in conversations:
            answers = _converse(model, said, store, bar)
            lines.append(_line(model, question_id, answers))
    path = folder / "model_answer" / f"{model_id(model.name)}.jsonl"
    write_atomically(path, "".join(lines))
    return path


def model_id(name: str) -> str:
    """Return the name that the judge will use: the last part of a folder or hub name."""
    return Path(name).name


def _converse(model: LanguageModel, said: Sequence[str], store: Store, bar: AskingBar) -> list[str]:
    turns: list[Turn] = []
    for text in said:
        turns.append(Turn("user", text))
        key = answer_key(model.fingerprint, None, model.conversation(turns))
        if key not in store.answers:
            store.add({key: model.say(turns)})
        bar.advance(1)
        turns.append(Turn("assistant", store.answers[key]))
    return [turn.text for turn in turns if turn.role == "assistant"]


def _line(model: LanguageModel, question_id: int | str, answers: Sequence[str]) -> str:
    identity = json.dumps([model.fingerprint, question_id, answers])
    record = {
        "question_id": question_id,
        "answer_id": hashlib.sha256(identity.encode()).hexdigest()[:22],
        "model_id": model_id(model.name),
        "choices": [{"index": 0, "turns": answers}],
        "tstamp": time.time(),
    }
    return json.dumps(record, ensure_ascii=False) + "\n"


def _are_texts(turns: Any) -> TypeGuard[list[str]]:
    return isinstance(turns, list) and bool(turns) and all(isinstance(t, str) for t in turns)
