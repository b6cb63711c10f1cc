"""Where a model name points to, and one clear sentence when it points nowhere."""

from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError

from lightning_llava.errors import SettingError


def resolve(name: str, setting: str) -> str:
    """Return a folder for what looks like a path, and hub names unchanged.

    Args:
        name: a hub repository (`openai/clip-vit-large-patch14-336`) or a folder.
        setting: the key the user wrote it under, for the error.

    Raises:
        SettingError: `name` is spelled like a path, but no such folder exists.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    looks_like_path = name.startswith(("/", "./", "../", "~")) or name.count("/") != 1
    if looks_like_path and name.count("/") > 0:
        raise SettingError(
            f"{setting}: the folder {name!r} does not exist; "
            f"{nearest_folder(name)}give an existing folder or a hub name"
        )
    return name


@contextmanager
def explain_loading(name: str, setting: str) -> Iterator[None]:
    """Turn the long errors of hub downloads and folder reads into one sentence with the setting."""
    try:
        yield
    except (OSError, ValueError, KeyError, ImportError, StrictDataclassError) as error:
        if isinstance(error, SettingError):
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        # A line that ends in a colon says nothing without those behind it.
        found = " ".join(lines) if lines and lines[0].endswith(":") else next(iter(lines), "")
        raise SettingError(
            f"{setting}: could not load {name!r} ({found[:300] or type(error).__name__}); "
            f"{nearest_folder(name)}check the spelling, or give a folder that holds the files"
        ) from error


def nearest_folder(name: str) -> str:
    """Ask whether a folder beside it was meant; nothing for an existing or an unlike one."""
    path = Path(name).expanduser()
    if path.is_dir() or "/" not in name:
        return ""
    beside = [other.name for other in path.parent.glob("*") if other.is_dir()]
    meant = get_close_matches(path.name, beside, 1)
    return f"did you mean {path.with_name(meant[0])}? If not, " if meant else ""


def check_complete(loading_info: dict[str, Any], name: str, setting: str) -> None:
    """Refuse weights that leave a part at its random initial values; transformers only logs them.

    Raises:
        SettingError: naming the first of the missing or differently shaped weights.
    """
    missing = sorted(loading_info["missing_keys"]) + sorted(
        map(str, loading_info["mismatched_keys"])
    )
    if missing:
        raise SettingError(
            f"{setting}: {name!r} lacks {len(missing)} weights of its own architecture "
            f"(first: {missing[0]}); "
            "the folder is incomplete, or holds another model than its config.json says"
        )
