"""Rows of a ledger, with few words."""

from dataclasses import replace
from typing import Any

from lightning_llava.evaluation.ledger import LedgerRow

RIGHT_YES = LedgerRow(
    benchmark="pope",
    split="random",
    question_id="1",
    image="0.jpg",
    language="en",
    question="dog?",
    prompt="?",
    raw_answer="Yes",
    label="yes",
    parsed="yes",
    correct=True,
    kind="pope",
    answers=["yes"],
    types={},
    source=None,
    english=None,
    route=None,
)
IN_RUSSIAN = replace(
    RIGHT_YES,
    benchmark="gqa",
    split="testdev",
    image="1.jpg",
    language="ru",
    question="Какого цвета кошка?",
    prompt="Какого цвета кошка?\nОтветь одним словом.",
    raw_answer="белый",
    label="white",
    parsed=None,
    correct=None,
    kind="gqa",
    answers=["white"],
    source="What color is the cat?",
)


def ledger_row(**changes: Any) -> LedgerRow:
    """Make POPE's row of a right yes, but for the changes."""
    return replace(RIGHT_YES, **changes)


def asked_in_russian(**changes: Any) -> LedgerRow:
    """Make GQA's row of a Russian question whose answer is not judged yet, but for the changes."""
    return replace(IN_RUSSIAN, **changes)
