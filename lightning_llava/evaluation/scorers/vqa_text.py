"""Answer texts as the VQA scorers compare them, odd rules included.

The rules are facts about published programs, which published numbers depend on: vqaEval.py of
https://github.com/GT-Vision-Lab/VQA (a013f00), m4c_evaluator.py of LLaVA and VLMEvalKit.
"""

import re
from functools import lru_cache

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_DIGIT_COMMA_DIGIT = re.compile(r"\d,\d")
_PERIOD = re.compile(r"\.(?!\d)")
_PERIOD_VLMEVALKIT = re.compile(r"(?<!\d)\.(?!\d)")
_MOST_PERIODS = 32
"""Both programs pass `re.UNICODE`, which is 32, where `sub` takes the number of replacements."""

_NUMBERS = {"none": "0", "zero": "0"} | {
    word: str(number)
    for number, word in enumerate(
        ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"], start=1
    )
}
_ARTICLES = {"a", "an", "the"}
_CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've
might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've
shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've someone'll
someone's something'd something'd've something'll that's there'd there'd've there're there's
they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're
what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're
why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""
CONTRACTIONS = {
    form[:place] + form[place + 1 :]: form
    for form in _CONTRACTED.split()
    for place, sign in enumerate(form)
    if sign == "'"
} | {"somebody'd": "somebodyd"}
"""A form with one apostrophe missing → the form; the last entry is a slip of the original.

Its six further entries change nothing: `let's` and `she's` stand for themselves, and `Id've`,
`I'dve`, `Im` and `Ive` never occur, for the text is lower case by then.
"""


def clean_spaces(text: str) -> str:
    """Turn line ends and tabs into spaces and strip: step 1 of the official script."""
    return text.replace("\n", " ").replace("\t", " ").strip()


@lru_cache(maxsize=1 << 16)  # 214,354 questions have ten answers each, most of them `yes` or `no`
def process(text: str) -> str:
    """Process punctuation, then digits and articles: steps 3 and 4 of the official script."""
    return _digits_and_articles(process_punctuation(text, _PERIOD))


@lru_cache(maxsize=1 << 16)
def process_vlmevalkit(text: str) -> str:
    """Process as VLMEvalKit does: the official steps, but a period after a digit stays."""
    return _digits_and_articles(process_punctuation(clean_spaces(text), _PERIOD_VLMEVALKIT))


@lru_cache(maxsize=1 << 16)
def process_m4c(text: str) -> str:
    """Process as LLaVA's m4c evaluator (EvalAI's processor) does."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return process(clean_spaces(text))


def vlmevalkit_words(text: str) -> list[str]:
    """Split an answer as VLMEvalKit does before it looks for yes and no."""
    return process_punctuation(text.lower(), _PERIOD_VLMEVALKIT).split()


def process_punctuation(text: str, period: re.Pattern[str]) -> str:
    """Delete a sign that touches a space somewhere, replace it by a space elsewhere.

    Every sign is looked for in the text as it came, not in what is left of it; with a comma between
    digits anywhere, all signs are deleted.
    """
    deletes_all = _DIGIT_COMMA_DIGIT.search(text) is not None
    result = text
    for sign in _PUNCTUATION:
        deletes = deletes_all or f"{sign} " in text or f" {sign}" in text
        result = result.replace(sign, "" if deletes else " ")
    return period.sub("", result, count=_MOST_PERIODS)


def _digits_and_articles(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
