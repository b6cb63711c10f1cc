"""Mini decoders that learn, from scratch, to answer questions about scenes described in text."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from random import Random
from typing import Any

import numpy as np
import torch
from mini_map import GRID, map_of, respelt
from mini_texts import IN_SENTENCES, WEIGHTS, conversation, single
from mini_training import chunks
from torch import nn
from torch.nn.functional import cross_entropy, embedding_bag

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.demo import english, russian
from lightning_llava.demo.questions import Topic
from lightning_llava.demo.scenes import Scene, generate
from lightning_llava.demo.tokens import UNK_ID
from lightning_llava.demo.wording import Wording
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder, Encoded
from lightning_llava.text.turns import Turn

TEXT_LENGTH, MAP_LENGTH = 128, 192
"""Tokens of a training conversation, without a map and with one; what does not fit is left away."""
QUESTIONS = 6
BATCH, MICRO_BATCH = 128, 16
LESSON = 500 * BATCH
"""Conversations of the lessons that come first, one in each language, with short answers alone.
Sentences are most of the supervised tokens where they occur, and teach no lookups."""
WITH_SYSTEM = 0.25
"""Share of the conversations that start with the template's system text; of maps, the others."""
MAPS = 5 * MICRO_BATCH
"""Conversations of a step behind the lessons whose scene is a map: whole micro-batches, as each is
padded to one length."""
MAP_NOISE = 0.3
"""Of the places' embeddings, as a share of their size: what a projector gives is never exact."""
RESPELT = 0.5
"""Share of the scenes whose word has its letters in any order."""
MIXED = 0.25
"""Share of a bilingual decoder's conversations whose description may be in the other language;
maps always may, as pictures are asked about in both."""


@dataclass(frozen=True)
class Talk:
    """A conversation, and the map that takes the place of its description, if it has one."""

    encoded: Encoded
    cells: list[list[int]] | None = None
    """The tokens of each place."""


class TextLearner:
    """A decoder that learns from conversations; only answers are supervised.

    Behind the lessons most scenes are maps of 64 places, each a single position whose embedding is
    the sum of the embeddings of its words, and some noise; the others are described in sentences.
    Maps are what a decoder must be able to read that is to be joined to a tower: one of the size of
    Mistral 7B can, this one would know nothing but grammar.

    Args:
        model: the decoder.
        tokenizer: folder of its tokenizer.
        template: name of its prompt format.
        languages: that it learns.
        seed: what scenes and conversations are drawn from.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: str,
        template: str,
        languages: tuple[Wording, ...],
        seed: int,
    ) -> None:
        self.model, self.languages, self.seed = model, languages, seed
        specs = [
            LanguageSpec(tokenizer, template=template, system=system, max_length=length)
            for length in (TEXT_LENGTH, MAP_LENGTH)
            for system in ("", None)
        ]
        encoders = [ConversationEncoder(spec, image_tokens=GRID * GRID) for spec in specs]
        self.encoders, self.map_encoders = encoders[:2], encoders[2:]
        self._words: dict[str, list[int]] = {}

    @property
    def module(self) -> nn.Module:
        """The decoder."""
        return self.model

    @cached_property
    def _compiled(self) -> Callable[..., Any]:
        return torch.compile(self.model.model, dynamic=False)

    def learn(self, step: int) -> float:
        """Add the gradients of 128 conversations; return the mean loss of a supervised token."""
        batch = [self.example(step * BATCH + i) for i in range(BATCH)]
        supervised = sum(int((talk.encoded.labels != IGNORE_INDEX).sum()) for talk in batch)
        total = 0.0
        noise = torch.Generator(self.model.device).manual_seed(step)
        for part in chunks(BATCH, MICRO_BATCH):
            logits, wanted, _ = self._logits(batch[part], self._compiled, noise)
            loss = cross_entropy(logits, wanted, reduction="sum") / supervised
            loss.backward()
            total += loss.item()
        return total

    def example(self, number: int) -> Talk:
        """Make training conversation `number`."""
        rng = Random(f"mini/{self.seed}/{number}")
        scene = generate(self.seed, number, "train")
        if rng.random() < RESPELT:
            scene = respelt(scene, rng)
        lesson = number // LESSON
        is_lesson = lesson < len(self.languages)
        languages = self.languages[lesson : lesson + 1] if is_lesson else self.languages
        asked = rng.choice(languages)
        sentences = 0.0 if is_lesson else IN_SENTENCES
        as_map = not is_lesson and number % BATCH < MAPS
        described = rng.choice(languages) if as_map or rng.random() < MIXED else asked
        encoders = self.map_encoders if as_map else self.encoders
        encoder = encoders[(rng.random() < WITH_SYSTEM) != as_map]
        while True:
            shown = None if as_map else described
            talk = conversation(scene, shown, asked, rng, QUESTIONS, sentences)
            try:
                return self._encode(encoder, scene, talk, described if as_map else None)
            except SettingError:  # a long description and a long first answer; another choice fits
                encoder = encoders[0]

    @torch.no_grad()
    def scores(self, scenes: int = 100) -> dict[str, float]:
        """Score single questions about held-out scenes, exact match, per topic and language.

        Which token the decoder would write next is asked behind the right beginning of each answer:
        all are right exactly where a greedy answer is.
        """
        self.model.eval()
        made: dict[str, float] = {}
        for wording in self.languages:
            for as_map in (False, True):
                found = {topic: self._score(topic, wording, as_map, scenes) for topic in WEIGHTS}
                name = f"{'maps' if as_map else 'text'}.{wording.CODE}"
                made[name] = sum(found.values()) / len(found)
                made |= {f"{name}.{topic}": score for topic, score in found.items()}
        self.model.train()
        return made

    def _score(self, topic: Topic, wording: Wording, as_map: bool, scenes: int) -> float:
        talks = []
        for index in range(scenes):
            # Another seed than the world's: the questions of the benchmarks are not looked at.
            rng = Random(f"mini/check/{topic}/{index}")
            scene = generate(self.seed + 1, index, "validation")
            turns = single(scene, None if as_map else wording, wording, topic, rng)
            if turns:
                mapped = wording if as_map else None
                encoder = self.map_encoders[1] if as_map else self.encoders[0]
                talks.append(self._encode(encoder, scene, turns, mapped))
        right = 0
        for part in chunks(len(talks), 2 * MICRO_BATCH):
            logits, wanted, kept = self._logits(talks[part], self.model.model)
            correct = torch.ones_like(kept)
            correct[kept] = logits.argmax(-1) == wanted
            right += int(correct.all(1).sum())
        return right / len(talks)

    def _encode(
        self, encoder: ConversationEncoder, scene: Scene, turns: list[Turn], mapped: Wording | None
    ) -> Talk:
        encoded = encoder.encode(turns, 0 if mapped is None else 1)
        if mapped is None:
            return Talk(encoded)
        return Talk(encoded, [self._tokens(text) for text in map_of(scene, mapped)])

    def _tokens(self, text: str) -> list[int]:
        if text not in self._words:
            # As within a sentence: with a space in front.
            spelt = text if len(text) == 1 else f" {text}"
            tokenizer = self.encoders[0].tokenizer
            self._words[text] = tokenizer(spelt, add_special_tokens=False)["input_ids"]
        return self._words[text]

    def _logits(
        self,
        talks: list[Talk],
        decoder: Callable[..., Any],
        noise: torch.Generator | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits and targets of the supervised positions, and where these are."""
        device = self.model.device
        ids, labels, places = padded(talks, MAP_LENGTH if talks[0].cells else TEXT_LENGTH)
        wanted = labels[:, 1:].to(device)
        kept = wanted != IGNORE_INDEX
        with torch.autocast(device.type, torch.bfloat16):
            embedded = self.model.model.embed_tokens(ids.to(device))
            if places:
                rows, columns = torch.tensor(places, device=device).T
                sums = self._sums([cell for talk in talks for cell in talk.cells or []])
                if noise is not None:
                    size = MAP_NOISE * sums.detach().pow(2).mean().sqrt()
                    sums = sums + size * torch.randn(sums.shape, generator=noise, device=device)
                embedded = embedded.index_put((rows, columns), sums)
            hidden = decoder(inputs_embeds=embedded, use_cache=False).last_hidden_state[:, :-1]
            logits = self.model.lm_head(hidden[kept])
        return logits.float(), wanted[kept], kept

    def _sums(self, cells: list[list[int]]) -> torch.Tensor:
        """Add up the embeddings of each place's words, [places, width]."""
        device, starts = self.model.device, np.cumsum([0, *map(len, cells)])[:-1]
        return embedding_bag(
            torch.tensor([word for cell in cells for word in cell], device=device),
            self.model.model.embed_tokens.weight,
            torch.from_numpy(starts).to(device),
            mode="sum",
        )


def padded(
    talks: list[Talk], length: int
) -> tuple[torch.Tensor, torch.Tensor, list[tuple[int, int]]]:
    """Pad on the right, where causal attention makes a mask needless.

    Returns:
        Ids and labels, [talks, length], and where the places of maps are, row and column.
    """
    ids = np.full((len(talks), length), UNK_ID, np.int64)
    labels = np.full((len(talks), length), IGNORE_INDEX, np.int64)
    places: list[tuple[int, int]] = []
    for row, talk in enumerate(talks):
        given, wanted = talk.encoded.input_ids, talk.encoded.labels
        if talk.cells is not None:
            (at,) = np.flatnonzero(given == IMAGE_TOKEN_INDEX)
            repeats = np.where(given == IMAGE_TOKEN_INDEX, len(talk.cells), 1)
            given, wanted = np.repeat(given, repeats), np.repeat(wanted, repeats)
            given[given == IMAGE_TOKEN_INDEX] = UNK_ID
            places += [(row, int(at) + i) for i in range(len(talk.cells))]
        ids[row, : len(given)] = given
        labels[row, : len(wanted)] = wanted
    return torch.from_numpy(ids), torch.from_numpy(labels), places


ENGLISH: tuple[Wording, ...] = (english,)
BILINGUAL: tuple[Wording, ...] = (english, russian)
