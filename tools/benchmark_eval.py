"""Questions about images, one by one and together: `python tools/benchmark.py eval`."""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import torch
from measuring import (
    add_settings,
    count_flops,
    ratio_line,
    surroundings,
    take_turns,
    write_report,
)
from pope_flops import WAYS, pope_by_formula, pope_totals, suffix_lengths
from rich.console import Console
from rich.table import Column, Table
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, MistralConfig

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.errors import SettingError
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.llava import Llava
from lightning_llava.models.vision import VisionTower
from lightning_llava.specs import VisionSpec

GOALS = {"FLOPs": 9.0, "FLOPs at 7B": 9.0, "time of forwards": 8.0, "time of generate": 10.0}
HEAD_SIZE = 64
PATCH = 14
TIMED: tuple[str, ...] = ("a forward per question", "generate per question", "together")
COUNT_CAPTION = (
    "to the first token of all 9,000 answers of POPE; counted: on the decoder and tower that are "
    "timed, attention as plain products over all pairs; at 7B: by formula, the decoder alone, "
    "masked pairs included, pairs of a plain causal pass not"
)
TIME_CAPTION = (
    "all questions about one image, fp32, the tower included; a forward per question: its last "
    "position's logits, no cache; generate: transformers' own; seconds: the best of all rounds, "
    "which take turns"
)


@dataclass(frozen=True)
class EvalSettings:
    """What is measured."""

    hidden: int = 256
    layers: int = 4
    vocabulary: int = 4096
    side: int = 24
    prefix: int = 615
    questions: int = 18
    tokens: int = 2
    seed: int = 0


MEANINGS = {
    "hidden": f"width of the Mistral, a multiple of 256 (heads of {HEAD_SIZE}, a quarter as many "
    "for keys, MLP 3.5 times as wide); the tower's is a quarter",
    "layers": "decoder layers",
    "vocabulary": "logits per position",
    "side": "patches in a row of the image",
    "prefix": "tokens that all prompts about an image begin with, its patches among them",
    "questions": "about one image, for the times",
    "tokens": "of every answer, for the times: yes or no, and the end",
    "seed": "of weights, pixels and prompts",
}


def add_eval_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "eval", help="questions about an image, answered one by one and together"
    )
    add_settings(parser, EvalSettings, MEANINGS)
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Print the tables, and the ratios in the last line.

    Raises:
        SettingError: the ways do not give the same answers, or attention was not counted.
    """
    settings = EvalSettings(**{f.name: getattr(options, f.name) for f in fields(EvalSettings)})
    bench = Bench(settings)
    answers = bench.check_answers()
    counted = count_pope(bench)
    large = pope_by_formula(MistralConfig(), settings.prefix)
    seconds = dict(zip(TIMED, take_turns(list(bench.ways().values()), options.rounds), strict=True))
    best = {way: min(times) for way, times in seconds.items()}
    ratios = {
        "FLOPs": counted[WAYS[0]] / counted[WAYS[2]],
        "FLOPs at 7B": large[WAYS[0]] / large[WAYS[2]],
        "time of forwards": best[TIMED[0]] / best[TIMED[2]],
        "time of generate": best[TIMED[1]] / best[TIMED[2]],
    }
    about, console = surroundings("torch", "transformers"), Console()
    console.print(counts_table(str(settings), {"counted": counted, "at 7B": large}))
    console.print(times_table(f"{settings.questions} questions about an image", best))
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(f"the same answers by all ways, {len(set(map(tuple, answers)))} different ones")
    report = {"config": asdict(settings) | {"rounds": options.rounds}} | about
    report |= {"FLOPs": counted, "FLOPs at 7B": large, "seconds": seconds, "answers": answers}
    write_report(options.json, report | {"ratios": ratios, "goals": GOALS})
    print(ratio_line("eval", ratios, GOALS))


def mistral(settings: EvalSettings) -> MistralConfig:
    """Describe the decoder; weights so far from zero that answers differ."""
    heads = settings.hidden // HEAD_SIZE
    return MistralConfig(
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 7 // 2,
        num_hidden_layers=settings.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=settings.vocabulary,
        sliding_window=None,
        initializer_range=3 * settings.hidden**-0.5,
    )


class Bench:
    """A small Llava, an image and prompts about it."""

    def __init__(self, settings: EvalSettings) -> None:
        self.settings = settings
        torch.manual_seed(settings.seed)
        language = AutoModelForCausalLM.from_config(mistral(settings), dtype=torch.float32)
        width, size = settings.hidden // 4, settings.side * PATCH
        vision = CLIPVisionConfig(
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=size,
            patch_size=PATCH,
        )
        tower = VisionTower(CLIPVisionModel(vision), VisionSpec(), [0.5] * 3, [0.25] * 3)
        projector = nn.Linear(width, settings.hidden)
        self.model = Llava(tower, projector, language).eval().requires_grad_(False)
        self.generator = torch.Generator().manual_seed(settings.seed)
        self.pixels = torch.randint(
            0, 256, (1, 3, size, size), generator=self.generator, dtype=torch.uint8
        )
        patches = settings.side**2
        if settings.prefix < patches + 2:
            raise SettingError(
                f"--prefix: {settings.prefix} tokens; expected at least {patches + 2}, "
                f"{patches} of which are the image's"
            )
        text = self._ids(settings.prefix - patches)
        self.prefix = [*text[:-4], *[IMAGE_TOKEN_INDEX] * patches, *text[-4:]]

    def prompts(self, lengths: Sequence[int]) -> list[list[int]]:
        """Write prompts that have the prefix in common and no more."""
        first = torch.randperm(self.settings.vocabulary, generator=self.generator).tolist()
        return [
            [*self.prefix, first[i], *self._ids(length - 1)] for i, length in enumerate(lengths)
        ]

    def forward(self, prompt: list[int]) -> int:
        """Compute an answer's first token."""
        batch = self._batch(prompt)
        logits = self.model.language(
            inputs_embeds=self.model.embed(batch), use_cache=False, logits_to_keep=1
        ).logits
        return int(logits[0, -1].argmax())

    def generate(self, prompt: list[int]) -> list[int]:
        """Let transformers answer."""
        # No stop: every answer takes the same number of steps.
        never = [self.settings.vocabulary]
        return self.model.generate(self._batch(prompt), self.settings.tokens, never, pad_id=0)[0]

    def together(self, prompts: list[list[int]], tokens: int) -> list[list[int]]:
        """Answer as evaluation does."""
        return answer_group(self.model, self.pixels, prompts, tokens, [self.settings.vocabulary])

    def ways(self) -> dict[str, Callable[[], list[Any]]]:
        """Return the ways that are timed, all with the same prompts."""
        prompts, tokens = self.asked, self.settings.tokens
        runs: tuple[Callable[[], list[Any]], ...] = (
            lambda: [self.forward(prompt) for prompt in prompts],
            lambda: [self.generate(prompt) for prompt in prompts],
            lambda: self.together(prompts, tokens),
        )
        return dict(zip(TIMED, runs, strict=True))

    def check_answers(self) -> list[list[int]]:
        """Compare the answers of all ways, which warms them up.

        Raises:
            SettingError: they differ, or all questions have the same answer, which shows nothing.
        """
        first, generated, together = (run() for run in self.ways().values())
        if together != generated or [answer[0] for answer in together] != first:
            raise SettingError(f"the ways disagree: {first}, {generated} and {together}")
        if len(prompts := set(map(tuple, together))) == 1 < self.settings.questions:
            raise SettingError(f"all questions have the answer {prompts.pop()}; try another --seed")
        return together

    @property
    def asked(self) -> list[list[int]]:
        """The prompts that are timed."""
        self.generator.manual_seed(self.settings.seed)
        return self.prompts(suffix_lengths(self.settings.questions))

    def _batch(self, prompt: list[int]) -> Batch:
        ids = torch.tensor([prompt])
        return Batch(
            input_ids=ids,
            labels=torch.full_like(ids, IGNORE_INDEX),
            position_ids=torch.arange(len(prompt))[None],
            pixel_values=self.pixels,
            attention_mask=torch.ones_like(ids, dtype=torch.bool),
        )

    def _ids(self, number: int) -> list[int]:
        vocabulary = self.settings.vocabulary
        ids: Tensor = torch.randint(3, vocabulary, (number,), generator=self.generator)
        return ids.tolist()


def count_pope(bench: Bench) -> dict[str, float]:
    """Count the FLOPs of POPE; what has the same size is counted once.

    Raises:
        SettingError: none of them were attention's.
    """

    def count(compute: Callable[[], Any]) -> int:
        with torch.no_grad():
            total, attention = count_flops(compute)
        if not attention:
            raise SettingError("no FLOPs of attention were counted, so the ratios would be wrong")
        return total

    @cache
    def forward(length: int) -> int:
        (prompt,) = bench.prompts([length])
        return count(lambda: bench.forward(prompt))

    def group(lengths: list[int]) -> int:
        prompts = bench.prompts(lengths)
        return count(lambda: bench.together(prompts, 1))

    return pope_totals(forward, group)


def counts_table(title: str, counts: dict[str, dict[str, Any]]) -> Table:
    """Lay the FLOPs of all ways side by side, with their ratios to the first."""
    heads = [head for name in counts for head in (f"TFLOP {name}", "ratio")]
    columns = [Column(head, justify="right") for head in heads]
    table = Table("", *columns, title=title, caption=COUNT_CAPTION)
    for way in WAYS:
        cells = [
            cell
            for totals in counts.values()
            for cell in (f"{totals[way] / 1e12:,.2f}", f"{totals[WAYS[0]] / totals[way]:.2f}")
        ]
        table.add_row(way, *cells)
    return table


def times_table(title: str, best: dict[str, float]) -> Table:
    """Lay the seconds of all ways side by side."""
    columns = [Column(head, justify="right") for head in ("seconds", "over together")]
    table = Table("", *columns, title=title, caption=TIME_CAPTION)
    for way, seconds in best.items():
        table.add_row(way, f"{seconds:.4f}", f"{seconds / best[TIMED[2]]:.2f}")
    return table
