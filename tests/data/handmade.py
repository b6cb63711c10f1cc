"""Shards and images made by hand, byte by byte, without the package's own writer."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def says(*texts: str) -> list[dict]:
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "text": text} for i, text in enumerate(texts)]


def record(name: str, turns: list[dict], num_images: int = 0, **changes) -> bytes:
    values = {"version": 1, "id": name, "turns": turns, "source": "test", "language": "en"}
    return json.dumps(values | {"boxes": [], "num_images": num_images} | changes).encode()


def picture(seed: int, size: tuple[int, int] = (20, 12), kind: str = "PNG") -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_tar(path: Path, *members: tuple[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path
