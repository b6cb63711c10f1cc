"""Which formats a checkpoint can be handed on in.

To add one: a module with a function that writes a folder, and a line here.
"""

from collections.abc import Callable
from pathlib import Path

import torch

from lightning_llava.models.interop.adapter import export_adapter
from lightning_llava.models.interop.hf import export_hf
from lightning_llava.models.interop.original import export_llava
from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder

Writer = Callable[[Trained, ConversationEncoder, Path, torch.dtype], None]
"""Writes a checkpoint into a folder that exists and is empty, in a type. Raises a `SettingError`
where the format cannot express the model; then the folder is thrown away."""

FORMATS: dict[str, Writer] = {
    "hf": export_hf,
    "adapter": export_adapter,
    "llava": export_llava,
}
