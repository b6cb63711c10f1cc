"""Any resolution as a whole: it trains in packed rows, goes on where it stopped, and answers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

import long_run
from lightning_llava.data.index import build_index, read_sample
from lightning_llava.data.shards import write_shards
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.own import OwnCheckpoint, find_checkpoint
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.evaluation.run import evaluate
from lightning_llava.specs import BenchmarkSpec, LoraSpec, SourceSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder
from runs import command_line, language, make_module

CONFIGS = Path(__file__).parents[1] / "configs"
BOXES = [(0, 0, 128, 128), (0, 40, 128, 70), (30, 0, 60, 128), (0, 0, 40, 40)]
"""Parts of the demo's pictures, which are all squares of 128 pixels."""


def cropped(encoded, number, folder):
    path = folder / "crop.png"
    path.write_bytes(encoded)
    with Image.open(path) as image:
        part = image.crop(BOXES[number % len(BOXES)])
    part.save(path)
    return path.read_bytes()


@pytest.fixture(scope="module")
def shards(demo_world, tmp_path_factory):
    """Squares, wide, tall and small pictures, and conversations without one."""
    folder = tmp_path_factory.mktemp("crops")
    encoder, storage = ConversationEncoder(language(demo_world), 64), ShardStorage()
    names = {"vqa": "vqa-*", "text": "text-en-*"}
    sources = {name: SourceSpec(str(demo_world / f"train/{p}.tar")) for name, p in names.items()}
    index = build_index(sources, encoder, storage)
    samples = []
    for number, indexed in enumerate(index):
        sample = read_sample(storage, indexed)
        if not sample.images and number % 5:
            continue  # a few do: the first packs shall have pictures
        images = [cropped(image, number, folder) for image in sample.images]
        samples.append(replace(sample, images=images, id=str(number)))
    write_shards(samples, folder, "crops")
    return folder / "*.tar"


def fit(world, shards, root, *more):
    benchmark = {"files": files(world), "images": str(world / "images"), "subset": 6}
    command_line(
        *("fit", "-c", CONFIGS / "stage/lora.yaml", "-c", CONFIGS / "hardware/cpu.yaml"),
        *("-c", CONFIGS / "model/clip_saiga_mistral_7b.yaml"),
        *("-c", CONFIGS / "pictures/any_resolution.yaml"),
        *("--model.vision.name", world / "mini_clip", "--model.language.name"),
        *(world / "mini_saiga", "--model.lora", "{r: 8, alpha: 16, dropout: 0.05}"),
        *("--data.sources", json.dumps({"crops": {"shards": str(shards)}})),
        *("--data.benchmarks", json.dumps({"pope": benchmark})),
        *("--data.pack_tokens", 700, "--data.num_workers", 0, "--data.sample_log", "true"),
        *("--model.generation.max_new_tokens", 4, "--checkpoint.every_n_train_steps", 2),
        *("--trainer.accumulate_grad_batches", 1, "--trainer.log_every_n_steps", 1),
        *("--trainer.default_root_dir", root, "--progress.refresh_rate", 0),
        *more,
    )


def files(world):
    return {"random": str(world / "pope/en/demo_pope_random.json")}


@pytest.fixture(scope="module")
def whole(demo_world, shards, tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    fit(demo_world, shards, root, "--trainer.max_steps", 4)
    return root


def test_it_trains_the_newline_too(whole):
    losses = long_run.losses(whole)
    assert list(losses) == [0, 1, 2, 3]
    found = []
    for step in (2, 4):
        path = whole / f"version_0/checkpoints/step-{step:06}.ckpt"
        checkpoint = torch.load(path, weights_only=True)
        assert checkpoint["model_settings"]["model.vision"]["any_resolution"]
        found.append(checkpoint["state_dict"]["llava.image_newline"])
    assert not torch.equal(*found)


def test_a_resumed_run_is_the_uninterrupted_run_bit_by_bit(whole, demo_world, shards, tmp_path):
    fit(
        demo_world,
        shards,
        tmp_path,
        "--trainer.max_steps",
        4,
        "--ckpt_path",
        whole / "version_0/checkpoints/step-000002.ckpt",
    )
    before, after = long_run.losses(whole), long_run.losses(tmp_path)
    assert after == {step: before[step] for step in (2, 3)}
    assert long_run.lines(tmp_path) == long_run.lines(whole)[2:]


def test_a_checkpoint_without_its_trainer_answers_as_validation_did(whole, demo_world, tmp_path):
    run = whole / "version_0"
    theirs = read_ledger(run / "ledger.jsonl")
    spec = BenchmarkSpec(files=files(demo_world), images=str(demo_world / "images"))
    model = OwnCheckpoint(find_checkpoint(run, None), torch.device("cpu"), max_new_tokens=4)
    ours = evaluate(load_benchmark("pope", spec), model, tmp_path, {}, Console(quiet=True)).rows
    assert len(theirs) == 6
    assert {row.raw_answer for row in theirs} != {""}
    assert all(row in ours for row in theirs)


def test_it_starts_from_a_stage_of_single_squares(demo_world, short_run):
    squares = str(short_run / "checkpoints/last.ckpt")
    before = torch.load(squares, weights_only=True)["state_dict"]
    assert "llava.image_newline" not in before
    vision = VisionSpec(name=str(demo_world / "mini_clip"), any_resolution=True)
    module = make_module(demo_world, vision=vision, init_from=squares, lora=LoraSpec())
    module.configure_model()
    for name, weight in module.llava.projector.state_dict().items():
        assert torch.equal(weight, before[f"llava.projector.{name}"])
    assert module.llava.image_newline.requires_grad


def from_before(run, step):
    """A checkpoint as it was written before there were tiles."""
    checkpoint = torch.load(run / f"checkpoints/step-{step:06}.ckpt", weights_only=True)
    vision = checkpoint["model_settings"]["model.vision"]
    del vision["any_resolution"], vision["grids"]
    return checkpoint


def test_a_run_from_before_the_setting_goes_on(demo_world, short_run, tmp_path, capsys):
    torch.save(from_before(short_run, 1), tmp_path / "old.ckpt")
    command = long_run.command(demo_world, tmp_path)[3:]
    command += ["--data.num_workers=0", "--checkpoint.every_n_train_steps=1"]
    command += ["--ckpt_path", tmp_path / "old.ckpt"]
    command_line(*command, "--trainer.max_steps=2")
    last = long_run.losses(short_run.parent)[1]
    assert long_run.losses(tmp_path) == {1: last}
    with pytest.raises(SystemExit):
        command_line(*command, "--model.vision.any_resolution=true")
    assert "any_resolution is True but the checkpoint has False" in capsys.readouterr().err


@pytest.mark.parametrize("config_too", [False, True])
def test_a_checkpoint_from_before_the_setting_answers(short_run, tmp_path, config_too):
    (tmp_path / "checkpoints").mkdir()
    torch.save(from_before(short_run, 2), tmp_path / "checkpoints/last.ckpt")
    config = yaml.safe_load((short_run / "config.yaml").read_text())
    if config_too:
        del config["model"]["vision"]["any_resolution"], config["model"]["vision"]["grids"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    model = OwnCheckpoint(find_checkpoint(tmp_path, None), torch.device("cpu"))
    assert not model.vision.any_resolution


def test_a_checkpoint_from_before_the_setting_was_one_of_squares(demo_world, short_run):
    checkpoint = from_before(short_run, 2)
    settings = {"language": language(demo_world, max_length=2048), "lora": LoraSpec()}
    make_module(demo_world, **settings).on_load_checkpoint(checkpoint)
    tiled = VisionSpec(name=str(demo_world / "mini_clip"), any_resolution=True)
    with pytest.raises(SettingError, match=r"any_resolution is True but the checkpoint has False"):
        make_module(demo_world, vision=tiled, **settings).on_load_checkpoint(checkpoint)


def test_a_stage_of_single_squares_does_not_start_from_it(whole, demo_world):
    tiled = str(whole / "version_0/checkpoints/last.ckpt")
    module = make_module(demo_world, init_from=tiled, lora=LoraSpec(r=8, alpha=16))
    with pytest.raises(SettingError, match=r"trained with model\.vision\.any_resolution: true"):
        module.configure_model()
