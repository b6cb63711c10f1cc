"""Translation models: MarianMT, NLLB, M2M-100, mBART, MADLAD and others with an encoder."""

import sys
import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.context import extract, in_context
from lightning_llava.evaluation.translation.model_source import ModelSource
from lightning_llava.evaluation.translation.translator import Language
from lightning_llava.text.tokenizer import special_id

LENGTH_FACTOR = 3
SPARE = 10
"""A translation may have `LENGTH_FACTOR` times the tokens of the batch's longest text, and ten."""

_CODES = {"en": ("eng_Latn", "en_XX", "__en__"), "ru": ("rus_Cyrl", "ru_RU", "__ru__")}
"""Language tokens of NLLB, mBART and M2M-100: before the source, and first in the target."""
_PREFIXES = {"en": ("<2en>", ">>eng<<"), "ru": ("<2ru>", ">>rus<<")}
"""Target tokens, before the source, of MADLAD and of Marian models with several targets."""
_MARIAN = {"en": {"en", "eng"}, "ru": {"ru", "rus"}}


class Seq2SeqTranslator:
    """Beam search with a Hugging Face sequence-to-sequence model.

    Args:
        source: the model.
        beams: beams.
        batch_size: texts at once.

    Raises:
        SettingError: the model cannot be loaded.
    """

    def __init__(self, source: ModelSource, beams: int, batch_size: int) -> None:
        self._source = source
        self._beams = beams
        self._batch_size = batch_size
        with warnings.catch_warnings():
            # The name says whether sacremoses, which this recommends, was there.
            warnings.filterwarnings("ignore", message="Recommended: pip install sacremoses")
            self.tokenizer: Any = source.load(AutoTokenizer)
        self.model: Any = source.load_model(AutoModelForSeq2SeqLM)
        # Marian's would end what does not end by itself, and hide that.
        self.model.generation_config.forced_eos_token_id = None
        self._positions = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        is_marian = self.model.config.model_type == "marian"
        moses = ", sacremoses" if is_marian and find_spec("sacremoses") else ""
        self.name = f"{source.version}, {beams} beams{moses}"

    def translate(
        self,
        texts: Sequence[str],
        source: Language,
        target: Language,
        context: Sequence[str | None] = (),
    ) -> list[str]:
        """Translate texts; an answer goes as `question? Answer.`, and is cut out again.

        Raises:
            SettingError: the model translates other languages.
        """
        self._check_direction(source, target)
        pairs = list(zip(texts, context or [None] * len(texts), strict=True))
        written = [text if asked is None else in_context(asked, text) for text, asked in pairs]
        said: list[str] = []
        for start in range(0, len(written), self._batch_size):
            said += self._generate(written[start : start + self._batch_size], source, target)
        return [
            text if asked is None else extract(text, asked, answer)
            for text, (answer, asked) in zip(said, pairs, strict=True)
        ]

    @torch.inference_mode()
    def _generate(self, texts: list[str], source: Language, target: Language) -> list[str]:
        prefix, settings = self._prefix(target), {}
        if code := self._code(source):
            self.tokenizer.src_lang = code.strip("_")
        if code := self._code(target):
            settings["forced_bos_token_id"] = special_id(self.tokenizer, code)
        batch = self.tokenizer(
            [prefix + text for text in texts], padding=True, return_tensors="pt"
        ).to(self.model.device)
        longest = batch["input_ids"].shape[1]
        if longest > self.tokenizer.model_max_length:
            if len(texts) == 1:
                return [""]  # a part of it, translated, would pass for the whole
            return [said for text in texts for said in self._generate([text], source, target)]
        ids = self.model.generate(
            **batch,
            num_beams=self._beams,
            do_sample=False,
            max_new_tokens=min(LENGTH_FACTOR * longest + SPARE, self._positions - 1),
            **settings,
        )
        texts = self.tokenizer.batch_decode(ids, skip_special_tokens=True)
        # What never ended is a loop or torn off.
        ended = (ids[:, 1:] == self.tokenizer.eos_token_id).any(dim=1).tolist()
        return [text.strip() if whole else "" for text, whole in zip(texts, ended, strict=True)]

    def _code(self, language: Language) -> str | None:
        return next(self._known(_CODES[language]), None)

    def _prefix(self, target: Language) -> str:
        return next((f"{token} " for token in self._known(_PREFIXES[target])), "")

    def _known(self, tokens: Sequence[str]) -> Iterator[str]:
        return (token for token in tokens if special_id(self.tokenizer, token) is not None)

    def _check_direction(self, source: Language, target: Language) -> None:
        if self.model.config.model_type != "marian" or self._prefix(target):
            return
        ends = (self.tokenizer.source_lang, self.tokenizer.target_lang)
        wrong = [
            end
            for end, wanted in zip(ends, (source, target), strict=True)
            if end and end not in _MARIAN[wanted]
        ]
        if wrong:
            raise SettingError(
                f"{self._source.setting}: {self._source.written!r} translates from {ends[0]} into "
                f"{ends[1]}, expected from {source} into {target}; name the model of that direction"
            )
