"""Turns to ids and labels, segment by segment: what is supervised is known, never searched for.

A conversation becomes runs of text between special tokens and images. Each run is tokenised on its
own, as LLaVA tokenises the chunks around `<image>` (mm_utils.py: tokenizer_image_token): every
chunk gets its own leading "▁" from a SentencePiece tokenizer. Text from users never becomes a
special token.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.template import (
    Template,
    check_template,
    load_template,
    special_id,
    stop_ids,
)
from lightning_llava.text.tokenizer import load_tokenizer

IMAGE_PLACEHOLDER = "<image>"


@dataclass(frozen=True)
class Turn:
    """One message of a conversation."""

    role: Literal["user", "assistant"]
    text: str


@dataclass(frozen=True)
class Segment:
    """A piece of a rendered conversation: ordinary text, a special token, or an image."""

    kind: Literal["text", "special", "image"]
    text: str
    supervised: bool


@dataclass(frozen=True)
class Encoded:
    """A tokenised conversation; an image is one `IMAGE_TOKEN_INDEX`, not yet expanded."""

    input_ids: Int[np.ndarray, " tokens"]
    labels: Int[np.ndarray, " tokens"]
    dropped_turns: int = 0
    """Turns cut from the end because the conversation was too long."""


class ConversationEncoder:
    """Writes conversations for one LLM.

    Args:
        spec: tokenizer, template, system text and greatest length.
        image_tokens: features per image, for the length.
        template: takes the place of the one that `spec` names (the align stage writes `plain`).

    Raises:
        SettingError: the template was written for another tokenizer.
    """

    def __init__(
        self, spec: LanguageSpec, image_tokens: int, template: Template | None = None
    ) -> None:
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(spec)
        self.template = template or load_template(spec.template)
        check_template(self.template, self.tokenizer, spec)
        self.system = self.template.system if spec.system is None else spec.system
        self.max_length = spec.max_length
        self.image_tokens = image_tokens
        self.stop_ids = stop_ids(self.template, self.tokenizer)
        self._backend: Any = self.tokenizer.backend_tokenizer  # a tokenizers.Tokenizer
        # Special tokens are written by the template alone; "</s>" inside a question stays ordinary
        # text.
        self._backend.encode_special_tokens = True
        named = [*self.template.requires, "{bos}", "{eos}"]
        self._special = re.compile("(" + "|".join(map(re.escape, named)) + ")")

    def encode(self, turns: Sequence[Turn], num_images: int) -> Encoded:
        """Tokenise a training conversation.

        Args:
            turns: user and assistant in alternation.
            num_images: images that the placeholders must consume.

        Raises:
            SettingError: an empty answer, placeholders that do not match the images, too long even
                as one pair.
        """
        turns = self._checked(turns, num_images)
        for pairs in range(len(turns) // 2, 0, -1):
            input_ids, labels = self._tokenise(self._render(turns[: 2 * pairs]))
            if self.length(input_ids) <= self.max_length:
                if (input_ids == IMAGE_TOKEN_INDEX).sum() != num_images:
                    break
                return Encoded(input_ids, labels, dropped_turns=len(turns) - 2 * pairs)
        raise SettingError(
            f"the conversation takes more than {self.max_length} tokens before its images and "
            "one whole answer "
            "are in; shorten it or raise model.language.max_length"
        )

    def prompt(
        self, turns: Sequence[Turn], num_images: int
    ) -> tuple[Int[np.ndarray, " tokens"], str]:
        """Write a conversation that ends with a question, up to where the answer begins.

        Returns:
            Ids with one `IMAGE_TOKEN_INDEX` per image, and the same as text, for people and
            ledgers.
        """
        placed = self._placed(turns, num_images)
        segments = self._render([*placed, Turn("assistant", "")], open_ended=True)
        return self._tokenise(segments)[0], "".join(segment.text for segment in segments)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a generated answer up to its stop token."""
        kept = []
        for index in ids:
            if index in self.stop_ids:
                break
            kept.append(index)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def length(self, input_ids: Int[np.ndarray, " tokens"]) -> int:
        """Count the tokens after every image has been expanded."""
        return len(input_ids) + int((input_ids == IMAGE_TOKEN_INDEX).sum()) * (
            self.image_tokens - 1
        )

    def _checked(self, turns: Sequence[Turn], num_images: int) -> list[Turn]:
        """Refuse what LLaVA would mask silently, and put placeholders where LLaVA puts them."""
        if not turns or len(turns) % 2:
            raise SettingError(f"{len(turns)} turns; expected pairs of question and answer")
        empty = next(
            (i for i, t in enumerate(turns) if t.role == "assistant" and not t.text.strip()), None
        )
        if empty is not None:
            raise SettingError(f"turn {empty}: the answer is empty; drop the pair or fill it in")
        if self.template.max_pairs is not None and len(turns) // 2 > self.template.max_pairs:
            raise SettingError(
                f"{len(turns) // 2} question-answer pairs; the template "
                f"{self.template.name!r} takes "
                f"{self.template.max_pairs}: set data.prompt: chat"
            )
        return self._placed(turns, num_images)

    @staticmethod
    def _placed(turns: Sequence[Turn], num_images: int) -> list[Turn]:
        """Move placeholders to the front of their turn, one a line (as preprocess_multimodal)."""
        counts = [t.text.count(IMAGE_PLACEHOLDER) if t.role == "user" else 0 for t in turns]
        if sum(counts) != num_images and sum(map(bool, counts)) == num_images:
            counts = [
                min(count, 1) for count in counts
            ]  # one image named twice in a turn is one image
        if sum(counts) != num_images:
            raise SettingError(
                f"{sum(counts)} {IMAGE_PLACEHOLDER} placeholders in the user turns but "
                f"{num_images} images"
            )
        return [
            replace(
                t, text=f"{IMAGE_PLACEHOLDER}\n" * n + t.text.replace(IMAGE_PLACEHOLDER, "").strip()
            )
            if n
            else t
            for t, n in zip(turns, counts, strict=True)
        ]

    def _render(self, turns: Sequence[Turn], open_ended: bool = False) -> list[Segment]:
        """Write the turns as segments; `open_ended` stops before the last answer."""
        template, parts = self.template, self._format(self.template.begin)
        if self.system and template.system_turn:
            parts += self._format(template.system_turn)
        for position, turn in enumerate(turns):
            if turn.role == "user":
                if position:
                    parts += self._format(template.between)
                inside = position == 0 and self.system and template.first_user
                parts += self._format(template.first_user if inside else template.user, turn.text)
            else:
                parts += self._format(template.assistant_prefix)
                if not (open_ended and position == len(turns) - 1):
                    parts += self._format(template.answer, turn.text, supervised=True)
        return parts

    def _format(self, pattern: str, content: str = "", supervised: bool = False) -> list[Segment]:
        """Fill one format string of the template."""
        content = content.strip() if self.template.strip_content else content
        segments: list[Segment] = []
        for piece in re.split(r"(\{content\}|\{images\}|\{system\})", pattern):
            if piece in ("{content}", "{images}"):
                chunks = [content] if supervised else re.split(f"({IMAGE_PLACEHOLDER})", content)
                for chunk in chunks:
                    is_image = chunk == IMAGE_PLACEHOLDER and not supervised
                    if is_image or piece == "{content}":
                        segments.append(Segment("image" if is_image else "text", chunk, supervised))
            elif piece == "{system}":
                segments.append(Segment("text", self.system, False))
            else:
                for token in self._special.split(piece):
                    segments += self._literal(token, supervised)
        return segments

    def _literal(self, piece: str, supervised: bool) -> list[Segment]:
        """Turn a piece of a format string itself into at most one segment."""
        token = {"{bos}": self.tokenizer.bos_token, "{eos}": self.tokenizer.eos_token}.get(
            piece, piece
        )
        if not token:  # nothing to write, or a tokenizer without BOS
            return []
        kind = "special" if self._special.fullmatch(piece) else "text"
        return [Segment(kind, str(token), supervised)]

    def _tokenise(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Encode the segments run by run."""
        ids: list[int] = []
        supervised: list[bool] = []
        run: list[Segment] = []
        for segment in [*segments, Segment("special", "", False)]:
            if segment.kind == "text":
                run.append(segment)
                continue
            run_ids, run_supervised = self._encode_run(run)
            ids += run_ids
            supervised += run_supervised
            run = []
            if segment.text:
                index = (
                    IMAGE_TOKEN_INDEX
                    if segment.kind == "image"
                    else special_id(self.tokenizer, segment.text)
                )
                assert index is not None  # check_template saw to it
                ids.append(index)
                supervised.append(segment.supervised)
        input_ids = np.asarray(ids, dtype=np.int64)
        return input_ids, np.where(np.asarray(supervised, dtype=bool), input_ids, IGNORE_INDEX)

    def _encode_run(self, run: Sequence[Segment]) -> tuple[list[int], list[bool]]:
        """Encode the text between two special tokens or images, and mark its answers' tokens."""
        text = "".join(segment.text for segment in run)
        if not text:
            return [], []
        encoding = self._backend.encode(text, add_special_tokens=False)
        flags = np.repeat([s.supervised for s in run], [len(s.text) for s in run])
        supervised = []
        for start, end in encoding.offsets:
            # A lone "▁" in front of the run has no characters of its own: it belongs to what
            # follows.
            span = flags[start : max(end, start + 1)]
            if span.any() and not span.all():
                raise SettingError(
                    f"model.language.template: {self.template.name!r} ends its prompt inside "
                    "a token of this tokenizer "
                    f"({text[start:end]!r}); put a line break or a special token before the answer"
                )
            supervised.append(bool(span.size) and bool(span[0]))
        return encoding.ids, supervised
