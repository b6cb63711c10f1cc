"""A mini CLIP that learns, from scratch, which words go with a picture and with its parts.

Two contrastive losses: pictures against captions, as in Radford et al. 2021, on the class token of
the last layer; and parts of pictures against phrases, as in Zhong et al. 2022 (RegionCLIP), on the
patches of the last layer but one, which is the one that LLaVA takes its features from. A few ten
thousand pictures are too few to learn from captions alone what each patch shows.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from random import Random

import numpy as np
import torch
from mini_clip import TEXT_LENGTH, TEXT_WIDTH, WIDTH, image_processor
from mini_map import (
    COVERED,
    EMPTY,
    GRID,
    MIDDLE,
    coverage,
    letter_places,
    letters_of,
    middle,
    shares,
    spelt_at_random,
)
from mini_training import chunks
from torch import nn
from torch.nn.functional import cross_entropy, normalize
from transformers import CLIPModel, PreTrainedTokenizerFast

from lightning_llava.demo import drawing, english, russian
from lightning_llava.demo.scenes import COLOURS, SHAPES, Scene, generate
from lightning_llava.demo.words import HELD_OUT_WORDS, WORDS

BATCH = 64
SPELT_AT_RANDOM = 0.75
"""Share of the printed words that have letters drawn at random in their place."""
MAX_LOGIT_SCALE = 4.6
"""ln 100, as in CLIP."""

LETTERS = sorted({letter for words in WORDS.values() for word in words for letter in word})
PHRASES: dict[str, list[str]] = {
    "colour": list(COLOURS),
    "shape": list(SHAPES),
    "size": ["small", "large"],
    "place": list(english.PLACES),
    "middle": [MIDDLE, EMPTY],
    "letter": [*LETTERS, EMPTY],
}
"""What a part of a picture is told apart from, by what is said of it."""
_ONE = np.eye(GRID * GRID, dtype=np.float32)


@dataclass(frozen=True)
class Part:
    """A part of a picture and the phrases that are true of it, by kind of phrase."""

    patches: np.ndarray
    """Share of the part that lies in each patch, row by row."""
    phrases: dict[str, str]


class _Learned(nn.Module):
    """The tower and what only its training needs."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.part_projection = nn.Linear(WIDTH, TEXT_WIDTH, bias=False)
        self.part_logit_scale = nn.Parameter(clip.logit_scale.detach().clone())


class TowerLearner:
    """A tower that learns from pictures, captions in either language, and parts with phrases.

    Args:
        clip: the model.
        tokenizer: of the texts; ends them.
        seed: what scenes are drawn from.
    """

    def __init__(self, clip: CLIPModel, tokenizer: PreTrainedTokenizerFast, seed: int) -> None:
        self.learned, self.tokenizer, self.seed = _Learned(clip), tokenizer, seed
        self.processor = image_processor()
        listed = [phrase for phrases in PHRASES.values() for phrase in phrases]
        self._phrase_ids, self._rows, start = self._encode(listed), {}, 0
        for kind, phrases in PHRASES.items():
            self._rows[kind] = slice(start, start := start + len(phrases))

    @property
    def module(self) -> nn.Module:
        """Everything that learns."""
        return self.learned

    @cached_property
    def _compiled(self) -> Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        return torch.compile(self._features, dynamic=False)

    @property
    def clip(self) -> CLIPModel:
        """The model, without what only training needs."""
        return self.learned.clip

    def learn(self, step: int) -> float:
        """Add the gradients of 64 pictures; return the sum of the losses."""
        rng = Random(f"mini/{self.seed}/{step}")
        drawn = (generate(self.seed, step * BATCH + i, "train") for i in range(BATCH))
        scenes = [
            spelt_at_random(scene, rng) if rng.random() < SPELT_AT_RANDOM else scene
            for scene in drawn
        ]
        captions = [rng.choice((english, russian)).caption(scene) for scene in scenes]
        patches, pictures = self._compiled(self.pixels(scenes))
        parts = [(row, part) for row, scene in enumerate(scenes) for part in parts_of(scene)]
        losses = [cross_entropy(*told) for told in self._tell_apart(patches, parts).values()]
        logits = self.clip.logit_scale.exp() * pictures @ self.texts(captions).T
        own = torch.arange(BATCH, device=logits.device)
        loss = sum(losses) + (cross_entropy(logits, own) + cross_entropy(logits.T, own)) / 2
        loss.backward()
        with torch.no_grad():
            for scale in (self.clip.logit_scale, self.learned.part_logit_scale):
                scale.clamp_(max=MAX_LOGIT_SCALE)
        return loss.item()

    @torch.no_grad()
    def scores(self, number: int = 200) -> dict[str, float]:
        """Score on held-out scenes.

        Returns:
            Per kind of phrase, the share of the parts told right, patches counted one by one, and
            of letters and middles those where there is one; and recall at 1 among `number` pictures
            and captions.
        """
        # Another seed than the world's: the pictures of the benchmarks are not looked at.
        drawn = (generate(self.seed + 1, i, "validation") for i in count())
        scenes = list(islice(drawn, number))
        made, pictures = self._told(scenes)
        unknown = (s for s in drawn if s.word is not None and s.word.text in HELD_OUT_WORDS)
        told, _ = self._told(list(islice(unknown, number // 2)))
        made["letter_of_held_out_words"] = told["letter"]
        for wording in (english, russian):
            alike = pictures @ self.texts([wording.caption(scene) for scene in scenes]).T
            own = torch.arange(number, device=alike.device)
            for name, logits in (("text", alike), ("picture", alike.T)):
                recall = float((logits.argmax(-1) == own).float().mean())
                made[f"{name}_recall_at_1.{wording.CODE}"] = recall
        return made

    def _told(self, scenes: list[Scene]) -> tuple[dict[str, float], torch.Tensor]:
        """Return the share told right per kind of phrase, and the embeddings of the pictures."""
        seen = [self._features(self.pixels(scenes[part])) for part in chunks(len(scenes), BATCH)]
        patches, pictures = (torch.cat(features) for features in zip(*seen, strict=True))
        parts = [(row, part) for row, scene in enumerate(scenes) for part in parts_of(scene)]
        made = {}
        for kind, (logits, right) in self._tell_apart(patches, parts).items():
            marked = torch.tensor([phrase != EMPTY for phrase in PHRASES[kind]])[right.cpu()]
            made[kind] = float((logits.argmax(-1) == right)[marked].float().mean())
        return made, pictures

    def pixels(self, scenes: Sequence[Scene]) -> torch.Tensor:
        """Draw scenes and prepare them as the tower's processor does, [scenes, 3, side, side]."""
        pictures = [drawing.draw(scene) for scene in scenes]
        return self.processor(pictures, return_tensors="pt")["pixel_values"].to(self.clip.device)

    def texts(self, texts: list[str]) -> torch.Tensor:
        """Embed texts, [texts, width], of length 1."""
        return self._embed(self._encode(texts))

    def _encode(self, texts: list[str]) -> dict[str, torch.Tensor]:
        kept = {"padding": True, "truncation": True, "max_length": TEXT_LENGTH}
        return dict(self.tokenizer(texts, **kept, return_tensors="pt"))

    def _embed(self, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
        device = self.clip.device
        hidden = self.clip.text_model(
            input_ids=encoded["input_ids"].to(device),
            attention_mask=encoded["attention_mask"].to(device),
        )
        return normalize(self.clip.text_projection(hidden.pooler_output), dim=-1)

    def _features(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return patch features of the last layer but one, and embeddings of the pictures."""
        vision = self.clip.vision_model
        with torch.autocast(pixels.device.type, torch.bfloat16):
            seen = vision(pixels, output_hidden_states=True)
            pictures = self.clip.visual_projection(seen.pooler_output)
        return seen.hidden_states[-2][:, 1:].float(), normalize(pictures.float(), dim=-1)

    def _tell_apart(
        self, patches: torch.Tensor, parts: list[tuple[int, Part]]
    ) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
        """Compare parts with phrases: logits and the right answers, per kind of phrase."""
        rows = torch.tensor([row for row, _ in parts], device=patches.device)
        shares = torch.from_numpy(np.stack([part.patches for _, part in parts])).to(patches)
        pooled = torch.einsum("np,npd->nd", shares, patches[rows])
        pooled = normalize(self.learned.part_projection(pooled), dim=-1)
        logits = self.learned.part_logit_scale.exp() * pooled @ self._embed(self._phrase_ids).T
        told = {}
        for kind, phrases in PHRASES.items():
            known = [i for i, (_, part) in enumerate(parts) if kind in part.phrases]
            right = [phrases.index(parts[i][1].phrases[kind]) for i in known]
            told[kind] = logits[known, self._rows[kind]], torch.tensor(right, device=logits.device)
        return told


def parts_of(scene: Scene) -> Iterator[Part]:
    """List the objects of a scene, whole and patch by patch, and the patches of its word.

    A projector sees single patches: what is told from the whole alone, it does not find in them.
    """
    for thing in scene.objects:
        extent = drawing.object_extent(thing)
        phrases = {
            "colour": thing.kind.colour,
            "shape": thing.kind.shape,
            "size": thing.size,
            "place": english.PLACES[thing.cell],
        }
        yield Part(shares(extent), phrases)
        marks = {middle(extent): MIDDLE}
        for cell, mark in _marked(marks, coverage(extent)):
            yield Part(_ONE[cell], {**phrases, "middle": mark})
    if scene.word is not None:
        extents = [extent for _, extent in letters_of(scene.word)]
        letters = {cell: letter for letter, cell in letter_places(scene.word)}
        for cell, mark in _marked(letters, np.sum([coverage(e) for e in extents], axis=0)):
            yield Part(_ONE[cell], {"letter": mark})


def _marked(marks: dict[int, str], covered: np.ndarray) -> Iterator[tuple[int, str]]:
    """List the patches that a thing covers, with the marks that they carry or do not."""
    for cell in sorted({*map(int, np.flatnonzero(covered >= COVERED)), *marks}):
        yield cell, marks.get(cell, EMPTY)
