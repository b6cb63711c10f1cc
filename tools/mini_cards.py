"""The cards of the mini backbones."""

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import torch
import transformers

WHAT = {
    "clip": """# mini_clip

A CLIP, vision and text tower, that has seen nothing but the embedded world of lightning_llava:
coloured shapes and printed words on small pictures, with captions in English and Russian. Trained
from scratch by contrast: pictures against captions; objects, whole and patch by patch, against
English phrases; patches against the letter, or the mark of an object, whose middle lies there.""",
    "vicuna": """# mini_vicuna

A decoder of the Llama architecture that knows English only, and in it nothing but the embedded
world of lightning_llava: coloured shapes and printed words, described in text. It has never seen a
picture. It writes in the format `vicuna_v1`.""",
    "saiga": """# mini_saiga

A decoder of the Mistral architecture that knows Russian and English, and in them nothing but the
embedded world of lightning_llava: coloured shapes and printed words, described in text. It has
never seen a picture. It writes in the format `saiga_mistral`.""",
}
DATA = {
    "clip": """64 new scenes a step of the world's training split, drawn on the spot. Three in four
  printed words are letters drawn at random.""",
    "decoder": """128 new conversations a step about scenes of the world's training split. Behind
  the first lessons five eighths of them show the scene as a map, 64 summed embeddings. Half of the
  printed words have their letters in any order.""",
}
MEASURED = {
    "clip": """Parts of 200 scenes of the validation split told by phrase (`middle` and `letter`:
the patches that have one), letters also in 100 pictures of words that training never prints, and
recall at 1 among 200 pictures and captions (`text`: which caption belongs to a picture; `picture`:
the reverse):""",
    "decoder": """Single questions about scenes of the validation split, exact match, per topic and
on average. `text`: scenes described in sentences; `maps`: 64 places, each the sum of the embeddings
of the words for what lies there, asked about for a short answer.""",
}


@dataclass(frozen=True)
class Card:
    """What a card says."""

    what: str
    """`clip`, `vicuna` or `saiga`."""
    command: str
    seed: int
    steps: int
    scores: dict[str, float]


def write_card(path: Path, card: Card) -> None:
    """Write a card."""
    kind = "clip" if card.what == "clip" else "decoder"
    rows = "\n".join(f"| {name} | {score:.3f} |" for name, score in card.scores.items())
    path.write_text(
        f"""{WHAT[card.what]}

* Command: `{card.command}`, {card.steps} steps, seed {card.seed}, torch {torch.__version__},
  transformers {transformers.__version__}, {datetime.now(UTC).date()}.
* Data: {DATA[kind]}
  Kinds of object and words that are held out never occur.
* Licence: Apache-2.0, as the code.

{MEASURED[kind]}

| what | score |
|---|---|
{rows}
""",
        encoding="utf-8",
    )
