"""`--format hf`: a folder for transformers' LlavaForConditionalGeneration."""

from pathlib import Path

import torch

from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder


def export_hf(
    trained: Trained, encoder: ConversationEncoder, folder: Path, dtype: torch.dtype
) -> None:
    """Write merged weights, config, processor, chat template and generation settings."""
    raise NotImplementedError
