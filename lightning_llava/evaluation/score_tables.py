"""Scores as tables: in a terminal of 80 columns, and as Markdown."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

Splits = Mapping[str, Mapping[str, float]]
"""Split (and `mean`) → numbers."""

_STRUCTURAL = ("verify", "query", "choose", "logical", "compare")
_SEMANTIC = ("obj", "attr", "cat", "rel", "global")
_PERCENTAGES = {
    "accuracy": "accuracy",
    "chance_accuracy": "chance",
    "accuracy_yes_no": "yes/no",
    "accuracy_number": "number",
    "accuracy_other": "other",
    "accuracy_binary": "binary",
    "accuracy_open": "open",
    **{f"accuracy_{name}": name for name in (*_STRUCTURAL, *_SEMANTIC)},
    "f1": "F1",
    "chance_f1": "always yes",
    "precision": "precision",
    "recall": "recall",
    "yes_ratio": "yes ratio",
    "strict": "strict",
    "normalised": "normalised",
    "lemma": "lemma",
    "mean_iou": "mean IoU",
    "cer": "CER",
    "wer": "WER",
    "mean_cer": "mean CER",
    "mean_wer": "mean WER",
    "unknown_rate": "unknown",
    "language_fidelity": "language",
    "not_in_english": "not in English",
}
_REPORT_ONLY = {
    *("precision", "recall", "mean_cer", "mean_wer"),
    *(f"accuracy_{name}" for name in (*_STRUCTURAL, *_SEMANTIC)),
}
_LEGEND = {
    "chance_accuracy": "`chance` is the accuracy of always giving the commonest right answer.",
    "chance_f1": "`always yes` is the F1 of always saying yes. English answers are read by POPE's "
    "published rule, by which all that is not no counts as yes; in other languages an unknown "
    "answer is wrong.",
    "yes_ratio": "`yes ratio` is the share of answers that say yes, where yes or no is right.",
    "accuracy_open": "Of GQA's types, `open` is the structural type query, `binary` the others.",
    "strict": "`strict`, `normalised` and `lemma` compare Russian texts more and more leniently.",
    "cer": "`CER` and `WER` are errors per character and per word.",
    "mean_iou": "A box is right from an IoU of 0.5.",
    "unknown_rate": "`unknown` is the share of answers in which nothing can be read (POPE: neither "
    "yes nor no, or both).",
    "language_fidelity": "`language` is the share of answers in the language asked for.",
    "not_in_english": "`not in English` is the share of answers that are held against English ones "
    "as they are, and so are wrong: tools/translate.py answers brings them back.",
}
_TYPE = "accuracy_"
_Part = tuple[list[str], list[list[str]]]


def rich_tables(scores: Mapping[str, Splits], bold: str) -> Group:
    """Show scores in a terminal: a line per split, chance levels beside what they belong to.

    Args:
        scores: benchmark → splits.
        bold: the split that sums up the others.
    """
    tables = [_rich_table(*part, bold) for part in _parts(scores, hidden=_REPORT_ONLY)]
    return Group(*tables, Text(_legend(scores).replace("`", ""), style="italic"))


def markdown_tables(scores: Mapping[str, Splits]) -> str:
    """Write scores as Markdown, with what the columns mean."""
    tables = []
    for header, lines in _parts(scores):
        rule = ["---", "---", *["---:"] * (len(header) - 2)]
        tables.append("\n".join(f"| {' | '.join(cells)} |" for cells in [header, rule, *lines]))
    return "\n\n".join([*tables, *_type_tables(scores), _legend(scores)]) + "\n"


def _type_tables(scores: Mapping[str, Splits]) -> Iterator[str]:
    """Write the accuracies of question types, of which VQAv2 has 65, one below the other."""
    for benchmark, splits in scores.items():
        found = {key for numbers in splits.values() for key in numbers}
        types = sorted(key for key in found - _PERCENTAGES.keys() if key.startswith(_TYPE))
        if types:
            having = [split for split, numbers in splits.items() if numbers.keys() & set(types)]
            lines = [[f"{benchmark}, accuracy", *having], ["---", *["---:"] * len(having)]]
            for key in types:
                numbers = [splits[split].get(key) for split in having]
                cells = ["" if number is None else f"{100 * number:.2f}" for number in numbers]
                lines.append([key.removeprefix(_TYPE), *cells])
            yield "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _legend(scores: Mapping[str, Splits]) -> str:
    shown = {key for splits in scores.values() for numbers in splits.values() for key in numbers}
    return " ".join(["Percentages.", *(text for key, text in _LEGEND.items() if key in shown)])


def _rich_table(header: list[str], lines: list[list[str]], bold: str) -> Table:
    # No frame, fewer numbers than in the report, and names in lines of their own: all this must
    # fit into 80 columns.
    table = Table(title="Scores in %", box=box.SIMPLE_HEAD, padding=0, title_justify="left")
    table.add_column("benchmark", no_wrap=True)
    for name in header[2:]:
        table.add_column(name, justify="right", min_width=max(map(len, name.split())))
    for position, (benchmark, split, *cells) in enumerate(lines):
        if position == 0 or lines[position - 1][0] != benchmark:
            table.add_row(benchmark)
        table.add_row(f"  {split}", *cells, style="bold" if split == bold else None)
    return table


def _parts(scores: Mapping[str, Splits], hidden: Collection[str] = ()) -> Iterator[_Part]:
    """Put benchmarks with the same columns into one table: all in one would not fit a screen."""
    columns = [key for key in _PERCENTAGES if key not in hidden]
    together: dict[tuple[str, ...], dict[str, Splits]] = defaultdict(dict)
    for benchmark, splits in scores.items():
        found = {key for numbers in splits.values() for key in numbers}
        # Answers without letters have no language, which makes them no other benchmark.
        found.add("language_fidelity")
        together[tuple(key for key in columns if key in found)][benchmark] = splits
    for keys, group in together.items():
        yield _cells(group, keys)


def _cells(scores: Mapping[str, Splits], keys: Collection[str]) -> _Part:
    header = ["benchmark", "split", "asked", *(_PERCENTAGES[key] for key in keys)]
    lines: list[list[str]] = []
    for benchmark, splits in scores.items():
        for split, numbers in splits.items():
            total = f"{numbers['total']:,}" if "total" in numbers else ""
            percentages = [f"{100 * numbers[key]:.2f}" if key in numbers else "" for key in keys]
            lines.append([benchmark, split, total, *percentages])
    return header, lines
