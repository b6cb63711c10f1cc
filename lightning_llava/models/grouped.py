"""Answer all questions about the same images together.

The images are encoded once and what all prompts begin with is computed once. Then one pass over
all that is left of the prompts gives every answer's first token, and a pass per further token goes
over one token of each answer that has not ended. All lie in a single row, which keeps the prefix's
keys and values once, whatever the number of questions.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.models.grouped_probe import obstacle
from lightning_llava.models.llava import Llava
from lightning_llava.models.shared_row import SharedRow, attention_with_masks
from lightning_llava.models.tree import (
    Places,
    common_prefix,
    prefix_places,
    split_passes,
    suffix_places,
)
from lightning_llava.tiling import Size

PASS_TOKENS = 4096
"""Most tokens in a pass: what it needs beside the weights grows with their number."""

Ids = Sequence[int]


@torch.no_grad()
def answer_group(
    model: Llava,
    pixel_values: UInt8[Tensor, "images 3 height width"],
    prompts: Sequence[Ids],
    max_new_tokens: int,
    stop_ids: Sequence[int],
    at_once: int | None = None,
    image_sizes: Sequence[Size] = (),
) -> list[list[int]]:
    """Answer greedily, as `Llava.generate` would one prompt after another.

    An LLM that this cannot do exactly, as a trial shows, answers one by one; the log says why.

    Args:
        model: in eval mode, on its device.
        pixel_values: images that every prompt is about; none for plain text.
        prompts: ids with every image's placeholders expanded.
        max_new_tokens: longest answer.
        stop_ids: what ends an answer.
        at_once: most prompts in a pass; None: all.
        image_sizes: of the images, as `Llava.image_features` takes them.

    Returns:
        The new ids of each prompt, a stop id included where one was reached.
    """
    distinct = list(dict.fromkeys(map(tuple, prompts)))
    if not distinct:
        return []
    if obstacle(model, max(map(len, distinct)) + max_new_tokens) is not None:
        images = (pixel_values, image_sizes)
        found = [_answer_alone(model, images, p, max_new_tokens, stop_ids) for p in distinct]
    else:
        with attention_with_masks(model.language):
            group = _Group(model, pixel_values, image_sizes, distinct)
            found = [
                answer
                for numbers in group.passes(at_once or len(distinct))
                for answer in group.answer(numbers, max_new_tokens, set(stop_ids))
            ]
    answers = dict(zip(distinct, found, strict=True))
    return [list(answers[tuple(prompt)]) for prompt in prompts]


class _Group:
    """Prompts about the same images, whose common prefix has been run."""

    def __init__(
        self,
        model: Llava,
        pixel_values: Tensor,
        image_sizes: Sequence[Size],
        prompts: Sequence[Ids],
    ) -> None:
        self._model, self._device = model, pixel_values.device
        self._features = torch.empty(0, 1, device=self._device)
        if len(pixel_values):
            self._features = model.image_features(pixel_values, image_sizes)
        self._length = common_prefix(prompts)
        self._suffixes = [prompt[self._length :] for prompt in prompts]
        self._row = SharedRow(model.language, self._device)
        prefix = prompts[0][: self._length]
        self._used = prefix.count(IMAGE_TOKEN_INDEX)
        if prefix:
            self._row.start(self._embed(prefix, self._features[: self._used]))

    def passes(self, at_once: int) -> list[range]:
        return split_passes(list(map(len, self._suffixes)), at_once, PASS_TOKENS)

    def answer(self, numbers: range, max_new_tokens: int, stop_ids: set[int]) -> list[list[int]]:
        """Answer some of the prompts; the row then is as it was."""
        suffixes = [self._suffixes[number] for number in numbers]
        lengths = list(map(len, suffixes))
        ids = [index for suffix in suffixes for index in suffix]
        places = suffix_places(self._length, lengths, self._device)
        ends = torch.tensor(lengths).cumsum(0).to(self._device) - 1
        features = self._features[self._used :].repeat(len(suffixes), 1)
        logits = self._row.extend(places, ends, inputs_embeds=self._embed(ids, features))
        answers = [[token] for token in logits.argmax(dim=-1).tolist()]
        for step in range(max_new_tokens - 1):
            running = [i for i, answer in enumerate(answers) if answer[-1] not in stop_ids]
            if not running:
                break
            positions = [self._length + lengths[i] + step for i in running]
            for i, token in zip(running, self._next(running, positions, answers), strict=True):
                answers[i].append(token)
        self._row.cut(self._length)
        return answers

    def _next(self, running: Ids, positions: Ids, answers: list[list[int]]) -> list[int]:
        """Run the last token of every running answer; return those that follow."""
        owners, places, tokens = torch.tensor(
            [running, positions, [answers[i][-1] for i in running]], device=self._device
        )
        keep = torch.arange(len(running), device=self._device)
        logits = self._row.extend(Places(owners, places), keep, input_ids=tokens[None])
        return logits.argmax(dim=-1).tolist()

    def _embed(self, ids: Ids, features: Float[Tensor, "patches width"]) -> Tensor:
        input_ids = torch.tensor([list(ids)], device=self._device)
        return self._model.place_features(input_ids, features)


def _answer_alone(
    model: Llava,
    images: tuple[Tensor, Sequence[Size]],
    prompt: Ids,
    max_new_tokens: int,
    stop_ids: Sequence[int],
) -> list[int]:
    pixel_values, image_sizes = images
    device = pixel_values.device
    ids = torch.tensor([list(prompt)], device=device)
    batch = Batch(
        input_ids=ids,
        labels=torch.full_like(ids, IGNORE_INDEX),
        position_ids=prefix_places(len(prompt), device).positions[None],
        pixel_values=pixel_values,
        image_sizes=list(image_sizes),
        attention_mask=torch.ones_like(ids, dtype=torch.bool),
    )
    return model.generate(batch, max_new_tokens, list(stop_ids), pad_id=stop_ids[0])[0]
