"""A run of twelve steps as a process of its own, for tests that kill or stop it."""

import json
import sys
from operator import itemgetter
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

STEPS, ACCUMULATE, EVERY = 12, 2, 2


def command(world, root, *more):
    """Four processes that read, dropout, accumulation: whatever could come out of step."""
    files = Path(__file__).parents[1] / "configs"
    flags = {
        "model.vision.name": world / "mini_clip",
        "model.language.name": world / "mini_saiga",
        "model.language.template": "mistral_instruct",
        "model.lora.dropout": 0.05,
        "data.sources": json.dumps({"demo": {"shards": str(world / "train/*.tar")}}),
        "data.pack_tokens": 600,
        "data.num_workers": 2,
        "data.sample_log": "true",
        "trainer.max_steps": STEPS,
        "trainer.accumulate_grad_batches": ACCUMULATE,
        "trainer.log_every_n_steps": 1,
        "trainer.default_root_dir": root,
        "checkpoint.every_n_train_steps": EVERY,
        "progress.refresh_rate": 0,
    }
    stack = ["-c", files / "stage/lora.yaml", "-c", files / "hardware/cpu.yaml"]
    pairs = [f"--{key}={value}" for key, value in flags.items()]
    return [sys.executable, "-m", "lightning_llava", "fit", *map(str, stack), *pairs, *more]


def lines(root):
    """What all ranks were trained on, in the order of the plan."""
    texts = [path.read_text(encoding="utf-8") for path in root.glob("version_0/samples.rank*")]
    # The last line may be half written when it is read.
    found = [json.loads(line) for text in texts for line in text.split("\n")[:-1]]
    return sorted(found, key=itemgetter("micro_batch"))


def losses(root):
    events = EventAccumulator(str(root / "version_0"), size_guidance={"scalars": 0})
    events.Reload()
    found = events.Scalars("learning/loss")
    assert len({event.step for event in found}) == len(found), "each step once"
    return {event.step: event.value for event in found}
