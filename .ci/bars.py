"""Hold a report about the miniature against what it must reach; exit 1 where it does not.

    python .ci/bars.py REPORT.json

REPORT.json is what `tools/evaluate.py -c configs/demo/benchmarks.yaml` writes. The bars are goals
that were set before anything was trained, not what was once measured.
"""

import json
import sys
from pathlib import Path
from statistics import mean

POPE = 0.90
"""Accuracy, on each split, in either language."""
TOPICS = {
    "colour": (0.90, ("colour_at", "colour_of")),
    "number": (0.85, ("count_all", "count_colour", "count_shape")),
    "place": (0.85, ("where",)),
}
"""VQAv2, mean of topics and splits: combinations that training has, and held-out ones."""
WORD = 0.60
"""Printed words, exact match, mean of the splits."""


def main() -> int:
    """Print each score beside its bar."""
    scores = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))["scores"]
    found = {
        f"{benchmark} {split}": (scores[benchmark][split]["accuracy"], POPE)
        for benchmark in ("pope", "pope_ru")
        for split in ("random", "popular", "adversarial")
    }
    for name, (bar, topics) in TOPICS.items():
        splits = [scores["vqav2"][split] for split in ("seen", "held_out")]
        found[name] = mean(split[f"accuracy_{t}"] for split in splits for t in topics), bar
    for benchmark in ("ocr", "ocr_ru"):
        found[benchmark] = scores[benchmark]["mean"]["accuracy"], WORD
    for name, (score, bar) in found.items():
        print(f"{name:20} {score:.3f}  {'reaches' if score >= bar else 'MISSES'} {bar:.2f}")
    return int(any(score < bar for score, bar in found.values()))


if __name__ == "__main__":
    sys.exit(main())
