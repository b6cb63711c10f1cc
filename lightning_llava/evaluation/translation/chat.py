"""A chat model as a translator."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.model_source import ModelSource
from lightning_llava.evaluation.translation.seq2seq import LENGTH_FACTOR, SPARE
from lightning_llava.evaluation.translation.translator import Language

_NAMES = {"en": "English", "ru": "Russian"}
_WHOLE = (
    "Translate the text from {source} into {target}. Reply with the translation and nothing else."
    "\n\n{text}"
)
_ANSWER = (
    "A question in {source} and its answer:\n\n{context}\n{text}\n\nTranslate the answer, not the "
    "question, into {target}. Reply with the translation and nothing else."
)


class ChatTranslator:
    """Asks a causal model through its chat template, greedily.

    Args:
        source: the model.
        batch_size: texts at once.

    Raises:
        SettingError: the model cannot be loaded, or has no chat template.
    """

    def __init__(self, source: ModelSource, batch_size: int) -> None:
        self._batch_size = batch_size
        self.tokenizer: Any = source.load(AutoTokenizer, padding_side="left")
        if not self.tokenizer.chat_template:
            raise SettingError(
                f"{source.setting}: the tokenizer of {source.written!r} has no chat template, "
                "expected a translation model or a chat model"
            )
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        self.model: Any = source.load_model(AutoModelForCausalLM)
        self.name = f"{source.version}, chat"

    def translate(
        self,
        texts: Sequence[str],
        source: Language,
        target: Language,
        context: Sequence[str | None] = (),
    ) -> list[str]:
        """Translate texts; an answer is shown with its question."""
        pairs = list(zip(texts, context or [None] * len(texts), strict=True))
        languages = {"source": _NAMES[source], "target": _NAMES[target]}
        prompts = [
            (_ANSWER if asked else _WHOLE).format(text=text, context=asked, **languages)
            for text, asked in pairs
        ]
        said: list[str] = []
        for start in range(0, len(prompts), self._batch_size):
            part = slice(start, start + self._batch_size)
            said += self._generate(prompts[part], texts[part])
        return said

    @torch.inference_mode()
    def _generate(self, prompts: list[str], texts: Sequence[str]) -> list[str]:
        batch = self.tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for prompt in prompts],
            add_generation_prompt=True,
            padding=True,
            return_tensors="pt",
            return_dict=True,
        ).to(self.model.device)
        longest = max(len(self.tokenizer(text)["input_ids"]) for text in texts)
        ids = self.model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=LENGTH_FACTOR * longest + SPARE,
            pad_token_id=self.tokenizer.pad_token_id,
        )[:, batch["input_ids"].shape[1] :]
        stops = self.model.generation_config.eos_token_id
        stops = torch.tensor(stops if isinstance(stops, list) else [stops], device=ids.device)
        ended = torch.isin(ids, stops).any(dim=1).tolist()
        said = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [text.strip() if whole else "" for text, whole in zip(said, ended, strict=True)]
