"""Every stack of configs that the README names: what it sets in effect, and that it trains."""

import re
from itertools import permutations
from pathlib import Path

import pytest
import torch
import yaml

from lightning_llava.data.converters.kinds import KINDS
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.specs import BenchmarkSpec
from parsing import stack
from runs import command_line

CONFIGS = Path(__file__).parents[1] / "configs"
STAGES = {
    # LLaVA 1.5's recipe: scripts/v1_5/{pretrain,finetune,finetune_lora}.sh of the official code.
    "align": {"prompt": "plain", "image_mode": "square", "rates": {"projector": 1e-3}},
    "lora": {"prompt": "chat", "image_mode": "pad", "rates": {"projector": 2e-5, "lora": 2e-4}},
    "full": {"prompt": "chat", "image_mode": "pad", "rates": {"projector": 2e-5, "language": 2e-5}},
}
TEMPLATES = {
    "clip_vicuna_7b": "vicuna_v1",
    "clip_vicuna_13b": "vicuna_v1",
    "clip_mistral_7b": "mistral_instruct",
    "clip_llama2_7b": "llama_2",
    "clip_saiga_mistral_7b": "saiga_mistral",
    "clip_saiga_llama3_8b": "llama3",
    "clip_qwen": "qwen",
    "clip_qwen3_8b": "qwen3",
    "clip_gemma_7b": "gemma",
    "clip_gemma2_9b": "gemma",
    "clip_gemma3_4b": "gemma",
    "clip_phi3_mini": "phi3",
    "clip_phi4_mini": "phi3",
    "siglip_qwen": "qwen",
    "siglip2_qwen3_8b": "qwen3",
    "dinov2_qwen": "qwen",
}
STAND_INS = {
    "clip_qwen3_8b": ("clip", "qwen3"),
    "clip_gemma_7b": ("clip", "gemma"),
    "clip_gemma2_9b": ("clip", "gemma2"),
    "clip_gemma3_4b": ("clip", "gemma3"),
    "clip_phi3_mini": ("clip", "phi3"),
    "clip_phi4_mini": ("clip", "phi4_mini"),
    "siglip_qwen": ("siglip", "qwen2"),
    "siglip2_qwen3_8b": ("siglip2", "qwen3"),
    "dinov2_qwen": ("dinov2", "qwen2"),
}
"""Of the same architectures; the other files run with the demo's."""
SLOW = {"clip_qwen3_8b", "clip_gemma_7b", "clip_phi3_mini", "siglip_qwen", "siglip2_qwen3_8b"}
"""Whose parts are in another stack, or in tests/models."""
STACKS = [
    *(
        pytest.param("lora", model, marks=[pytest.mark.slow] * (model in SLOW))
        for model in TEMPLATES
    ),
    *(("align", model) for model in ("clip_saiga_mistral_7b", "clip_vicuna_7b")),
    ("full", "clip_vicuna_7b"),
]


HARDWARE = {
    # What each needs so that a 7B fits: docs/hardware.md.
    "cpu": {"precision": "32-true", "quantization": None, "name": "adamw"},
    "gpu_16gb": {"precision": "bf16-mixed", "quantization": "nf4", "name": "adamw_8bit"},
    "gpu_24gb": {"precision": "bf16-mixed", "quantization": None, "name": "adamw_8bit"},
    "gpu_80gb": {"precision": "bf16-mixed", "quantization": None, "name": "adamw"},
    "h200": {"precision": "bf16-mixed", "quantization": None, "name": "adamw"},
}
SAMPLE = 790
"""Tokens of a mix665k sample, its image's among them."""


@pytest.mark.parametrize("hardware", HARDWARE)
def test_any_order_of_files_gives_the_same_run(hardware):
    files = ["stage/lora", "model/clip_saiga_mistral_7b", f"hardware/{hardware}"]
    first, *others = [
        stack(*(f"configs/{name}.yaml" for name in order)) for order in permutations(files)
    ]
    assert all(other == first for other in others)
    model, trainer = first["model"], first["trainer"]
    language = {"name": "IlyaGusev/saiga_mistral_7b_merged", "template": "saiga_mistral"}
    assert model["language"].items() >= language.items()
    found = {
        "precision": trainer["precision"],
        "quantization": model["language"]["quantization"],
        "name": model["optimizer"]["name"],
    }
    assert found == HARDWARE[hardware]
    if hardware != "cpu":
        samples = first["data"]["pack_tokens"] * trainer["accumulate_grad_batches"] / SAMPLE
        assert 120 < samples < 136  # the recipe's 128


def test_any_resolution_goes_with_any_model_in_any_order():
    files = ["model/clip_qwen", "pictures/any_resolution", "stage/lora", "hardware/gpu_80gb"]
    first, other = (
        stack(*(f"configs/{name}.yaml" for name in order)) for order in (files, files[::-1])
    )
    assert first == other
    vision, language = first["model"]["vision"], first["model"]["language"]
    assert (vision["any_resolution"], language["max_length"]) == (True, 4096)
    assert vision["name"] == "openai/clip-vit-large-patch14-336"
    assert language["template"] == "qwen"
    # LLaVA-1.6's image_grid_pinpoints, in tiles of 336 pixels.
    assert vision["grids"] == [[1, 2], [2, 1], [2, 2], [3, 1], [1, 3]]
    assert first["data"]["pack_tokens"] >= language["max_length"]


def test_every_hardware_file_of_one_device_is_in_the_table():
    files = {path.stem for path in (CONFIGS / "hardware").glob("*.yaml")}
    assert files >= HARDWARE.keys()
    single = {
        name for name in files if stack(f"configs/hardware/{name}.yaml")["trainer"]["devices"] == 1
    }
    assert single == HARDWARE.keys()


def test_every_model_file_is_in_a_stack():
    files = {path.stem for path in (CONFIGS / "model").glob("*.yaml")}
    assert files == {"mini", *TEMPLATES}


@pytest.mark.parametrize("hardware", ["gpu_16gb", "gpu_24gb", "h200"])
def test_each_card_s_settings_take_a_step(demo_world, tmp_path, hardware):
    command_line(
        "fit",
        *("-c", CONFIGS / "stage/lora.yaml", "-c", CONFIGS / f"hardware/{hardware}.yaml"),
        *("-c", CONFIGS / "model/clip_saiga_mistral_7b.yaml"),
        *("--model.vision.name", demo_world / "mini_clip"),
        *("--model.language.name", demo_world / "mini_saiga"),
        *("--data.sources", f"{{demo: {{shards: {demo_world}/train/vqa-*.tar}}}}"),
        *("--data.pack_tokens", 600, "--data.num_workers", 0),
        *("--trainer.accelerator", "cpu", "--trainer.accumulate_grad_batches", 1),
        *("--trainer.max_steps", 1, "--trainer.log_every_n_steps", 1),
        *("--trainer.default_root_dir", tmp_path, "--progress.refresh_rate", 0),
    )
    checkpoint = torch.load(tmp_path / "version_0/checkpoints/last.ckpt", weights_only=True)
    assert (
        checkpoint["model_settings"]["model.language"]["quantization"]
        == (HARDWARE[hardware]["quantization"])
    )
    moments = checkpoint["optimizer_states"][0]["state"].values()
    in_8_bits = any("__bnb_optimizer_quant_state__" in state for state in moments)
    assert in_8_bits == (HARDWARE[hardware]["name"] == "adamw_8bit")


@pytest.mark.parametrize(("stage", "model"), STACKS)
def test_a_stack_means_what_it_says_and_takes_a_step(demo_world, stand_in, tmp_path, stage, model):
    minis = [demo_world / name for name in ("mini_clip", "mini_saiga")]
    tower, language = map(stand_in, STAND_INS[model]) if model in STAND_INS else minis
    files = [f"stage/{stage}", f"model/{model}", "data/llava_mix665k", "hardware/gpu_80gb"]
    shards = "captions-*.tar" if stage == "align" else "*.tar"
    command_line(
        "fit",
        *(flag for name in files for flag in ("-c", CONFIGS / f"{name}.yaml")),
        # The two names, the data, and what makes a step short; all else is the files' own.
        *("--model.vision.name", tower),
        *("--model.language.name", language),
        *("--data.sources.mix665k.shards", demo_world / "train" / shards),
        *("--data.pack_tokens", 600, "--data.num_workers", 0),
        *("--trainer.accelerator", "cpu", "--trainer.accumulate_grad_batches", 1),
        *("--trainer.max_steps", 1, "--trainer.log_every_n_steps", 1),
        *("--trainer.default_root_dir", tmp_path),
        *("--progress.refresh_rate", 0),
    )
    run, expected = tmp_path / "version_0", STAGES[stage]
    settings = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    assert settings["model"]["language"]["template"] == TEMPLATES[model]
    assert settings["data"]["prompt"] == expected["prompt"]
    assert settings["data"]["image_mode"] == expected["image_mode"]
    assert settings["data"]["epochs"] == 1
    assert settings["model"]["optimizer"]["schedule"] == "cosine"
    assert settings["model"]["optimizer"]["warmup_ratio"] == 0.03
    assert settings["trainer"]["precision"] == "bf16-mixed"
    assert settings["trainer"]["gradient_clip_val"] is None

    checkpoint = torch.load(run / "checkpoints/last.ckpt", weights_only=True)
    groups = checkpoint["optimizer_states"][0]["param_groups"]
    rates = {group["name"].removesuffix("_no_decay"): group["initial_lr"] for group in groups}
    assert rates == expected["rates"]
    assert {group["weight_decay"] for group in groups} == {0.0}
    weights = checkpoint["state_dict"]
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    ranks = {weight.shape[0] for name, weight in weights.items() if ".lora_A." in name}
    assert ranks == ({128} if stage == "lora" else set())
    kept = {name.split(".")[1] for name in weights}
    assert kept == ({"projector"} if stage == "align" else {"projector", "language"})


LLAVA_JSON = {"lcs558k", "mix665k"}
"""Sources that the converter `llava` writes."""


@pytest.mark.parametrize(
    "file", sorted((CONFIGS / "data").glob("*.yaml")), ids=lambda path: path.stem
)
def test_a_mixture_names_what_converters_write_and_trains(demo_world, tmp_path, file):
    sources = yaml.safe_load(file.read_text(encoding="utf-8"))["data"]["sources"]
    assert sources.keys() <= KINDS.keys() | LLAVA_JSON
    assert {spec["shards"] for spec in sources.values()} == {
        f"data/shards/{name}/*.tar" for name in sources
    }
    moved = (
        (f"--data.sources.{name}.shards", demo_world / "train/ocr-ru-*.tar") for name in sources
    )
    command_line(
        "fit",
        *(
            flag
            for name in ("stage/lora", "model/clip_saiga_mistral_7b", "hardware/cpu")
            for flag in ("-c", CONFIGS / f"{name}.yaml")
        ),
        *("-c", file),
        *(flag for pair in moved for flag in pair),
        *("--model.vision.name", demo_world / "mini_clip"),
        *("--model.language.name", demo_world / "mini_saiga"),
        *("--trainer.max_steps", 1, "--trainer.log_every_n_steps", 1),
        *("--trainer.default_root_dir", tmp_path, "--progress.refresh_rate", 0),
    )
    checkpoint = torch.load(tmp_path / "version_0/checkpoints/last.ckpt", weights_only=True)
    planned = checkpoint["ShardDataModule"]["settings"]["data.sources"]
    assert {name: found["weight"] for name, found in planned.items()} == {
        name: spec.get("weight", 1.0) for name, spec in sources.items()
    }


@pytest.mark.parametrize("path", sorted((CONFIGS / "eval").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_benchmark_file_is_understood_up_to_its_data(path, tmp_path, monkeypatch):
    benchmarks = stack(path)["data"]["benchmarks"]
    named = yaml.safe_load(path.read_text())["data"]["benchmarks"]
    assert {name: spec["kind"] for name, spec in benchmarks.items()} == {
        name: spec["kind"] for name, spec in named.items()
    }
    monkeypatch.chdir(tmp_path)
    for name, spec in benchmarks.items():
        first = next(iter(spec["files"].values()))
        with pytest.raises(SettingError, match=re.escape(first)) as refused:
            load_benchmark(name, BenchmarkSpec(**spec))
        assert re.search("does not exist|No such file", str(refused.value))
