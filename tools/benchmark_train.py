"""Forward and backward pass of a micro-batch: `python tools/benchmark.py train`."""

from argparse import BooleanOptionalAction, Namespace
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from layer_bytes import LayerSettings, bytes_table, layer_bytes
from measuring import (
    Outcome,
    Step,
    add_settings,
    check_agreement,
    costs_table,
    measure,
    positive,
    ratio_line,
    ratios_of,
    surroundings,
    with_peft,
    write_report,
)
from rich.console import Console
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, MistralConfig, PreTrainedModel

from lightning_llava.batch import IGNORE_INDEX, Batch
from lightning_llava.errors import SettingError
from lightning_llava.models.llava import Llava
from lightning_llava.models.lora import add_lora, is_lora
from lightning_llava.models.precision import drop_adapter_casts
from lightning_llava.specs import LoraSpec

SIDES: tuple[str, str] = ("padded", "packed")
GOALS = {"FLOPs": 1.6, "time": 2.5}
LOSS_TOLERANCE, GRADIENT_TOLERANCE = 1e-4, 1e-3
HEAD_SIZE = 64
CAPTION = (
    "forward and backward pass of one micro-batch in fp32, no optimizer; text only: both sides get "
    "the same inputs_embeds, which need a gradient as if a projector had made them; padded: "
    "transformers' own forward on right-padded rows with a mask, full logits, peft's defaults, no "
    "cache; packed: one row, segments attention, loss on supervised positions; of it attention: "
    "as plain products over all pairs of a row or segment; MiB saved: for the backward pass; "
    "MiB peak: by which a process of its own grows; seconds: the best of all rounds, which take "
    "turns"
)


@dataclass(frozen=True)
class TrainSettings:
    """What is measured; lengths are lognormal(median, sigma), and for most + `prefix`."""

    hidden: int = 1024
    layers: int = 8
    vocabulary: int = 4096
    rank: int = 16
    samples: int = 8
    prefix: int = 144
    median: int = 40
    sigma: float = 1.0
    without: int = 6
    supervised: int = 12
    # Of the first thirty, the one whose padding is nearest to `usual_share`.
    seed: int = 7


SETTINGS = TrainSettings
MEANINGS = {
    "hidden": f"width of the Mistral, a multiple of 256 (heads of {HEAD_SIZE}, a quarter as many "
    "for keys, MLP 3.5 times as wide)",
    "layers": "decoder layers",
    "vocabulary": "logits per position",
    "rank": "of LoRA on all linear layers, alpha twice that",
    "samples": "rows of the padded batch",
    "prefix": "tokens that most samples begin with, as an image's: all lengths are a quarter of "
    "mix665k's (576 + lognormal text, median 160, sigma 1.0)",
    "median": "of the tokens after it",
    "sigma": "spread of their logarithm",
    "without": "per cent of the samples that have no prefix",
    "supervised": "per cent of each sample's tokens that are learnt, its last ones",
    "seed": "of lengths, weights and embeddings",
}


def add_train_command(commands: Any) -> None:
    """Add the command to what `add_subparsers` returned."""
    parser = commands.add_parser(
        "train", help="a micro-batch, packed against padded; bytes a decoder layer keeps"
    )
    add_settings(parser, TrainSettings, MEANINGS, sigma=float, without=int)
    for name, default, meaning in (
        ("--layer-width", 4096, "hidden size of the layer whose bytes are counted"),
        ("--layer-rank", 128, "of its LoRA"),
    ):
        parser.add_argument(
            name,
            type=positive,
            default=default,
            metavar="N",
            help=f"{meaning} (default: {default})",
        )
    parser.add_argument(
        "--compiled",
        action=BooleanOptionalAction,
        default=True,
        help="count the bytes of a compiled layer too, which takes half a minute "
        "(default: %(default)s)",
    )
    parser.set_defaults(run=run)


def run(options: Namespace, scratch: Path) -> None:
    """Print the tables, and the ratios in the last line.

    Raises:
        SettingError: both ways do not give the same loss and gradients.
    """
    settings = TrainSettings(**{f.name: getattr(options, f.name) for f in fields(TrainSettings)})
    layer = LayerSettings(options.layer_width, options.layer_rank)
    console, kept = Console(), layer_bytes(layer, options.compiled)
    console.print(bytes_table(layer, kept))
    costs, agreement = measure("benchmark_train", settings, SIDES, options.rounds)
    check_agreement(agreement, LOSS_TOLERANCE, GRADIENT_TOLERANCE)
    if not all(cost.attention_flops for cost in costs):
        raise SettingError("no FLOPs of attention were counted, so the ratios would be wrong")
    about, ratios = surroundings("torch", "transformers", "peft"), ratios_of(*costs)
    lengths = sample_lengths(settings)
    named = dict(zip(SIDES, costs, strict=True))
    console.print(costs_table(str(settings), CAPTION, named, GOALS))
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    print(
        f"lengths {lengths}: {sum(lengths)} tokens, {share_filled(lengths):.1%} of the padded "
        f"batch; mean of 1000 such batches {usual_share(settings):.1%}"
    )
    print(
        f"mean losses {agreement.losses[0]:.6f} and {agreement.losses[1]:.6f}; gradients apart by "
        f"at most {agreement.gradient_difference:.1e} of the largest number in each"
    )
    config = {"train": asdict(settings), "lengths": lengths, "model": mistral(settings).to_dict()}
    report = {"config": config | {"layer": asdict(layer), "rounds": options.rounds}} | about
    report |= {
        "costs": {side: asdict(cost) for side, cost in named.items()},
        "ratios": ratios,
        "goals": GOALS,
        "agreement": asdict(agreement),
    }
    write_report(options.json, report | {"layer bytes per token": kept})
    print(ratio_line("train", ratios, GOALS))


def sample_lengths(settings: TrainSettings, seed: int | None = None) -> list[int]:
    """Draw the tokens of every sample."""
    rng = np.random.default_rng(settings.seed if seed is None else seed)
    text = rng.lognormal(np.log(settings.median), settings.sigma, settings.samples)
    has_prefix = rng.random(settings.samples) >= settings.without / 100
    # At most 2048 tokens where the prefix is 576.
    longest = max(settings.prefix * (2048 - 576) // 576, settings.median)
    text = text.clip(max(2, settings.median // 20), longest).astype(int)
    return (text + settings.prefix * has_prefix).tolist()


def share_filled(lengths: list[int]) -> float:
    """Return the share of a padded batch that is no padding."""
    return sum(lengths) / (len(lengths) * max(lengths))


def usual_share(settings: TrainSettings) -> float:
    """Average `share_filled` over a thousand batches."""
    return float(np.mean([share_filled(sample_lengths(settings, seed)) for seed in range(1000)]))


def mistral(settings: TrainSettings) -> MistralConfig:
    """Describe the decoder."""
    heads = settings.hidden // HEAD_SIZE
    return MistralConfig(
        hidden_size=settings.hidden,
        intermediate_size=settings.hidden * 7 // 2,
        num_hidden_layers=settings.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 4,
        vocab_size=settings.vocabulary,
        sliding_window=None,
    )


class _Decoder(Llava):
    """The whole path of `Llava.forward`, but for the images: embeddings are given."""

    def __init__(self, language: PreTrainedModel, embeds: Tensor) -> None:
        # No tower, no projector: only `embed` would ask them.
        super().__init__(nn.Identity(), nn.Identity(), language)  # pyright: ignore[reportArgumentType]
        self.embeds = embeds

    def embed(self, batch: Batch) -> Tensor:
        return self.embeds


def make_step(settings: TrainSettings, side: str) -> Step:
    """Build one way; both get the same weights, embeddings and labels."""
    lengths = sample_lengths(settings)
    generator = torch.Generator().manual_seed(settings.seed)
    embeds = [torch.randn(n, settings.hidden, generator=generator) for n in lengths]
    labels = [_labels(n, settings, generator) for n in lengths]
    torch.manual_seed(settings.seed)
    language = AutoModelForCausalLM.from_config(mistral(settings), dtype=torch.float32)
    language.requires_grad_(False)
    build = {"padded": _padded_step, "packed": _packed_step}[side]
    return build(settings, language, embeds, labels)


def _labels(length: int, settings: TrainSettings, generator: torch.Generator) -> Tensor:
    labels = torch.full((length,), IGNORE_INDEX)
    learnt = max(1, round(length * settings.supervised / 100))
    labels[-learnt:] = torch.randint(settings.vocabulary, (learnt,), generator=generator)
    return labels


def _padded_step(
    settings: TrainSettings, language: PreTrainedModel, embeds: list[Tensor], labels: list[Tensor]
) -> Step:
    language.set_attn_implementation("sdpa")
    model = with_peft(language, r=settings.rank, lora_alpha=2 * settings.rank).train()
    _draw_adapters(model)
    pad = torch.nn.utils.rnn.pad_sequence
    states = pad(embeds, batch_first=True).requires_grad_()
    targets = pad(labels, batch_first=True, padding_value=IGNORE_INDEX)
    mask = pad([torch.ones(len(part)) for part in embeds], batch_first=True).bool()

    def step() -> Outcome:
        model.zero_grad()
        states.grad = None
        output = model(
            inputs_embeds=states, attention_mask=mask.long(), labels=targets, use_cache=False
        )
        output.loss.backward()
        assert states.grad is not None
        return _outcome(output.loss, model, states.grad[mask])

    return Step(step, model)


def _packed_step(
    settings: TrainSettings, language: PreTrainedModel, embeds: list[Tensor], labels: list[Tensor]
) -> Step:
    language.set_attn_implementation("segments")
    add_lora(language, LoraSpec(r=settings.rank, alpha=2 * settings.rank, dropout=0.0))
    drop_adapter_casts(language)
    _draw_adapters(language)
    states = torch.cat(embeds)[None].requires_grad_()
    model = _Decoder(language, states).train()
    lengths = [len(part) for part in embeds]
    batch = Batch(
        input_ids=torch.zeros(1, sum(lengths), dtype=torch.long),
        labels=torch.cat(labels)[None],
        position_ids=torch.cat([torch.arange(n) for n in lengths])[None],
        pixel_values=torch.empty(0, 3, 1, 1, dtype=torch.uint8),
        cu_seqlens=torch.tensor([0, *lengths]).cumsum(0).int(),
        longest=max(lengths),
    )

    def step() -> Outcome:
        model.zero_grad()
        states.grad = None
        found = model(batch)
        loss = found.loss / found.supervised
        loss.backward()
        assert states.grad is not None
        return _outcome(loss, language, states.grad[0])

    return Step(step, model)


def _draw_adapters(model: nn.Module) -> None:
    """Give all adapters weights, the same for both sides; peft's zeros in B would hide A."""
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if is_lora(name):
            nn.init.normal_(parameter, std=0.02)


def _outcome(loss: Tensor, model: nn.Module, of_states: Tensor) -> Outcome:
    gradients: Outcome = {"loss": loss.detach(), "hidden states": of_states}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            gradients[name.removeprefix("base_model.model.")] = parameter.grad
    return gradients
