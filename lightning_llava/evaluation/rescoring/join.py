"""Put answers and ground truth together, by split and id, and refuse all that does not fit."""

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePath

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.pope_version import OLD_TYPING_ERROR
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.rescoring.predictions import Prediction
from lightning_llava.evaluation.scorers.language import SCRIPTS, script_share

Pair = tuple[Truth, Prediction]


def by_id(
    split: str, truths: Sequence[Truth], predictions: Sequence[Prediction], hint: str = ""
) -> list[Pair]:
    """Join a split on the question id, and compare what both sides say of the question.

    Args:
        split: for errors.
        truths: all of the split.
        predictions: answers to it.
        hint: what may be the reason if they do not fit.

    Returns:
        The pairs that count, in the order of the ground truth.

    Raises:
        SettingError: an answer is missing, double or extra, or answers another question.
    """
    check_same(
        split,
        [truth.id for truth in truths if truth.counts],
        [prediction.id for prediction in predictions],
        allowed={truth.id for truth in truths if not truth.counts},
        hint=hint,
    )
    answered = {prediction.id: prediction for prediction in predictions}
    pairs = [(truth, answered[truth.id]) for truth in truths if truth.counts]
    for truth, prediction in pairs:
        check_question(truth, prediction)
    return pairs


def check_same(
    what: str,
    expected: Iterable[Hashable],
    found: Iterable[Hashable],
    allowed: Iterable[Hashable] = (),
    hint: str = "",
) -> None:
    """Refuse missing, double and extra keys, with their numbers and the first few.

    Args:
        what: what is joined, for the error.
        expected: keys, each as often as it must be found.
        found: keys.
        allowed: keys that may be found, once each.
        hint: what may be the reason.

    Raises:
        SettingError: the keys are not the same.
    """
    wanted, given, may = Counter(expected), Counter(found), set(allowed)
    problems = {
        "answers missing": list((wanted - given).keys()),
        "questions answered more than once": [
            key for key, times in given.items() if times > max(1, wanted[key])
        ],
        "answers to questions that the ground truth does not have": [
            key for key in given if key not in wanted and key not in may
        ],
    }
    parts = [
        f"{problem}: {len(keys):,} ({', '.join(map(str, keys[:3]))}{', …' * (len(keys) > 3)})"
        for problem, keys in problems.items()
        if keys
    ]
    if parts:
        raise SettingError(
            f"{what}: {'; '.join(parts)}; the ground truth asks {wanted.total():,} questions, the "
            f"predictions answer {given.total():,}{hint}; give predictions and ground truth of the "
            "same version, whole"
        )


def check_question(truth: Truth, prediction: Prediction) -> None:
    """Refuse an answer to another question, as far as its file says what was asked.

    Raises:
        SettingError: image or question differ.
    """
    if truth.image and prediction.image:
        check_image(truth.image, prediction.image, prediction.where)
    asked = truth.source or truth.question
    said = prediction.question or prediction.prompt
    # A Russian run asks in Russian what the published labels belong to.
    if not asked or not said or _is_cyrillic(asked) != _is_cyrillic(said):
        return
    if plain_question(asked).lower() not in said.replace(*OLD_TYPING_ERROR).lower():
        raise SettingError(
            f"{prediction.where}: was asked {said!r:.100}, but the ground truth's question "
            f"{truth.id} is {asked!r}; give predictions and ground truth of the same version"
        )


def _is_cyrillic(text: str) -> bool:
    return script_share(text, SCRIPTS["ru"]) > 0.5


def check_image(expected: str, found: str, where: str) -> None:
    """Refuse another image; folders, extensions and COCO's ways to write an id aside.

    Raises:
        SettingError: the names differ.
    """
    if _image_name(expected) != _image_name(found):
        raise SettingError(
            f"{where}: is about {found!r}, but the ground truth about {expected!r}; give "
            "predictions and ground truth of the same version"
        )


def _image_name(image: str) -> str:
    stem = PurePath(image).stem
    coco = re.fullmatch(r"(?:COCO_[a-z]+\d{4}_)?(\d{12})", stem)
    return str(int(coco[1])) if coco else stem


def plain_question(text: str) -> str:
    """Strip what prompts add to a question, and POPE's old typing error.

    LLaVA's prompts have the instruction to answer briefly in a line of its own behind it.
    """
    lines = [line.strip() for line in text.replace("<image>", "").splitlines()]
    question = next(filter(None, lines), "")
    return question.replace(*OLD_TYPING_ERROR)


def by_image_and_prompt(truths: Sequence[Truth], predictions: Sequence[Prediction]) -> list[Pair]:
    """Join LLaVA's TextVQA answers, whose `question_id` is the image's, on image and prompt.

    The question is a line of the prompt, in any case; LLaVA puts OCR tokens and an instruction into
    other lines.

    Raises:
        SettingError: an answer is missing, double or extra, or a prompt holds no known question.
    """
    asked = [(truth.image or "", _folded(truth.question or "")) for truth in truths]
    known = set(asked)
    answers: Mapping[tuple[str, str], list[Prediction]] = defaultdict(list)
    for prediction in predictions:
        answers[_key(prediction, known)].append(prediction)
    check_same("textvqa", asked, [key for key, found in answers.items() for _ in found])
    # Few pairs of image and question occur twice; the answers to those keep their order.
    return [(truth, answers[key].pop(0)) for truth, key in zip(truths, asked, strict=True)]


def _key(prediction: Prediction, known: set[tuple[str, str]]) -> tuple[str, str]:
    if prediction.prompt is None:
        raise SettingError(
            f"{prediction.where}: question_id {prediction.id!r} is an image's, and there is no "
            "'prompt' to tell its questions apart; give LLaVA's answer file as it was written"
        )
    lines = map(_folded, prediction.prompt.splitlines())
    found = [(prediction.id, line) for line in lines if (prediction.id, line) in known]
    if not found:
        raise SettingError(
            f"{prediction.where}: no line of the prompt {prediction.prompt!r:.100} is a question "
            f"that the ground truth asks about image {prediction.id!r}"
        )
    return found[0]


def _folded(text: str) -> str:
    return text.strip().lower()
