"""Shards to training packs: index, preflight, plan; and what a run will see of them."""

import math
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from rich.table import Table

from lightning_llava.data.index import Index, read_sample
from lightning_llava.data.location import printable
from lightning_llava.data.plan import Plan
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.specs import SourceSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import Example, preflight, summary_table
from lightning_llava.tiling import Tiling

RECIPE_BATCH = {"chat": 128, "plain": 256}
"""Samples of an optimizer step in LLaVA 1.5's scripts: finetune and pretrain."""
SHOWN = 5
"""Samples left out that are named in the log."""


def make_plan(
    index: Index,
    sources: Mapping[str, SourceSpec],
    pack_tokens: int,
    seed: int,
    tiling: Tiling | None = None,
) -> Plan:
    """Plan the packs of an index."""
    return Plan(
        lengths=index.lengths,
        sources=index.source_numbers,
        weights=[sources[name].weight for name in index.sources],
        pack_tokens=pack_tokens,
        seed=seed,
        num_images=index.num_images if tiling is None else index.count_tiles(tiling),
        identity=index.fingerprint,
        names=index.sources,
    )


def check_same_samples(trainer: Any, index: Index) -> None:
    """Refuse a run whose processes see different shards: each would follow a plan of its own.

    Args:
        trainer: all of whose processes call this.
        index: of this process.

    Raises:
        SettingError: on all processes alike.
    """
    first, samples, left_out = trainer.strategy.broadcast(
        (index.fingerprint, len(index), len(index.quarantine))
    )
    same = first == index.fingerprint
    if trainer.strategy.reduce_boolean_decision(same, all=True):
        return
    found = f"rank 0 found {samples} samples and left out {left_out}"
    if not same:
        found += f", rank {trainer.global_rank} {len(index)} and {len(index.quarantine)}"
        found += f", last {index.quarantine[-1]}" if index.quarantine else ""
    raise SettingError(
        f"data.sources: the processes do not see the same samples ({found}). Start again if a read "
        "failed in passing; else give every machine the same shards and indexes"
    )


def refuse_other_samples(saved: Mapping[str, Any], index: Index) -> None:
    """Refuse to continue a run with other samples than it was planned with.

    Args:
        saved: `describe_mixture` of the run that continues.
        index: what is there now.

    Raises:
        SettingError: naming the first source that has more or fewer.
    """
    sizes = np.bincount(index.source_numbers, minlength=len(index.sources)).tolist()
    for name, now in zip(index.sources, sizes, strict=True):
        before = saved.get(name, {}).get("samples", now)
        if before == now:
            continue
        lost = [entry for entry in index.quarantine if entry.source == name]
        left_out = f" ({len(lost)} left out, first {lost[0]})" if lost else ""
        raise SettingError(
            f"--ckpt_path continues a run with the samples that it was planned with: {name} has "
            f"{now} now{left_out} and had {before}. Put the shards back as they were, and remove "
            "indexes (SHARD.index.json) that `tools/shards.py index --decode` has written since; "
            "or start a new stage from its weights with model.init_from"
        )


def report_left_out(index: Index) -> None:
    """Log what the index left out or mended, by reason, and the first of it by name."""
    for reason, count in index.reasons.items():
        rank_zero_info(f"data: left out {count} of {reason}")
    for entry in index.quarantine[:SHOWN]:
        rank_zero_info(f"data: left out {entry}")
    for note, count in index.notes.items():
        rank_zero_info(f"data: {count} of {note}")
    for source, count in index.truncated_samples.items():
        rank_zero_info(
            f"data: {count} conversations of {source} are over model.language.max_length and lose "
            f"{index.dropped_turns[source]} turns from their ends"
        )


def check_samples(
    index: Index, storage: ShardStorage, encoder: ConversationEncoder, number: int
) -> Table:
    """Check samples of every source before step 0.

    Returns:
        What they teach, as a table.

    Raises:
        SettingError: with the first bad sample.
    """
    return summary_table(preflight(encoder, _examples(index, storage, number)))


def _examples(index: Index, storage: ShardStorage, number: int) -> Iterable[Example]:
    for source in range(len(index.sources)):
        own = np.flatnonzero(index.source_numbers == source)
        for i in islice(own, 0, None, max(1, math.ceil(own.size / number))):
            indexed, sizes = index[int(i)], index.sizes_of(int(i))
            try:
                sample = read_sample(storage, indexed)
            except (SettingError, OSError):
                continue  # a blank takes its place when its turn comes, and is counted then
            name = f"shard {printable(indexed.shard)}, sample {indexed.key}"
            yield Example(name, indexed.source, sample.language, sample.turns, sizes)


def describe_mixture(index: Index, sources: Mapping[str, SourceSpec]) -> dict[str, Any]:
    """Return weight and number of samples of every source."""
    counts = np.bincount(index.source_numbers, minlength=len(index.sources)).tolist()
    return {
        name: {"weight": sources[name].weight, "samples": count}
        for name, count in zip(index.sources, counts, strict=True)
    }


def count_micro_batches(plan: Plan, step_size: int, epochs: int | None, steps: int) -> int:
    """Count the micro-batches of the whole run on all ranks: whole optimizer steps.

    Args:
        plan: what is packed.
        step_size: micro-batches of an optimizer step, on all processes.
        epochs: how often the mixture is seen; None where the steps decide.
        steps: of the optimizer.
    """
    if epochs is None:
        return steps * step_size
    packs = sum(plan.num_packs(epoch) for epoch in range(epochs))
    # The last step is filled up with packs of the next epoch: as large as the others, and the same
    # on any number of processes.
    return math.ceil(packs / step_size) * step_size


def describe_run(
    plan: Plan, micro_batches: int, step_size: int, epochs: int | None, prompt: str
) -> str:
    """Say how many samples, packs and steps a run takes, beside LLaVA 1.5's recipe.

    Args:
        plan: what is packed.
        micro_batches: of the whole run, on all processes.
        step_size: micro-batches of an optimizer step.
        epochs: how often the mixture is seen; None where the steps decide.
        prompt: `chat` or `plain`, which tells the recipe's stage.
    """
    samples, packs = plan.epoch_samples(0).size, plan.num_packs(0)
    together = samples / packs * step_size
    tokens = int(plan.lengths[plan.epoch_samples(0)].sum())
    batch = RECIPE_BATCH[prompt]
    seen = f"{epochs} epochs" if epochs else f"{micro_batches / packs:.2g} epochs"
    return (
        f"data: {samples:,} samples an epoch in {packs:,} packs of {plan.pack_tokens} tokens "
        f"({tokens / (packs * plan.pack_tokens):.1%} full); {seen} in "
        f"{micro_batches // step_size:,} optimizer steps of about {together:.0f} "
        f"samples (LLaVA 1.5's recipe: {math.ceil(samples / batch):,} steps an epoch, of {batch})"
    )
