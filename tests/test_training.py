"""Training as a whole: it learns, it weights tokens, and it goes on where it stopped."""

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Callback
from lightning.pytorch.plugins.environments import LightningEnvironment
from safetensors.torch import load_file, save_file

from lightning_llava.batch import Batch
from lightning_llava.callbacks import Checkpoint
from lightning_llava.data.index import build_index, read_sample
from lightning_llava.data.shards import write_shards
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.ledger import read_ledger, write_ledger
from lightning_llava.specs import (
    BenchmarkSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    SourceSpec,
    VisionSpec,
)
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn
from runs import (
    Losses,
    language,
    make_data,
    make_module,
    make_trainer,
    mean_loss,
    random_decoder,
)

NO_DROPOUT = LoraSpec(r=8, alpha=16, dropout=0.0)
MICRO_BATCHES = 4


def first_words(world, number):
    """Samples that ask for the printed word and nothing else: only the picture tells the answer."""
    encoder = ConversationEncoder(language(world), image_tokens=64)
    storage = ShardStorage()
    index = build_index({"ocr": SourceSpec(str(world / "train/ocr-en-*.tar"))}, encoder, storage)
    chosen = []
    for sample in (read_sample(storage, index[i]) for i in range(len(index))):
        question, answer = sample.turns[-2:]
        if "What word" in question.text:
            asked = "<image>\n" + question.text.replace("<image>\n", "")
            chosen.append(replace(sample, turns=[Turn("user", asked), answer]))
    return chosen[:number]


def test_16_samples_are_learnt_by_heart_and_by_picture(demo_world, clip, tmp_path):
    samples = first_words(demo_world, 16)
    decoder = random_decoder(demo_world, tmp_path / "decoder")
    answers = [sample.turns[-1].text for sample in samples]
    assert len(samples) == 16
    assert len(set(answers)) > 10
    write_shards(samples, tmp_path, "few")
    tower = VisionSpec(name=str(clip))
    module = make_module(
        demo_world,
        vision=tower,
        language=decoder,
        lora=LoraSpec(r=32, alpha=64, dropout=0.0),
        learning_rate=LearningRates(projector=4e-3, lora=4e-3),
        optimizer=OptimizerSpec(schedule="linear", warmup_ratio=0.1),
    )
    data = make_data(
        demo_world, tmp_path / "*.tar", vision=tower, language=decoder, pack_tokens=2048
    )
    torch.manual_seed(0)
    make_trainer(tmp_path, max_steps=110).fit(module, data)

    batch = data.dataset[0]
    assert len(batch.sample_ids) == 16
    assert mean_loss(module, batch) < 0.05
    # The next picture that shows another word.
    order = [
        next(j % 16 for j in range(i, i + 16) if answers[j % 16] != answers[i]) for i in range(16)
    ]
    assert mean_loss(module, replace(batch, pixel_values=batch.pixel_values[order])) > 0.5


def concatenate(batches: list[Batch]) -> Batch:
    """Lay packed rows one after another in a single row."""
    joined = {
        name: torch.cat([getattr(batch, name) for batch in batches], dim=1)
        for name in ("input_ids", "labels", "position_ids")
    }
    return Batch(**joined, pixel_values=torch.cat([batch.pixel_values for batch in batches]))


def test_the_model_is_built_on_the_cpu_whatever_the_default_device(demo_world):
    """Lightning makes the GPU the default device: random numbers of the CPU could not be drawn."""
    module = make_module(demo_world)
    with torch.device("meta"):
        module.configure_model()
    tensors = [*module.llava.parameters(), *module.llava.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


def gradients_of_the_union(world) -> dict[str, torch.Tensor]:
    """Backpropagate the mean loss over all supervised tokens of the first micro-batches at once."""
    module, data = unequal(world)
    trainer = make_trainer(world, max_steps=1)
    data.trainer = trainer
    data.setup("fit")
    torch.manual_seed(0)
    module.configure_model()
    batches = [data.dataset[i] for i in range(MICRO_BATCHES)]
    counts = [int((batch.labels != -100).sum()) for batch in batches]
    assert max(counts) > 3 * min(counts), "the test wants very unequal counts"
    result = module.llava(concatenate(batches))
    (result.loss / result.supervised).backward()
    return named_gradients(module)


def unequal(world):
    """Words read supervise few tokens, boxes many."""
    sources = {
        name: SourceSpec(str(world / f"train/{name}-en-*.tar")) for name in ("regions", "ocr")
    }
    data = make_data(world, sources=sources, pack_tokens=300)
    return make_module(world, lora=NO_DROPOUT), data


def named_gradients(module):
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def assert_same_gradients(found, expected):
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, atol=1e-5, rtol=1e-4, msg=name)


def test_accumulation_gives_the_gradients_of_one_concatenated_batch(demo_world, tmp_path):
    module, data = unequal(demo_world)
    trainer = make_trainer(tmp_path, max_steps=1, accumulate_grad_batches=MICRO_BATCHES)
    torch.manual_seed(0)
    trainer.fit(module, data)
    assert_same_gradients(named_gradients(module), gradients_of_the_union(demo_world))


@pytest.mark.slow
def test_two_ranks_give_the_gradients_and_the_answers_of_one(demo_world, tmp_path):
    command = [sys.executable, "-W", "ignore", __file__, str(demo_world), str(tmp_path)]
    subprocess.run(command, check=True, timeout=300, capture_output=True)
    expected = gradients_of_the_union(demo_world)
    for rank in range(2):
        assert_same_gradients(load_file(tmp_path / f"rank{rank}.safetensors"), expected)

    torch.manual_seed(0)
    module = make_module(demo_world, lora=NO_DROPOUT)
    make_trainer(tmp_path, 1, limit_val_batches=1.0).validate(
        module, make_data(demo_world, benchmarks=odd_benchmark(demo_world)), verbose=False
    )
    found = read_ledger(tmp_path / "two.jsonl")
    assert len(found) % 2 == 1
    assert sorted(found, key=str) == sorted(module.rows, key=str)


def odd_benchmark(world):
    """An odd number of questions, so that the ranks have unequal shares."""
    files = {"random": str(world / "pope/en/demo_pope_random.json")}
    return {"pope": BenchmarkSpec(files=files, images=str(world / "images"), subset=9)}


def run_on_two_ranks(world: Path, folder: Path) -> None:
    """Answer questions, then take a step of two micro-batches on each of two gloo ranks."""
    module, data = unequal(world)
    data.benchmarks = odd_benchmark(world)
    trainer = make_trainer(
        folder,
        max_steps=1,
        accumulate_grad_batches=MICRO_BATCHES // 2,
        strategy="ddp",
        devices=2,
        plugins=[LightningEnvironment()],
        limit_val_batches=1.0,
        val_check_interval=None,
    )
    torch.manual_seed(0)
    trainer.validate(module, data, verbose=False)
    if trainer.is_global_zero:
        write_ledger(folder / "two.jsonl", module.rows)
    trainer.limit_val_batches = 0
    trainer.fit(module, data)
    save_file(named_gradients(module), folder / f"rank{trainer.global_rank}.safetensors")


class StopAfter(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, *_):
        trainer.should_stop = trainer.should_stop or trainer.global_step >= self.step


STEPS = 6


def run(world, folder, *callbacks, ckpt_path=None, module=None, accumulate=2, **settings):
    losses = Losses()
    checkpoint = Checkpoint(every_n_train_steps=2, keep=-1, dirpath=str(folder))
    trainer = make_trainer(
        folder,
        max_steps=STEPS,
        accumulate_grad_batches=accumulate,
        callbacks=[losses, checkpoint, *callbacks],
        enable_checkpointing=True,
    )
    torch.manual_seed(0)
    trainer.fit(module or make_module(world), make_data(world, **settings), ckpt_path=ckpt_path)
    return losses


def test_a_resumed_run_is_the_uninterrupted_run_bit_by_bit(demo_world, tmp_path):
    whole = run(demo_world, tmp_path / "whole")
    assert list(whole.losses) == list(range(1, STEPS + 1))
    stopped = run(demo_world, tmp_path / "stopped", StopAfter(5))
    assert len(stopped.losses) == 5
    torch.manual_seed(1234)  # what the interpreter happened to draw before must not matter
    checkpoint = str(tmp_path / "stopped/step-000004.ckpt")
    resumed = run(demo_world, tmp_path / "stopped", ckpt_path=checkpoint)
    assert resumed.losses == {step: whole.losses[step] for step in (5, 6)}
    assert resumed.samples == whole.samples[8:]


def test_dropout_is_on_and_the_frozen_tower_stays_in_eval_mode(demo_world, tmp_path):
    module = make_module(demo_world, lora=NO_DROPOUT)
    without = run(demo_world, tmp_path / "without", StopAfter(3), module=module)
    dropped = run(demo_world, tmp_path / "with", StopAfter(3))
    # The rate rises from zero, so B is still zero in step 2, and with it all that dropout touches.
    assert dropped.losses[2] == without.losses[2]
    assert dropped.losses[3] != without.losses[3]
    assert module.training
    assert not module.llava.vision_tower.training


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"language": "mini_vicuna"},
            r"model\.language\.name is '.*mini_vicuna' but the checkpoint has '.*mini_saiga'",
        ),
        (
            {"lora": LoraSpec(r=4, alpha=16, dropout=0.05)},
            r"model\.lora\.r is 4 but the checkpoint has 8",
        ),
        (
            {"learning_rate": LearningRates(projector=2e-3, lora=1e-3)},
            r"model\.learning_rate\.lora is 0\.001 but the checkpoint has 0\.002",
        ),
        (
            {"accumulate_grad_batches": 1},
            r"trainer\.accumulate_grad_batches is 1 but the checkpoint has 2",
        ),
    ],
)
def test_resuming_under_other_settings_is_refused(demo_world, tmp_path, changed, message):
    run(demo_world, tmp_path, StopAfter(2))
    changed = dict(changed)
    settings = {"accumulate": changed.pop("accumulate_grad_batches", 2)}
    if "language" in changed:
        changed["language"] = settings["language"] = language(demo_world, changed["language"])
    with pytest.raises(SettingError, match=message + r".*model\.init_from"):
        run(
            demo_world,
            tmp_path,
            ckpt_path=str(tmp_path / "step-000002.ckpt"),
            module=make_module(demo_world, **changed),
            **settings,
        )


def test_a_stage_starts_from_the_weights_of_another(demo_world, tmp_path):
    """Align, then LoRA: the projector is taken over, the adapters are new, the run is at step 0."""
    align = make_module(
        demo_world, lora=None, learning_rate=LearningRates(projector=1e-3, lora=None)
    )
    run(demo_world, tmp_path / "align", StopAfter(2), module=align)
    checkpoint = str(tmp_path / "align/step-000002.ckpt")
    tuned = make_module(demo_world, init_from=checkpoint)
    tuned.configure_model()
    for name, weight in align.llava.projector.state_dict().items():
        torch.testing.assert_close(tuned.llava.projector.state_dict()[name], weight, atol=0, rtol=0)
    other_layer = VisionSpec(name=str(demo_world / "mini_clip"), layer=-1)
    with pytest.raises(SettingError, match=r"model\.vision\.layer is -1, but .* features of -2"):
        make_module(demo_world, init_from=checkpoint, vision=other_layer).configure_model()
    moved = tmp_path / "moved"
    shutil.copytree(demo_world / "mini_saiga", moved)
    with pytest.warns(UserWarning, match=r"was trained with model\.language\.name '.*mini_saiga'"):
        make_module(
            demo_world, init_from=checkpoint, language=language(tmp_path, "moved")
        ).configure_model()
    with pytest.raises(SettingError, match=r"shaped differently .*other widths"), pytest.warns():
        make_module(
            demo_world, init_from=checkpoint, language=language(demo_world, "mini_vicuna")
        ).configure_model()


def test_what_an_earlier_stage_trained_is_kept_by_those_that_do_not(demo_world, tmp_path):
    """Or else the projector would be laid on a tower that it has never seen."""
    rates = LearningRates(projector=1e-3, lora=1e-3, vision=1e-2)
    trained = make_module(demo_world, learning_rate=rates)
    run(demo_world, tmp_path / "one", StopAfter(2), module=trained)
    first = str(tmp_path / "one/step-000002.ckpt")
    later = make_module(demo_world, init_from=first)
    run(demo_world, tmp_path / "two", StopAfter(2), module=later)
    second = str(tmp_path / "two/step-000002.ckpt")
    resumed = make_module(demo_world)
    run(demo_world, tmp_path / "two", StopAfter(4), module=resumed, ckpt_path=second)
    paths = (first, second, tmp_path / "two/step-000004.ckpt")
    states = [torch.load(path, weights_only=True)["state_dict"] for path in paths]
    tower = [name for name in states[0] if name.startswith("llava.vision_tower.")]
    assert tower
    for name in tower:
        assert torch.equal(states[0][name], states[1][name])
        assert torch.equal(states[0][name], states[2][name])
        assert torch.equal(states[0][name], resumed.state_dict()[name])


@pytest.mark.parametrize("precision", ["bf16-true", "16-true"])
def test_trained_weights_in_half_precision_are_refused(demo_world, tmp_path, precision):
    trainer = make_trainer(tmp_path, max_steps=1, precision=precision)
    with pytest.raises(SettingError, match=rf"trainer\.precision is {precision}, expected 32-true"):
        trainer.fit(make_module(demo_world), make_data(demo_world))


if __name__ == "__main__":
    run_on_two_ranks(Path(sys.argv[1]), Path(sys.argv[2]))
