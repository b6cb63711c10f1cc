"""tools/import_weights.py: the lines that it prints work as they stand."""

import json
import shlex
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, CLIPVisionConfig

import layouts
from lightning_llava.evaluation.command import run as evaluate
from lightning_llava.evaluation.ledger import read_ledger
from parsing import parse, stack
from runs import command_line

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(ROOT / "tools")
    import import_weights

    return import_weights


@pytest.fixture
def source(demo_world, tmp_path):
    """An original checkpoint of the miniature, with a random projector."""
    folder = tmp_path / "source"
    folder.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).symlink_to(demo_world / "mini_saiga" / name)
    config = json.loads((demo_world / "mini_saiga/config.json").read_text())
    more = {"model_type": "llava_mistral", "mm_vision_tower": str(demo_world / "mini_clip")}
    layouts.write_json(folder / "config.json", config | layouts.MM_FIELDS | more)
    weights = load_file(demo_world / "mini_saiga/model.safetensors")
    torch.manual_seed(0)
    width = config["hidden_size"]
    seen = CLIPVisionConfig.from_pretrained(demo_world / "mini_clip").hidden_size
    for layer, inputs in ((0, seen), (2, width)):
        weights[f"model.mm_projector.{layer}.weight"] = torch.randn(width, inputs) / inputs**0.5
        weights[f"model.mm_projector.{layer}.bias"] = torch.zeros(width)
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def lines(printed):
    """The printed commands by what they are for, without the program."""
    found = dict(line.split(":", 1) for line in printed.splitlines())
    return {name: shlex.split(found[name]) for name in ("train", "validate", "measure")}


def test_the_printed_lines_train_validate_and_measure(tool, source, demo_world, tmp_path, capsys):
    output = tmp_path / "taken over"  # a space, as in many a home folder
    given = ["--source", source, "--output", output, "--template", "mistral_instruct"]
    assert tool.main([str(word) for word in given]) == 0
    printed = lines(capsys.readouterr().out)
    assert " --data.image_mode pad" in " ".join(printed["train"])
    names = ["configs/stage/lora.yaml", "configs/hardware/cpu.yaml", output / "model.yaml"]
    first, *others = [stack(*order) for order in (names, names[::-1], names[1:] + names[:1])]
    assert all(other == first for other in others)
    assert first["model"]["language"]["name"] == str(output / "language")

    files = {
        "DATA.yaml": "configs/data/llava_mix665k.yaml",
        "HARDWARE.yaml": "configs/hardware/cpu.yaml",
    }
    shards = demo_world / "train/vqa-*.tar"
    cheap = ["--trainer.default_root_dir", tmp_path / "runs", "--progress.refresh_rate", 0]
    command_line(
        *(files.get(word, word) for word in printed["train"][3:]),
        *("--data.sources", f"{{demo: {{shards: {shards}}}}}", "--data.pack_tokens", 600),
        *("--data.num_workers", 0, "--trainer.max_steps", 1, "--trainer.log_every_n_steps", 1),
        *cheap,
    )
    before = torch.load(output / "weights.ckpt", weights_only=True)["state_dict"]
    trained = tmp_path / "runs/version_0/checkpoints/last.ckpt"
    after = torch.load(trained, weights_only=True)["state_dict"]
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, atol=1e-4, rtol=0)  # a step of 2e-5

    asked = {
        "files": {"random": str(demo_world / "pope/en/demo_pope_random.json")},
        "images": str(demo_world / "images"),
    }
    benchmark = tmp_path / "pope.yaml"
    layouts.write_json(benchmark, {"data": {"benchmarks": {"pope": asked | {"subset": 12}}}})
    swap = {"configs/eval/pope.yaml": str(benchmark), "runs/eval/imported": str(tmp_path / "eval")}
    command_line(
        *(swap.get(word, word) for word in printed["validate"][3:]),
        *("--trainer.accelerator", "cpu", "--data.num_workers", 0, *cheap),
    )
    assert (
        evaluate([swap.get(word, word) for word in printed["measure"][2:]] + ["--subset", "12"])
        == 0
    )
    validated, measured = (
        {row.question_id: row.raw_answer for row in read_ledger(folder / "ledger.jsonl")}
        for folder in (tmp_path / "runs/version_1", tmp_path / "eval")
    )
    assert validated == measured
    assert len(validated) == 12


def test_the_printed_line_for_an_llm_alone(tool, demo_world, tmp_path, capsys):
    language = AutoModelForCausalLM.from_pretrained(demo_world / "mini_saiga")
    layouts.save_adapter(language, tmp_path / "lora", demo_world / "mini_saiga", ["q_proj"], True)
    output = tmp_path / "out"
    given = ["--source", tmp_path / "lora", "--output", output, "--template", "saiga_mistral"]
    assert tool.main([str(word) for word in given]) == 0
    line = capsys.readouterr().out.splitlines()[-1].partition("train:")[2]
    files = {"DATA.yaml": "configs/data/lcs558k.yaml", "HARDWARE.yaml": "configs/hardware/cpu.yaml"}
    model = parse(*(files.get(word, word) for word in shlex.split(line)[3:]))["model"]
    assert model["language"]["name"] == str(output / "language")
    assert model["language"]["template"] == "saiga_mistral"
