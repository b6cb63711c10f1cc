"""Hand a checkpoint on in a standard format: `python tools/export.py --help`."""

import sys
from collections.abc import Sequence

from safetensors import SafetensorError

from lightning_llava.errors import SettingError
from lightning_llava.export.command import run


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    try:
        return run(arguments)
    except (SettingError, OSError, SafetensorError) as error:  # the last of a disk that is full
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
