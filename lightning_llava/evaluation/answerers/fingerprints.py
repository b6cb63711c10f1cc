"""Hashes of weights and settings: kept answers are used again only where all of these are equal."""

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from lightning_llava.data.storage import user_cache
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.hub import explain_loading, resolve

READ = ("*.json", "*.model", "*.txt", "*.jinja")
"""What transformers reads of a folder beside the weights."""
WEIGHTS = ("model*.safetensors",)
OLD_WEIGHTS = ("pytorch_model*.bin",)
"""Only ever loaded with `weights_only`."""
FRESH_S = 2.0
"""A file younger than this may change again without its times telling."""


def fingerprint(**facts: Any) -> str:
    """Hash facts, and the versions of the libraries that turn them into answers.

    An update of torch or transformers may change preprocessing, prompts or kernels: answers of two
    versions in one report would be the result of neither.
    """
    versions = {package: version(package) for package in ("torch", "transformers")}
    text = json.dumps(facts | versions, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def local_folder(name: str, revision: str | None, setting: str, old_weights: bool = False) -> Path:
    """Return the folder with a model's files; a hub name is downloaded, or found in the cache.

    Args:
        name: folder or hub name.
        revision: of the hub.
        setting: argument or key that it was given as.
        old_weights: also take weights that are not safetensors, where there are no others.

    Raises:
        SettingError: no such folder or hub repository, or it holds no weights.
    """
    folder = Path(resolve(name, setting))
    if not folder.is_dir():
        with explain_loading(name, setting):
            folder = Path(
                snapshot_download(name, revision=revision, allow_patterns=[*READ, *WEIGHTS])
            )
        if old_weights and not _files(folder, WEIGHTS):
            with explain_loading(name, setting):
                snapshot_download(name, revision=revision, allow_patterns=list(OLD_WEIGHTS))
    wanted = (*WEIGHTS, *OLD_WEIGHTS) if old_weights else WEIGHTS
    if not _files(folder, wanted):
        raise SettingError(
            f"{setting}: no weights in {str(folder)!r}, expected {' or '.join(wanted)}; give the "
            "folder of a saved model"
        )
    return folder


def hash_folder(folder: Path) -> str:
    """Hash the names and bytes of all files that decide what a model computes."""
    weights = _files(folder, WEIGHTS) or _files(folder, OLD_WEIGHTS)
    # Some processors keep a second tokenizer in a folder below.
    below = [pattern for name in READ for pattern in (name, f"*/{name}")]
    return hash_files({str(f.relative_to(folder)): f for f in [*weights, *_files(folder, below)]})


def hash_files(files: Mapping[str, Path]) -> str:
    """Hash the names and bytes of files; the hashes of those that did not change are remembered."""
    known, fresh, digests = _read_cache(), {}, {}
    for name, file in files.items():
        path, now = file.resolve(), time.time()
        status = _status(path)
        entry = known.get(str(path))
        if entry is None or entry["status"] != status:
            entry = {"status": status, "sha256": hash_file(path)}
            if now - path.stat().st_mtime > FRESH_S:
                fresh[str(path)] = entry
        digests[name] = entry["sha256"]
    if fresh:
        write_atomically(_cache_file(), json.dumps(_read_cache() | fresh, indent=1))
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()


def hash_file(file: Path) -> str:
    """Hash the bytes of a file."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _files(folder: Path, patterns: Iterable[str]) -> list[Path]:
    return [file for pattern in patterns for file in folder.glob(pattern) if file.is_file()]


def _status(path: Path) -> list[int]:
    """Return numbers of which at least one differs where the content does.

    A copy can be given the times of what it replaces, but neither its inode nor the time of the
    change.
    """
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _cache_file() -> Path:
    return user_cache() / "weights.json"


def _read_cache() -> dict[str, dict[str, Any]]:
    try:
        known = json.loads(_cache_file().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return known if isinstance(known, dict) else {}
