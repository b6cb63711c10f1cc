"""Benchmark questions to left-padded batches of prompts."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from lightning.fabric.utilities.apply_func import move_data_to_device
from torch.utils.data import Dataset

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.data.collate import Row, collate_padded
from lightning_llava.data.images import ImageTransform
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.geometry import VisionGeometry
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn


@dataclass
class QuestionBatch:
    """Prompts ready for generation, with the questions they belong to."""

    prompts: Batch
    questions: list[list[Question]]
    """Per prompt, the identical questions that its answer serves."""
    texts: list[str]
    """The prompts as text, exactly as the model gets them."""

    def pin_memory(self) -> "QuestionBatch":
        """Copy the tensors to pinned memory; torch's loader calls this."""
        return replace(self, prompts=self.prompts.pin_memory())

    def to(self, device: Any, **kwargs: Any) -> "QuestionBatch":
        """Move the tensors (Lightning calls this); the questions stay."""
        return replace(self, prompts=move_data_to_device(self.prompts, device))


Item = tuple[Row, list[Question], str]
"""A prompt with its pixels, the identical questions it stands for, and its text."""


class QuestionDataset(Dataset[Item]):
    """Distinct questions as tokenised prompts with pixels.

    Args:
        groups: identical questions together, as `group_identical` gives them.
        encoder: the LLM's template.
        transform: image bytes to pixels.
        geometry: features per image.
        short_answer: append the template's short-answer prompt in the question's language.
        length: prompts in all; those beyond the groups ask again and serve no question.
    """

    def __init__(
        self,
        groups: Sequence[list[Question]],
        encoder: ConversationEncoder,
        transform: ImageTransform,
        geometry: VisionGeometry,
        short_answer: bool,
        length: int,
    ) -> None:
        self.groups, self.length = groups, length
        self.encoder, self.transform, self.geometry = encoder, transform, geometry
        self.short_answer = short_answer

    def __len__(self) -> int:
        """Count the prompts: on every rank as many."""
        return self.length

    def __getitem__(self, index: int) -> Item:
        """Tokenise one question and decode its image."""
        group = self.groups[index % len(self.groups)]
        question = group[0]
        suffix = self.encoder.template.short_answer[question.language] if self.short_answer else ""
        images = [question.image] if question.image is not None else []
        turns = [Turn("user", f"{IMAGE_PLACEHOLDER}\n" * len(images) + question.text + suffix)]
        ids, text = self.encoder.prompt(turns, len(images))
        try:
            pixels = [self.transform(image.read_bytes()) for image in images]
        except (SettingError, OSError) as error:
            raise SettingError(
                f"question {question.question_id} of {question.benchmark}: {images[0]}: {error}"
            ) from error
        labels = np.full_like(ids, IGNORE_INDEX)
        served = group if index < len(self.groups) else []
        return Row(question.question_id, ids, labels, pixels), served, text

    def collate(self, items: Sequence[Item]) -> QuestionBatch:
        """Pad the prompts on the left, where generation wants it."""
        rows, groups, texts = zip(*items, strict=True)
        prompts = collate_padded(
            rows, self.geometry.image_tokens, self.geometry.image_size, left=True
        )
        return QuestionBatch(prompts, list(groups), list(texts))
