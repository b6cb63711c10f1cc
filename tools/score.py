"""Score answers without a model: `python tools/score.py --help`."""

import sys
from collections.abc import Sequence

from lightning_llava.errors import explains_wrong_input
from lightning_llava.evaluation.rescoring.command import run


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    return run(arguments)


if __name__ == "__main__":
    sys.exit(main())
