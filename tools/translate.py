"""Ask in Russian, score in English: `python tools/translate.py --help`."""

import sys
from collections.abc import Sequence

from lightning_llava.errors import explains_wrong_input
from lightning_llava.evaluation.translation.command import run


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, 2 on a wrong input, or 130 when it was stopped."""
    try:
        return run(arguments)
    except KeyboardInterrupt:
        print("stopped; the cache has what was translated, the next run goes on", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
