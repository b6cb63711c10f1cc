"""Ask a model the questions of benchmarks: `python tools/evaluate.py --help`."""

import sys
from collections.abc import Sequence

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.command import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    try:
        return run(arguments)
    except SettingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
