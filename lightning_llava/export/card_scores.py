"""Scores for the card, from the files that this project's tools write."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning_llava.errors import SettingError

Scores = dict[str, dict[str, dict[str, float]]]
"""Benchmark → split → numbers."""


def read_scores(path: Path) -> Scores:
    """Read a report.json, or what `tools/score.py --json` printed.

    Raises:
        SettingError: no such file, or one of another kind.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(f"--scores: {str(path)!r} cannot be read ({error})") from error
    if isinstance(content, dict) and isinstance(content.get("scores"), dict):
        return content["scores"]
    if isinstance(content, dict) and {"benchmark", "dialects"} <= content.keys():
        return {
            f"{content['benchmark']}, {dialect}": _splits(numbers)
            for dialect, numbers in content["dialects"].items()
        }
    raise SettingError(
        f"--scores: {str(path)!r} has no scores; expected report.json of validate, test or "
        "tools/evaluate.py, or what tools/score.py --json printed"
    )


def _splits(numbers: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    if "splits" in numbers:
        splits = {name: _numbers(split) for name, split in numbers["splits"].items()}
        return splits | {"mean": _numbers(numbers["headline"])}
    return {"all": _numbers(numbers)}


def _numbers(split: Mapping[str, Any]) -> dict[str, float]:
    return {key: value for key, value in split.items() if isinstance(value, int | float)}
