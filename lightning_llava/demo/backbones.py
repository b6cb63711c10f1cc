"""Mini backbones in the hub's place: a CLIP, an English and a Russian-and-English language model.

They were trained from scratch on the embedded world alone (`tools/mini_backbones.py`), the language
models on scenes described in text, or by 64 places with words for what lies there: neither has ever
met the tower. Each folder has a card. The two language models differ in architecture and width on
purpose: nothing may rely on a width that it did not read off the parts.
"""

import shutil
from pathlib import Path

PRETRAINED = Path(__file__).parent / "pretrained"
"""Where they lie, as safetensors in Hugging Face folders."""
BACKBONES = ("mini_clip", "mini_vicuna", "mini_saiga")


def write_backbones(folder: Path) -> None:
    """Copy the three folders into a folder."""
    for name in BACKBONES:
        shutil.copytree(PRETRAINED / name, folder / name)
