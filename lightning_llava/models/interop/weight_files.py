"""Weights in files, read tensor by tensor: safetensors, and `.bin` without running code from it."""

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import disk_usage
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from lightning_llava.errors import SettingError

INDEX = ".index.json"
SHARD_BYTES = 4 * 10**9
"""Most bytes of a written shard, and so about what an import keeps in memory."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor that is not read yet."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


Tensors = dict[str, StoredTensor]
"""By name, in the order of the file."""


def stored(tensor: Tensor) -> StoredTensor:
    """Wrap a tensor that is there already."""
    return StoredTensor(tuple(tensor.shape), lambda: tensor)


def read_file(path: Path, setting: str) -> Tensors:
    """List the tensors of a file.

    Args:
        path: `.safetensors`, or what `torch.save` wrote of a dictionary of tensors.
        setting: what the user named it by, for the error.

    Raises:
        SettingError: no such file, or one that is cut off, holds code or is no file of weights.
    """
    if not path.is_file():
        raise SettingError(f"{setting}: the file {str(path)!r} does not exist")
    if path.suffix == ".safetensors":
        return _read_safetensors(path, setting)
    content = _load_pickled(path, setting)
    wrong = (
        [str(name) for name, value in content.items() if not isinstance(value, Tensor)]
        if isinstance(content, dict)
        else [type(content).__name__]
    )
    if wrong:
        raise SettingError(
            f"{setting}: {str(path)!r} holds {', '.join(wrong[:3])}, which are no tensors; "
            "expected a file that maps names to tensors"
        )
    return {name: stored(value.detach()) for name, value in content.items()}


def find_weights(folder: Path, stem: str) -> list[Path]:
    """Name what holds a folder's weights, safetensors before `.bin`: an index, a file, or nothing.

    Args:
        folder: where they are.
        stem: `model`, `adapter_model`, … ; for `model`, torch's `pytorch_model` is another name.
    """
    old = "pytorch_model" if stem == "model" else stem
    names = [f"{stem}.safetensors{INDEX}", f"{stem}.safetensors", f"{old}.bin{INDEX}", f"{old}.bin"]
    return [folder / name for name in names if (folder / name).is_file()][:1]


def read_weights(folder: Path, stem: str, setting: str) -> Tensors:
    """List the tensors of a folder, of all its shards.

    Raises:
        SettingError: there are none, or a shard is missing or damaged.
    """
    found = find_weights(folder, stem)
    if not found:
        raise SettingError(
            f"{setting}: {str(folder)!r} has no {stem}.safetensors or .bin and no index of shards; "
            "give the folder with the weights"
        )
    if not found[0].name.endswith(INDEX):
        return read_file(found[0], setting)
    places = _read_index(found[0], setting)
    tensors: Tensors = {}
    for shard in dict.fromkeys(places.values()):
        tensors |= read_file(folder / shard, f"{setting}, {found[0].name}")
    if lost := sorted(places.keys() - tensors.keys()):
        raise SettingError(
            f"{setting}: {found[0].name} promises {len(lost)} weights that are in no shard "
            f"(first: {lost[0]}); the folder is incomplete, or its files are of two models"
        )
    return tensors


def save_weights(folder: Path, tensors: Tensors, shard_bytes: int = SHARD_BYTES) -> None:
    """Write `model.safetensors`, or shards with their index, never holding more than a shard.

    Args:
        folder: where to.
        tensors: what to write.
        shard_bytes: most bytes of a shard; a larger tensor gets one of its own.
    """
    shards: list[list[str]] = []
    waiting: dict[str, Tensor] = {}
    size = total = 0
    for name, tensor in tensors.items():
        value = tensor.read()
        if waiting and size + value.nbytes > shard_bytes:
            _save_shard(folder, waiting, shards)
            waiting, size = {}, 0
        # Of its own: what is mapped from a file, or shares memory, cannot be written.
        waiting[name] = value.clone(memory_format=torch.contiguous_format)
        size, total = size + value.nbytes, total + value.nbytes
    _save_shard(folder, waiting, shards)
    if len(shards) == 1:
        (folder / _unnumbered(1)).replace(folder / "model.safetensors")
        return
    places = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        (folder / _unnumbered(number)).replace(folder / file)
        places |= dict.fromkeys(names, file)
    index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(places.items()))}
    write_json(folder / f"model.safetensors{INDEX}", index)


def read_json(path: Path, setting: str) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SettingError: no such file, or no JSON object in it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingError(
            f"{setting}: {str(path)!r} cannot be read as JSON ({error}); the file is missing or "
            "cut off"
        ) from error
    if not isinstance(content, dict):
        raise SettingError(f"{setting}: {str(path)!r} holds no JSON object")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a JSON object that people can read."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read_safetensors(path: Path, setting: str) -> Tensors:
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, setting, error) from error
    return {
        name: StoredTensor(shape, partial(_read_one, path, name)) for name, shape in shapes.items()
    }


def _read_one(path: Path, name: str) -> Tensor:
    with safe_open(path, "pt") as file:
        return file.get_tensor(name)


def _load_pickled(path: Path, setting: str) -> Any:
    """Map the file into memory where its format allows; old ones are read as a whole."""
    with path.open("rb") as file:
        zipped = file.read(4) == b"PK\x03\x04"
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except pickle.UnpicklingError as error:
        # torch's own words advise to load with code execution on.
        if "Unsupported global" not in str(error) and "unsupported" not in str(error).lower():
            raise _damaged(path, setting, error) from error
        raise SettingError(
            f"{setting}: {str(path)!r} holds code or objects beside tensors, and was not loaded; "
            "take a safetensors version of it, or another source"
        ) from error
    except Exception as error:  # torch raises half a dozen kinds for a damaged file
        raise _damaged(path, setting, error) from error


def _damaged(path: Path, setting: str, error: Exception) -> SettingError:
    return SettingError(
        f"{setting}: {str(path)!r} ({path.stat().st_size:,} bytes) is cut off, or no file of "
        f"weights ({type(error).__name__}); download it again, and compare its size or hash"
    )


def _read_index(path: Path, setting: str) -> dict[str, str]:
    places = read_json(path, setting).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise SettingError(f"{setting}: {str(path)!r} has no weight_map of names to shards")
    # A name with a folder in it would reach out of this one.
    wrong = [shard for shard in places.values() if Path(str(shard)).name != shard]
    wrong = wrong or [s for s in dict.fromkeys(places.values()) if not (path.parent / s).is_file()]
    if wrong:
        raise SettingError(
            f"{setting}: {path.name} names {len(wrong)} shards that are not in the folder "
            f"(first: {wrong[0]!r}); the download is incomplete"
        )
    return places


def _save_shard(folder: Path, tensors: dict[str, Tensor], shards: list[list[str]]) -> None:
    shards.append(list(tensors))
    try:
        save_file(tensors, folder / _unnumbered(len(shards)), metadata={"format": "pt"})
    except (SafetensorError, OSError) as error:
        raise SettingError(
            f"--output: cannot write {sum(t.nbytes for t in tensors.values()):,} bytes ({error}); "
            f"the disk has {disk_usage(folder).free:,} free"
        ) from error


def _unnumbered(number: int) -> str:
    return f".shard-{number}"
