"""Turns to ids and labels, segment by segment: what is supervised is known, never searched for.

A conversation becomes runs of text between special tokens and images. Each run is tokenised on its
own, as LLaVA tokenises the chunks around `<image>` (mm_utils.py: tokenizer_image_token): every
chunk gets its own leading "▁" from a SentencePiece tokenizer. Text from users never becomes a
special token.
"""

import pickle
import re
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int
from transformers import PreTrainedTokenizerBase

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.chat_template import derive_template
from lightning_llava.text.template import (
    Template,
    check_template,
    load_template,
    special_id,
    stop_ids,
)
from lightning_llava.text.tokenizer import adds_bos, load_tokenizer, swallows_space
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn, check_turns, place_images
from lightning_llava.tiling import Size, Tiling

SPACES = (" ", "▁")
"""What SentencePiece takes for a space at the front of a text."""


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
    image_tokens: tuple[int, ...] = ()
    """Features of each image."""

    @property
    def length(self) -> int:
        """Count the tokens after every image has been expanded."""
        return len(self.input_ids) + sum(self.image_tokens) - len(self.image_tokens)


Piece = tuple[Literal["text", "special", "content", "images", "system"], str]
"""A part of a format string, ready to be filled."""


class ConversationEncoder:
    """Writes conversations for one LLM.

    Args:
        spec: tokenizer, template, system text and greatest length.
        image_tokens: features per image, for the length.
        template: takes the place of the one that `spec` names (the align stage writes `plain`).
        tiling: any resolution: what an image takes beyond that, by its size.

    Raises:
        SettingError: the template was written for another tokenizer, or conversations end before an
            image of any resolution does.
    """

    def __init__(
        self,
        spec: LanguageSpec,
        image_tokens: int,
        template: Template | None = None,
        tiling: Tiling | None = None,
    ) -> None:
        self.tokenizer: PreTrainedTokenizerBase = load_tokenizer(spec)
        if template is None and spec.template == "auto":
            template = derive_template(self.tokenizer, spec)
        self.template = template or load_template(spec.template)
        check_template(self.template, self.tokenizer, spec)
        self.system = self.template.system if spec.system is None else spec.system
        if "system" in self.template.strip:
            self.system = self.system.strip()
        self.max_length = spec.max_length
        self.image_tokens, self.tiling = image_tokens, tiling
        if tiling and (most := image_tokens + tiling.most_tokens) >= self.max_length:
            # Not one by one when they come: all large images would be missing.
            raise SettingError(
                f"model.language.max_length is {self.max_length}, but with "
                f"model.vision.any_resolution an image alone takes up to {most} tokens; raise it "
                "(4096 in configs/pictures/any_resolution.yaml), or take large grids out of "
                "model.vision.grids"
            )
        self.stop_ids = stop_ids(self.template, self.tokenizer)
        # Special tokens are written by the template alone; "</s>" inside a question stays ordinary
        # text. On a copy: every call of `self.tokenizer` sets this switch anew.
        self._backend: Any = deepcopy(self.tokenizer.backend_tokenizer)  # a tokenizers.Tokenizer
        self._backend.add_special_tokens(self._special_tokens())  # even if nobody called them so
        self._backend.encode_special_tokens = True
        self._swallows_space = swallows_space(self.tokenizer)
        self.special_ids = {t: special_id(self.tokenizer, t) for t in self._special_tokens()}
        self._compiled: dict[str, list[Piece]] = {}

    @cached_property
    def _tokenizers(self) -> bytes:
        return pickle.dumps((self.tokenizer, self._backend))

    def __getstate__(self) -> dict[str, Any]:
        """Give every data worker the same bytes.

        A large vocabulary is then written once, and parsed when a worker has all of it, side by
        side; otherwise each would keep the next from being started for a second.
        """
        state = {**vars(self), "_tokenizers": self._tokenizers}
        del state["tokenizer"], state["_backend"]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Read in a data worker what the process that started it has written."""
        self.tokenizer, self._backend = pickle.loads(state.pop("_tokenizers"))
        self._backend.encode_special_tokens = True  # what a pickled one has lost
        vars(self).update(state)

    def encode(self, turns: Sequence[Turn], images: int | Sequence[Size]) -> Encoded:
        """Tokenise a training conversation.

        Args:
            turns: user and assistant in alternation.
            images: that the placeholders must consume: how many, or the size of each, without which
                any resolution has no lengths.

        Raises:
            SettingError: an empty answer, placeholders that do not match the images, too long even
                as one pair.
        """
        counts = self.count_features(images)
        check_turns(turns, len(counts), self.template)
        turns = place_images(turns, len(counts))
        for pairs in range(len(turns) // 2, 0, -1):
            input_ids, labels = self._tokenise(self.render(turns[: 2 * pairs]))
            placed = int((input_ids == IMAGE_TOKEN_INDEX).sum())
            dropped = len(turns) - 2 * pairs
            encoded = Encoded(input_ids, labels, dropped, counts[:placed])
            if encoded.length <= self.max_length:
                if placed != len(counts):
                    break
                return encoded
        raise SettingError(
            f"the conversation takes more than {self.max_length} tokens before its images and "
            "one whole answer are in; shorten it or raise model.language.max_length"
        )

    def prompt(
        self, turns: Sequence[Turn], num_images: int
    ) -> tuple[Int[np.ndarray, " tokens"], str]:
        """Write a conversation that ends with a question, up to where the answer begins.

        Returns:
            Ids with one `IMAGE_TOKEN_INDEX` per image, and the same as text, for people and
            ledgers.
        """
        placed = place_images(turns, num_images)
        segments = self.render([*placed, Turn("assistant", "")], open_ended=True)
        return self._tokenise(segments)[0], "".join(segment.text for segment in segments)

    def decode(self, ids: Sequence[int]) -> str:
        """Decode a generated answer up to its stop token."""
        kept = []
        for index in ids:
            if index in self.stop_ids:
                break
            kept.append(index)
        return str(self.tokenizer.decode(kept, skip_special_tokens=True)).strip()

    def count_features(self, images: int | Sequence[Size]) -> tuple[int, ...]:
        """Count the features of each image; arguments as of `encode`."""
        if self.tiling is None:
            return (self.image_tokens,) * (images if isinstance(images, int) else len(images))
        assert not isinstance(images, int), "any resolution counts by sizes"
        return tuple(self.image_tokens + self.tiling.tokens_of(size) for size in images)

    def render(self, turns: Sequence[Turn], open_ended: bool = False) -> list[Segment]:
        """Write the turns as segments; `open_ended` stops before the last answer."""
        template, parts = self.template, self._format(self.template.begin)
        if self.system and template.system_turn:
            parts += self._format(template.system_turn)
        for position, turn in enumerate(turns):
            text = turn.text.strip() if turn.role in template.strip else turn.text
            if turn.role == "user":
                if position:
                    parts += self._format(template.between)
                inside = position == 0 and self.system and template.first_user
                parts += self._format(template.first_user if inside else template.user, text)
            else:
                parts += self._format(template.assistant_prefix)
                if not (open_ended and position == len(turns) - 1):
                    parts += self._format(template.answer, text, supervised=True)
        return parts

    def _special_tokens(self) -> list[str]:
        """List what format strings may write as single ids: by name, and BOS and EOS by braces."""
        named = [self.tokenizer.bos_token, self.tokenizer.eos_token]
        return [*self.template.requires, *(str(token) for token in named if token)]

    def _format(self, pattern: str, content: str = "", supervised: bool = False) -> list[Segment]:
        """Fill one format string of the template."""
        segments: list[Segment] = []
        for kind, text in self.pieces(pattern):
            if kind == "system":
                segments.append(Segment("text", self.system, False))
            elif kind == "images":
                images = content.count(IMAGE_PLACEHOLDER)
                segments += [Segment("image", IMAGE_PLACEHOLDER, False)] * images
            elif kind == "content" and (supervised or IMAGE_PLACEHOLDER not in content):
                segments.append(Segment("text", content, supervised))
            elif kind == "content":
                for chunk in re.split(f"({IMAGE_PLACEHOLDER})", content):
                    is_image = chunk == IMAGE_PLACEHOLDER
                    segments.append(Segment("image" if is_image else "text", chunk, False))
            else:
                segments.append(Segment(kind, text, supervised))
        return segments

    def pieces(self, pattern: str) -> list[Piece]:
        """Take a format string of the template apart."""
        if pattern not in self._compiled:
            self._compiled[pattern] = self._compile(pattern)
        return self._compiled[pattern]

    def _compile(self, pattern: str) -> list[Piece]:
        """Split a format string into text, special tokens and fields."""
        tokenizer = self.tokenizer
        fields: dict[str, Piece] = {
            "{content}": ("content", ""),
            "{images}": ("images", ""),
            "{system}": ("system", ""),
            "{bos}": ("special", str(tokenizer.bos_token or "")),
            "{default_bos}": ("special", str(tokenizer.bos_token) if adds_bos(tokenizer) else ""),
            "{eos}": ("special", str(tokenizer.eos_token or "")),
            **{token: ("special", token) for token in self.template.requires},
        }
        split = re.split("(" + "|".join(map(re.escape, fields)) + ")", pattern)
        pieces = [fields.get(piece, ("text", piece)) for piece in split if piece]
        # A tokenizer without BOS writes none.
        return [piece for piece in pieces if piece != ("special", "")]

    def _tokenise(self, segments: Sequence[Segment]) -> tuple[np.ndarray, np.ndarray]:
        """Encode the segments run by run."""
        ids: list[int] = []
        supervised: list[bool] = []
        run: list[Segment] = []
        for segment in segments:
            if segment.kind == "text":
                run.append(segment)
                continue
            self._encode_run(run, ids, supervised)
            run = []
            index = IMAGE_TOKEN_INDEX if segment.kind == "image" else self.special_ids[segment.text]
            assert index is not None  # check_template saw to it
            ids.append(index)
            supervised.append(segment.supervised)
        self._encode_run(run, ids, supervised)
        input_ids = np.asarray(ids, dtype=np.int64)
        return input_ids, np.where(np.asarray(supervised, dtype=bool), input_ids, IGNORE_INDEX)

    def _encode_run(self, run: Sequence[Segment], ids: list[int], supervised: list[bool]) -> None:
        """Append the text between two special tokens or images, with its answers marked."""
        text = "".join(segment.text for segment in run)
        if not text:
            return
        # SentencePiece puts a space in front even where there is one; this tokenizer does not.
        extra = " " if self._swallows_space and text.startswith(SPACES) else ""
        encoding = self._backend.encode(extra + text, add_special_tokens=False)
        ids += encoding.ids
        if len({segment.supervised for segment in run if segment.text}) == 1:
            flag = next(segment.supervised for segment in run if segment.text)
            supervised += [flag] * len(encoding.ids)
            return
        flags = [False] * len(extra) + [s.supervised for s in run for _ in s.text]
        for start, end in encoding.offsets:
            # A lone "▁" in front of the run has no characters of its own: it belongs to what
            # follows.
            inside = set(flags[start : max(end, start + 1)])
            if len(inside) == 2:
                raise SettingError(
                    f"model.language.template: {self.template.name!r} ends its prompt inside a "
                    f"token of this tokenizer ({(extra + text)[start:end]!r}); put a line break or "
                    "a special token before the answer"
                )
            supervised.append(True in inside)
