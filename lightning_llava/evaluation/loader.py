"""Benchmark questions to prompts, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from multiprocessing.context import BaseContext
from operator import itemgetter
from typing import Any

import numpy as np
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lightning_llava.batch import IGNORE_INDEX
from lightning_llava.data.collate import Row, expand_placeholders, stack_pixels
from lightning_llava.data.images import ImageTransform, Pictures
from lightning_llava.data.workers import outlive_signals
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.geometry import VisionGeometry
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn
from lightning_llava.tiling import Size


@dataclass
class QuestionBatch:
    """The distinct questions about one image as prompts, with the questions they belong to."""

    pixel_values: UInt8[Tensor, "images 3 height width"]
    """Raw pixels of what all prompts are about; none for plain text."""
    image_sizes: list[Size]
    """Of the images, before they were resized."""
    prompts: list[list[int]]
    """Ids with every image's placeholders expanded."""
    questions: list[list[Question]]
    """Per prompt, the identical questions that its answer serves."""
    texts: list[str]
    """The prompts as text, exactly as the model gets them."""
    at_once: int
    """Most prompts in a pass."""

    def pin_memory(self) -> "QuestionBatch":
        """Copy the pixels to pinned memory; torch's loader calls this."""
        return replace(self, pixel_values=self.pixel_values.pin_memory())

    def to(self, device: Any, **kwargs: Any) -> "QuestionBatch":
        """Move the pixels (Lightning calls this); the rest is small."""
        return replace(self, pixel_values=self.pixel_values.to(device, **kwargs))


class QuestionDataset(Dataset[QuestionBatch]):
    """Distinct questions as tokenised prompts, with the pixels of their image.

    Args:
        groups: the questions about one image together, as `share` gives them.
        encoder: the LLM's template.
        transform: image bytes to pixels.
        geometry: features per image.
        short_answer: append the template's short-answer prompt in the question's language, where
            the kind of benchmark has one.
        at_once: most questions in a pass.
        length: batches in all; those beyond the groups ask again and serve no question. None: as
            many as groups.
    """

    def __init__(
        self,
        groups: Sequence[list[list[Question]]],
        encoder: ConversationEncoder,
        transform: ImageTransform,
        geometry: VisionGeometry,
        short_answer: bool,
        at_once: int,
        length: int | None = None,
    ) -> None:
        self.groups, self.length = groups, len(groups) if length is None else length
        self.encoder, self.transform, self.geometry = encoder, transform, geometry
        self.short_answer, self.at_once = short_answer, at_once

    def __len__(self) -> int:
        """Count the images, the batches of questions without one, and what fills up."""
        return self.length

    def __getitem__(self, index: int) -> QuestionBatch:
        """Tokenise the questions about one image and decode it."""
        group = self.groups[index % len(self.groups)]
        pictures = self._pictures(group[0][0])
        rows, texts = zip(*(self._prompt(same[0], pictures) for same in group), strict=True)
        ids = [expand_placeholders(row, self.geometry.image_tokens)[0].tolist() for row in rows]
        pixel_values = stack_pixels(rows[:1], self.geometry.image_size)
        served = group if index < len(self.groups) else [[] for _ in group]
        return QuestionBatch(pixel_values, pictures.sizes, ids, served, list(texts), self.at_once)

    def _pictures(self, question: Question) -> Pictures:
        if question.image is None:
            return Pictures()
        try:
            return self.transform.prepare([question.image.read_bytes()])
        except (SettingError, OSError) as error:
            raise SettingError(
                f"question {question.question_id} of {question.benchmark}: {question.image}: "
                f"{error}"
            ) from error

    def _prompt(self, question: Question, pictures: Pictures) -> tuple[Row, str]:
        turns = question_turns(question, self.encoder, self.short_answer)
        ids, text = self.encoder.prompt(turns, len(pictures.sizes))
        counts = self.encoder.count_features(pictures.sizes)
        labels, pixels = np.full_like(ids, IGNORE_INDEX), pictures.pixels
        return Row(question.question_id, ids, labels, pixels, pictures.sizes, counts), text


def question_loader(
    dataset: QuestionDataset,
    num_workers: int,
    pin_memory: bool,
    context: BaseContext | None = None,
) -> DataLoader[Any]:
    """Wrap questions in torch's loader.

    Args:
        dataset: an item is all questions about an image.
        num_workers: processes.
        pin_memory: copy batches through pinned memory.
        context: how the processes start; None as usual.
    """
    return DataLoader(
        dataset,
        # By name: Lightning builds the loader anew for `predict`.
        batch_size=1,
        num_workers=num_workers,
        collate_fn=itemgetter(0),
        pin_memory=pin_memory,
        worker_init_fn=outlive_signals,
        multiprocessing_context=context,
    )


def question_turns(
    question: Question, encoder: ConversationEncoder, short_answer: bool
) -> list[Turn]:
    """Write a question as LLaVA does: the image in front, the short-answer prompt behind.

    Args:
        question: what was said before it in the same conversation stands before it.
        encoder: has the prompts.
        short_answer: append one, where the kind of benchmark takes it.
    """
    image = "" if question.image is None else f"{IMAGE_PLACEHOLDER}\n"
    asked = question.asked(encoder.template.short_answer if short_answer else None)
    first, *others = [*question.history, asked]
    texts = [image + first, *others]
    return [Turn("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]


def follow_ups(
    batch: QuestionBatch, answers: Sequence[str], encoder: ConversationEncoder
) -> QuestionBatch | None:
    """Make a batch of what is asked after these answers; only text-only questions have more turns.

    Args:
        batch: what was asked.
        answers: to its prompts.
        encoder: the LLM's template.
    """
    asked = [
        after
        for questions, answer in zip(batch.questions, answers, strict=True)
        for question in questions
        if (after := question.next_question(answer))
    ]
    if not asked:
        return None
    turns = [question_turns(question, encoder, short_answer=False) for question in asked]
    written = [encoder.prompt(each, 0) for each in turns]
    ids, texts = [prompt.tolist() for prompt, _ in written], [text for _, text in written]
    return replace(batch, prompts=ids, questions=[[question] for question in asked], texts=texts)
