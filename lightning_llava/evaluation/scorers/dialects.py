"""Which dialect defines what: the same answers, scored as each published harness would.

An empty cell of the table is refused, never guessed.
"""

from lightning_llava.errors import SettingError

PUBLISHED = {
    "official": "the benchmark's own script",
    "llava": "LLaVA-1.5's evaluation",
    "lmms-eval": "lmms-eval",
    "vlmevalkit": "VLMEvalKit",
}
DIALECTS: dict[str, dict[str, str]] = {
    "vqav2": {
        "official": "texts are processed only where the ten answers differ, else compared raw",
        "llava": "the m4c processor on the answer, then official",
        "lmms-eval": "texts on both sides are always processed",
    },
    "textvqa": {
        "llava": "the m4c processor on both sides",
        "lmms-eval": "as llava",
        "vlmevalkit": "texts on both sides are always processed; a period after a digit stays",
    },
    "gqa": {
        "official": "equal as they are",
        "llava": "trailing periods dropped and lower-cased, then official",
        "lmms-eval": "case ignored, ASCII punctuation dropped",
        "vlmevalkit": "outer white space dropped, case ignored",
    },
    "pope": {
        "official": "a no-word in the first sentence is no, everything else is yes",
        "llava": "as official",
        "lmms-eval": "the whole answer is yes or no, else wrong and left out of recall",
        "vlmevalkit": "yes or no, not both, as a word; unknown is wrong, in F1 not yes",
        "strict": "yes or no, да or нет, not both, as a word; unknown is wrong, in F1 not yes",
        "strict-unknown-yes": "as strict, unknown counts as yes",
        "strict-unknown-no": "as strict, unknown counts as no",
    },
    "ocr": {
        "verbatim": "equal signs; runs of white space are one space",
        "folded": "also ignores case, ё for е and the shape of quotes and dashes",
        "lookalike": "as folded; in a Cyrillic word, Latin letters of the same shape count",
    },
}
"""Benchmark → dialect → what it does; the first dialect is the one taken when none is named.

POPE's `strict…` and all of OCR's are this project's own.
"""


def require(benchmark: str, dialect: str) -> None:
    """Refuse a dialect that is not defined for a benchmark.

    Raises:
        SettingError: says which ones are.
    """
    defined = DIALECTS[benchmark]
    if dialect not in defined:
        owner = PUBLISHED.get(dialect)
        reason = f"{owner} defines no scoring of {benchmark}" if owner else "there is no such name"
        raise SettingError(
            f"dialect {dialect!r} for {benchmark}: {reason}; expected one of {', '.join(defined)}"
        )
