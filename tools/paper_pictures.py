"""What `paper_in_miniature.py` draws: scores with intervals, loss curves, answered questions."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from paper_chart import GRID, INK, MUTED, PAPER, SERIES, Canvas, Colour, round_ticks
from paper_table import BLIND, KINDS, Lines, Results, headline, of_language
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_llava.evaluation.ledger import LedgerRow, read_ledger
from lightning_llava.evaluation.panels import draw_panel
from lightning_llava.evaluation.row_scores import RIGHT, row_score
from lightning_llava.evaluation.tables import LANGUAGES

LOSS = "learning/loss"
LABELS, FACET, GAP, TOP, ROW = 160, 230, 30, 92, 34
"""Pixels: of the column of names, a benchmark's width, the space between two, above, a line."""
SAMPLED = ("colour_at", "count_shape", "where")
"""VQAv2's topics of which a question is shown; OCR's first comes behind them."""


def draw_scores(results: Results, path: Path) -> None:
    """Draw a dot with its interval per model, language and benchmark, and what needs no picture."""
    models = [model for model in results if model != BLIND]
    width = LABELS + len(KINDS) * (FACET + GAP) + 20
    height = TOP + len(LANGUAGES) * (len(models) + 1) * ROW + 96
    canvas = Canvas(width, height)
    canvas.text((24, 30), "The paper in miniature: scores on pictures never seen", 19)
    bottom = height - 88
    for place, (kind, title) in enumerate(KINDS.items()):
        left = LABELS + place * (FACET + GAP)
        measure = "mean F1" if kind == "pope" else "accuracy"
        canvas.text((left, TOP - 26), title, 15)
        canvas.text((left + FACET, TOP - 26), measure, 11, MUTED, "rm")
        for tick in (0, 0.25, 0.5, 0.75, 1):
            x = left + tick * FACET
            canvas.line([(x, TOP - 10), (x, bottom)], GRID)
            canvas.text((x, bottom + 14), f"{tick:g}", 11, MUTED, "mm")
    for y, model, language in _score_rows(canvas, models):
        for place, kind in enumerate(KINDS):
            left = LABELS + place * (FACET + GAP)
            blind, found = (_found(results, name, kind, language) for name in (BLIND, model))
            if blind is not None:
                x = left + blind["value"] * FACET
                canvas.line([(x, y - ROW / 2 + 3), (x, y + ROW / 2 - 3)], INK, 1.6)
            if found is not None:
                _draw_score(canvas, left, y, found, SERIES[models.index(model)])
    _legend(canvas, models, height - 34)
    canvas.save(path)


def draw_table(lines: Lines, path: Path) -> None:
    """Draw a table with the columns model, questions, and scores with their intervals."""
    widths = [130, 110, *[190] * (len(lines[0]) - 2)]
    canvas = Canvas(sum(widths) + 48, 46 + ROW * len(lines))
    canvas.text((24, 26), "Scores, with 95 % intervals", 19)
    for y, cells in enumerate(lines):
        x, middle = 24, 46 + ROW * (y + 0.5)
        for cell, width in zip(cells, widths, strict=True):
            canvas.text((x, middle), cell, 13, MUTED if y == 0 else INK)
            x += width
        canvas.line([(24, middle + ROW / 2), (x, middle + ROW / 2)], GRID)
    canvas.save(path)


def _score_rows(canvas: Canvas, models: Sequence[str]) -> Iterator[tuple[float, str, str]]:
    """Write the names at the left; yield the height of each line, its model and its language."""
    y = TOP + 4.0
    for language, name in LANGUAGES.items():
        canvas.text((24, y), f"asked in {name}", 12, MUTED)
        for model in models:
            y += ROW
            canvas.text((36, y), model, 14)
            yield y, model, language
        y += ROW


def _draw_score(
    canvas: Canvas, left: float, y: float, found: Mapping[str, Any], colour: Colour
) -> None:
    low, value, high = (
        left + (found[key] if found[key] is not None else found["value"]) * FACET
        for key in ("low", "value", "high")
    )
    _draw_interval(canvas, y, low, high, colour)
    canvas.dot((value, y), 4.2, colour)
    # Beside the interval, on the side where there is room.
    place, anchor = ((low - 9, y), "rm") if found["value"] > 0.7 else ((high + 9, y), "lm")
    canvas.text(place, f"{found['value']:.2f}", 12, colour, anchor)


def _draw_interval(canvas: Canvas, y: float, low: float, high: float, colour: Colour) -> None:
    canvas.line([(low, y), (high, y)], colour, 2.6)
    for end in (low, high):
        canvas.line([(end, y - 5), (end, y + 5)], colour, 1.6)


def _legend(canvas: Canvas, models: Sequence[str], y: float) -> None:
    x = 30.0
    for model, colour in zip(models, SERIES, strict=False):
        _draw_interval(canvas, y, x - 8, x + 24, colour)
        canvas.dot((x + 8, y), 4.2, colour)
        canvas.text((x + 34, y), model, 12)
        x += 150
    canvas.line([(x, y - 9), (x, y + 9)], INK, 1.6)
    canvas.text((x + 10, y), "question only: commonest training answer to the words", 12)
    canvas.text((x + 380, y), "bars: 95 % intervals, pictures drawn anew", 12, MUTED)


def _found(results: Results, model: str, kind: str, language: str) -> Mapping[str, Any] | None:
    part = of_language(results[model], language).get(kind) if model in results else None
    return headline(part) if part else None


def read_losses(run: Path) -> list[tuple[int, float]]:
    """Read step and loss of a run's TensorBoard files.

    A run that went on from a checkpoint has written some steps twice; the later counts.
    """
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    if LOSS not in events.Tags()["scalars"]:
        return []
    steps = {event.step: event.value for event in events.Scalars(LOSS)}
    return sorted(steps.items())


def draw_losses(runs: Mapping[tuple[str, str], Path], path: Path) -> None:
    """Draw the loss of every stage, and of every model in it, as logged and smoothed.

    Args:
        runs: stage and model → run folder.
        path: of the picture.
    """
    stages = list(dict.fromkeys(stage for stage, _ in runs))
    models = list(dict.fromkeys(model for _, model in runs))
    width, height, wide = 60 + 480 * len(stages), 380, 400
    canvas = Canvas(width, height)
    canvas.text((24, 28), "Training loss", 19)
    for place, stage in enumerate(stages):
        curves = {model: read_losses(runs[stage, model]) for model in models}
        frame = (64 + 480 * place, 84, wide, height - 150)
        canvas.text((frame[0], 62), f"{stage} stage", 15)
        _draw_curves(canvas, frame, curves)
    for place, model in enumerate(models):
        x = 64 + 160 * place
        canvas.line([(x, height - 24), (x + 26, height - 24)], SERIES[place], 3)
        canvas.text((x + 36, height - 24), model, 12)
    canvas.save(path)


def _draw_curves(
    canvas: Canvas,
    frame: tuple[int, int, int, int],
    curves: Mapping[str, Sequence[tuple[int, float]]],
) -> None:
    left, top, width, height = frame
    points = [point for curve in curves.values() for point in curve]
    if not points:
        canvas.text((left, top + height / 2), "nothing was logged", 12, MUTED)
        return
    xs, ys = (round_ticks(max(1e-9, *column, 0)) for column in zip(*points, strict=True))
    for y in ys:
        at = top + height * (1 - y / ys[-1])
        canvas.line([(left, at), (left + width, at)], GRID)
        canvas.text((left - 8, at), f"{y:g}", 11, MUTED, "rm")
    for x in xs:
        at = left + width * x / xs[-1]
        canvas.text((at, top + height + 16), f"{x:g}", 11, MUTED, "mm")
    canvas.text((left + width, top + height + 32), "optimizer steps", 11, MUTED, "rm")
    for curve, colour in zip(curves.values(), SERIES, strict=False):
        steps, losses = np.array(curve).reshape(-1, 2).T
        pale: Any = tuple((2 * level + 3 * 255) // 5 for level in colour)
        for values, tint, thick in ((losses, pale, 1.0), (smoothed(losses), colour, 2.2)):
            px = left + width * steps / xs[-1]
            py = top + height * (1 - values / ys[-1])
            for segment in pairwise(zip(px.tolist(), py.tolist(), strict=True)):
                canvas.line(segment, tint, thick)


def smoothed(losses: np.ndarray) -> np.ndarray:
    """Return the mean of every value and its neighbours, a tenth of the curve together."""
    half = max(1, len(losses) // 20)
    return np.array([losses[max(0, i - half) : i + half + 1].mean() for i in range(len(losses))])


def draw_samples(ledgers: Mapping[str, Path], path: Path) -> None:
    """Draw some questions, a line each, as every model answered them in every language.

    Args:
        ledgers: model → ledger.
        path: of the picture.
    """
    rows = {model: read_ledger(ledger) for model, ledger in ledgers.items()}
    columns = [(model, language) for language in LANGUAGES for model in ledgers]
    by_place = {
        (model, row.language, row.kind, row.split, row.question_id): row
        for model, several in rows.items()
        for row in several
    }
    lines = [
        [_panel(by_place[model, language, *shown]) for model, language in columns]
        for shown in _shown(next(iter(rows.values())))
    ]
    width = max(panel.width for line in lines for panel in line)
    heights = [max(panel.height for panel in line) for line in lines]
    size = (len(columns) * (width + 16) + 16, sum(heights) + 16 * len(lines) + 44)
    sheet = Image.new("RGB", size, PAPER)
    heading = Canvas(sheet.width, 40)
    for place, (model, language) in enumerate(columns):
        heading.text((16 + place * (width + 16), 22), f"{model}, {LANGUAGES[language]}", 15)
    sheet.paste(heading.finished(), (0, 0))
    top = 44
    for line, height in zip(lines, heights, strict=True):
        for place, panel in enumerate(line):
            sheet.paste(panel, (16 + place * (width + 16), top))
        top += height + 16
    sheet.save(path)


def _shown(rows: Sequence[LedgerRow]) -> list[tuple[str, str, str]]:
    """Choose a question of each sort, about pictures of their own: kind, split and id."""
    chosen: dict[str | None, LedgerRow] = {}
    english = [row for row in rows if row.language == "en"]
    for wanted in (*SAMPLED, "ocr"):
        same = (
            row
            for row in english
            if wanted in (row.types.get("question_type"), row.kind) and row.image not in chosen
        )
        if (row := next(same, None)) is not None:
            chosen[row.image] = row
    return [(row.kind, row.split, row.question_id) for row in chosen.values()]


def _panel(row: LedgerRow) -> Image.Image:
    said = row.raw_answer
    if row.english is not None:
        said += f" → {row.english or '(lost)'}"
    question = row.question.partition("\n")[0]  # without the prompt for short answers
    with Image.open(row.image or "") as picture:
        return draw_panel(picture, question, said, row.label, row_score(row) >= RIGHT)
