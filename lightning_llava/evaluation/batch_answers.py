"""A batch of questions → the model's answers → ledger rows, and the rows of all processes."""

import torch.distributed as dist

from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.loader import QuestionBatch, follow_ups
from lightning_llava.models.compilation import uncompiled
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.llava import Llava
from lightning_llava.text.conversation import ConversationEncoder


@uncompiled()
def answer_batch(
    llava: Llava, batch: QuestionBatch, encoder: ConversationEncoder, max_new_tokens: int
) -> list[LedgerRow]:
    """Answer the questions about an image, and those that follow from the answers.

    Args:
        llava: the model.
        batch: its questions as prompts.
        encoder: the LLM's template.
        max_new_tokens: of an answer.
    """
    answers = answer_group(
        llava,
        batch.pixel_values,
        batch.prompts,
        max_new_tokens,
        encoder.stop_ids,
        batch.at_once,
        batch.image_sizes,
    )
    texts = [encoder.decode(ids) for ids in answers]
    rows = [
        row
        for questions, prompt, text in zip(batch.questions, batch.texts, texts, strict=True)
        for row in make_rows(questions, prompt, text)
    ]
    after = follow_ups(batch, texts, encoder)
    return rows if after is None else rows + answer_batch(llava, after, encoder, max_new_tokens)


def gather_rows(rows: list[LedgerRow], world: int) -> list[LedgerRow]:
    """Return the rows of all `world` processes, to each of them."""
    if world == 1:
        return rows
    parts: list[list[LedgerRow]] = [[] for _ in range(world)]
    dist.all_gather_object(parts, rows)
    return [row for part in parts for row in part]
