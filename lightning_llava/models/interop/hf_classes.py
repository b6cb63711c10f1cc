"""transformers' classes of LLaVA 1.5 and, for pictures of any resolution, of LLaVA 1.6."""

from dataclasses import dataclass
from typing import Any

from transformers import (
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaImageProcessorPil,
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    LlavaProcessor,
)

from lightning_llava.specs import VisionSpec


@dataclass(frozen=True)
class Classes:
    """The classes of a model that belong together."""

    config: type[Any]
    model: type[Any]
    processor: type[Any]
    image_processor: type[Any]

    @property
    def name(self) -> str:
        """What people load."""
        return self.model.__name__


SQUARES = Classes(
    LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, LlavaImageProcessorPil
)
TILES = Classes(
    LlavaNextConfig,
    LlavaNextForConditionalGeneration,
    LlavaNextProcessor,
    LlavaNextImageProcessorPil,
)


def classes_of(spec: VisionSpec) -> Classes:
    """Choose by how a tower is shown pictures."""
    return TILES if spec.any_resolution else SQUARES
