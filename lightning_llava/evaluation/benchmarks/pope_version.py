"""Which of POPE's two published versions some files are."""

from collections.abc import Mapping, Sequence

from lightning_llava.errors import SettingError

SPLIT_ROWS = 3000
OLD_RANDOM_ROWS = 2910
OLD_TYPING_ERROR = ("imange", "image")
"""The version e3e3926 writes the first in some of its questions."""


def version(splits: Mapping[str, Sequence[str]]) -> str:
    """Tell POPE's versions apart, by their row counts and by a typing error that one of them has.

    Args:
        splits: the questions of each, as published.

    Returns:
        One line for people, beginning with `e3e3926`, `HEAD` or `unknown`.

    Raises:
        SettingError: the splits are of different versions.
    """
    sizes = {name: len(rows) for name, rows in splits.items()}
    listed = ", ".join(f"{name} {size:,}" for name, size in sizes.items())
    typing_error = {
        name: any(OLD_TYPING_ERROR[0] in text for text in rows) for name, rows in splits.items()
    }
    if OLD_RANDOM_ROWS in sizes.values() or any(typing_error.values()):
        if sizes.get("random") == SPLIT_ROWS and not typing_error["random"]:
            raise SettingError(
                f"the splits are of different versions of POPE ({listed} rows): random is HEAD's, "
                "another is e3e3926's; give all of one"
            )
        return f"e3e3926 ({listed} rows): the version that LLaVA's paper used, not HEAD"
    if all(size == SPLIT_ROWS for size in sizes.values()):
        return f"HEAD ({listed} rows)"
    return f"unknown ({listed} rows): neither HEAD (3,000 a split) nor e3e3926 (2,910 random ones)"
