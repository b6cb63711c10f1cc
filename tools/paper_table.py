"""The tables of `paper_in_miniature.py`, from what `paper_measure.py` measured."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import box
from rich.markup import escape
from rich.table import Table

from lightning_llava.demo.pope import POPE_SPLITS
from lightning_llava.demo.published import VQA_TOPICS
from lightning_llava.evaluation.benchmarks import RESERVED_SPLIT
from lightning_llava.evaluation.kinds import HEADLINE
from lightning_llava.evaluation.tables import COLUMNS, LANGUAGES, MISSING, PUBLISHED

KINDS = {**COLUMNS, "ocr": "OCR"}
"""Kind of benchmark → heading."""
BLIND = "question only"
PARTS = {
    "vqav2": "VQAv2 by topic",
    "gqa": "GQA by semantic type",
    "pope": "POPE by what the picture shows",
    "ocr": "OCR by script",
}
ORDER = [*VQA_TOPICS, "obj", "attr", "cat", "seen", "held_out", *POPE_SPLITS, "Latin", "Cyrillic"]
"""Of splits and parts, from left to right."""
LEGEND = """\
VQAv2, GQA, OCR: accuracy, the mean of pictures whose colours and shapes go together in training
(`seen`; OCR: of words that it prints) and of the others (`held_out`); POPE: mean F1 of its splits.
In brackets: 95 % interval, images drawn anew; it speaks of other pictures, not of another training
run. Questions in Russian: answers are brought back into English, but for OCR. `question only` does
not look: it gives the commonest answer that training has to the question's words."""
LEANING_LEGEND = """\
`yes`: share of answers that say yes, where yes or no is right; half of the right ones do.
`language`: share of answers in the language asked in, of those with letters (VQAv2, GQA, POPE),
and its 95 % interval.
`unread`: neither yes nor no in POPE. `MT`: the ceiling, what right answers score after the way into
Russian and back."""

Results = Mapping[str, Mapping[str, Any]]
"""Model, and `question only` → what `describe` measured of it."""
Lines = list[list[str]]
"""The cells of a table, its header first."""


def folder_of(model: str) -> str:
    """Return what the folder of a model's answers is called."""
    return model.replace(" ", "_")


def score_lines(results: Results) -> Lines:
    """Lay scores out as the paper's table 3 does: a model and a language per line."""
    lines = [["model", "questions", *KINDS.values()]]
    for model, language, found in _rows(results):
        lines.append([model, LANGUAGES[language], *(_headline(found.get(kind)) for kind in KINDS)])
    return lines


def leaning_lines(results: Results) -> Lines:
    """Say which way models lean, and what language they answer in."""
    kinds = ("vqav2", "gqa", "pope")
    header = [f"yes, {KINDS[kind]}" for kind in kinds]
    ends = ["language", "unread", "MT, VQAv2", "MT, GQA", "OCR, CER"]
    lines = [["model", "questions", *header, *ends]]
    for model, language, found in _rows(results):
        yes = [_number(found.get(kind, {}).get("yes_ratio")) for kind in kinds]
        ceilings = [_number(found.get(kind, {}).get("ceiling")) for kind in ("vqav2", "gqa")]
        unread = _number(found.get("pope", {}).get("unknown_rate"))
        error = _number(found.get("ocr", {}).get("cer"))
        spoken = _cell(results[model].get("fidelity", {}).get(language))
        lines.append([model, LANGUAGES[language], *yes, spoken, unread, *ceilings, error])
    return lines


def split_lines(results: Results) -> Lines:
    """Write the splits of every benchmark side by side."""
    return _divided(results, "splits", list(KINDS), "{kind}, {name}")


def part_lines(results: Results, kind: str) -> Lines:
    """Write a benchmark's topics, types or scripts side by side."""
    return _divided(results, "parts", [kind], "{name}")


def ablation_lines(variants: Mapping[str, Results]) -> Lines:
    """Lay variants side by side: a variant and a model per line, without intervals.

    Args:
        variants: name → results.
    """
    columns = [(language, kind) for language in LANGUAGES for kind in KINDS]
    header = [f"{KINDS[kind]} {language}" for language, kind in columns]
    lines = [["variant", "model", *header]]
    for name, results in variants.items():
        for model, measured in results.items():
            found = {language: of_language(measured, language) for language in LANGUAGES}
            cells = [_headline(found[language].get(kind), False) for language, kind in columns]
            lines.append([name, model, *cells])
    return lines


def document(results: Results) -> str:
    """Write all tables as Markdown."""
    paper = [
        f"{row.model} on {LANGUAGES[row.language]} questions "
        + " / ".join(f"{row.scores[kind]:.2f}" for kind in COLUMNS)
        for row in PUBLISHED["table3"]
    ]
    parts = [
        f"# The paper in miniature\n\n{markdown(score_lines(results))}\n\n{LEGEND}",
        f"The paper's own table 3, on the real {' / '.join(COLUMNS.values())}: {'; '.join(paper)}.",
        f"## Which way they lean\n\n{markdown(leaning_lines(results))}\n\n{LEANING_LEGEND}",
        f"## Splits, and how many questions\n\n{markdown(split_lines(results))}",
    ]
    for kind, title in PARTS.items():
        parts.append(f"## {title}\n\n{markdown(part_lines(results, kind))}")
    return "\n\n".join(parts) + "\n"


def markdown(lines: Lines) -> str:
    """Write a table."""
    header, *rest = lines
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *rest])


def terminal(lines: Lines, title: str) -> Table:
    """Show a table; an interval stands below its number."""
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    for position, heading in enumerate(lines[0]):
        justify = "left" if position < 2 else "right"
        table.add_column(heading.replace(", ", "\n"), justify=justify, no_wrap=True)
    for line in lines[1:]:
        table.add_row(*(escape(cell.replace(" (", "\n").removesuffix(")")) for cell in line))
    return table


def _rows(results: Results) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield model, language, and kind → what was measured."""
    for language in LANGUAGES:
        for model, measured in results.items():
            yield model, language, of_language(measured, language)


def of_language(measured: Mapping[str, Any], language: str) -> dict[str, Any]:
    """Return what was measured in a language, by the benchmark's kind."""
    found = measured["benchmarks"].values()
    return {part["kind"]: part for part in found if part["language"] == language}


def _divided(results: Results, way: str, kinds: Sequence[str], heading: str) -> Lines:
    asked: dict[tuple[str, str], int] = {}
    for _, _, found in _rows(results):
        for kind in kinds:
            for name, numbers in found.get(kind, {}).get(way, {}).items():
                if name != RESERVED_SPLIT:
                    asked[kind, name] = numbers[HEADLINE[kind]]["questions"]
    columns = sorted(asked, key=lambda column: (kinds.index(column[0]), ORDER.index(column[1])))
    headings = [heading.format(kind=KINDS[kind], name=name) for kind, name in columns]
    numbers = [
        f"{name} ({asked[column]:,})" for name, column in zip(headings, columns, strict=True)
    ]
    lines = [["model", "questions", *numbers]]
    for model, language, found in _rows(results):
        cells = [
            _cell(found.get(kind, {}).get(way, {}).get(name, {}).get(HEADLINE[kind]))
            for kind, name in columns
        ]
        lines.append([model, LANGUAGES[language], *cells])
    return lines


def headline(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the interval of the number that stands for a benchmark."""
    splits = part["splits"]
    return splits.get(RESERVED_SPLIT, list(splits.values())[-1])[HEADLINE[part["kind"]]]


def _headline(part: Mapping[str, Any] | None, with_interval: bool = True) -> str:
    return MISSING if part is None else _cell(headline(part), with_interval)


def _cell(found: Mapping[str, Any] | None, with_interval: bool = True) -> str:
    if found is None:
        return MISSING
    value = f"{found['value']:.3f}"
    if not with_interval or found["low"] is None or found["high"] is None:
        return value
    return f"{value} ({found['low']:.3f}–{found['high']:.3f})"


def _number(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}"
