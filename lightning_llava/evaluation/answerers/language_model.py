"""A bare causal LLM, for questions without pictures, such as MT-Bench's."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.fingerprints import (
    fingerprint,
    hash_folder,
    local_folder,
)
from lightning_llava.evaluation.answerers.hugging_face import greedy
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.loader import question_turns
from lightning_llava.models.language import load_language_model
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn

MAX_NEW_TOKENS = 1024
"""FastChat's, for MT-Bench."""


class LanguageModel:
    """An LLM with a conversation template; greedy.

    Args:
        name: folder or hub name.
        device: on a GPU it computes in bf16.
        max_new_tokens: longest answer; None takes FastChat's 1024.
        template: as `model.language.template`; `auto` takes the tokenizer's own.
        revision: of the hub.

    Raises:
        SettingError: nothing loadable under that name, or a template that does not fit.
    """

    def __init__(
        self,
        name: str,
        device: torch.device,
        max_new_tokens: int | None = None,
        template: str = "auto",
        revision: str | None = None,
    ) -> None:
        self.name, self.device = name, device
        self.max_new_tokens = max_new_tokens or MAX_NEW_TOKENS
        self._folder = local_folder(name, revision, "--model", old_weights=True)
        self._spec = LanguageSpec(name=str(self._folder), template=template)
        with _as_arguments():
            self._encoder = ConversationEncoder(self._spec, image_tokens=0)
        self._dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
        # The template is in the prompt.
        self.fingerprint = fingerprint(
            model=hash_folder(self._folder),
            max_new_tokens=self.max_new_tokens,
            dtype=str(self._dtype),
            stop=self._encoder.stop_ids,
        )

    def prompt(self, question: Question) -> str:
        """Write the question in the LLM's template.

        Raises:
            SettingError: it is about a picture.
        """
        return self._encoder.prompt(self._turns(question), 0)[1]

    @torch.no_grad()
    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Answer one by one."""
        model, settings = self._loaded
        answers: list[str] = []
        for question in questions:
            ids = self._encoder.prompt(self._turns(question), 0)[0].tolist()
            prompt = torch.tensor([ids], device=self.device)
            new = model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=settings,
            )[0, len(ids) :]
            answers.append(self._encoder.decode(new.tolist()))
        return answers

    def _turns(self, question: Question) -> list[Turn]:
        if question.image is not None:
            raise SettingError(
                f"--answerer llm: question {question.question_id} of {question.benchmark} is about "
                "a picture, which an LLM cannot see; give a model that can, or a benchmark without "
                "pictures"
            )
        return question_turns(question, self._encoder, short_answer=True)

    @cached_property
    def _loaded(self) -> tuple[Any, GenerationConfig]:
        with _as_arguments():
            model: Any = load_language_model(self._spec, self._dtype, "sdpa")
        settings = greedy(model, self._encoder.tokenizer, self.max_new_tokens)
        settings.eos_token_id = self._encoder.stop_ids
        return model.to(self.device).eval(), settings


@contextmanager
def _as_arguments() -> Iterator[None]:
    """Name the arguments that the settings were given by."""
    try:
        yield
    except SettingError as error:
        said = str(error).replace("model.language.template", "--prompt")
        raise SettingError(said.replace("model.language.name", "--model")) from error
