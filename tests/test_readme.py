"""README's commands, run as they stand, but for mini parts in the places of the big ones."""

import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from photographs import write_photographs
from runs import command_line, lay_out_checkout

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.S)
COMMANDS = [line for block in BLOCKS for line in block.splitlines()]
OURS = [line for line in COMMANDS if line.startswith("python ")]


def test_the_first_two_commands_are_those_that_ci_runs():
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert all(command in ci for command in COMMANDS[:2])
    assert COMMANDS[0].endswith("python -m lightning_llava fit --config configs/demo.yaml")


@pytest.fixture
def checkout(tmp_path, monkeypatch, demo_world):
    """A folder with the configs, and mini data in the places that they name."""
    monkeypatch.chdir(tmp_path)
    lay_out_checkout(demo_world, tmp_path)
    for name, kind in [("lcs558k", "captions"), ("mix665k", "vqa")]:
        folder = Path("data/shards") / name
        folder.mkdir(parents=True)
        for path in (demo_world / "train").glob(f"{kind}-*.tar"):
            shutil.copy(path, folder)
    Path("data/pope").mkdir()
    for path in (demo_world / "pope/en").glob("demo_*.json"):
        shutil.copy(path, Path("data/pope") / path.name.replace("demo", "coco"))
    shutil.copytree(demo_world / "images", "data/coco/val2014")
    write_photographs(Path("photos"))
    talk = [{"from": "human", "value": "<image>\nЧто это?"}, {"from": "gpt", "value": "Ракета"}]
    record = {"id": "a", "image": "rocket.jpg", "conversations": talk}
    Path("photos.json").write_text(json.dumps([record]), encoding="utf-8")
    question = {"question_id": "a", "text": "Что это?", "image": "rocket.jpg"}
    Path("questions.jsonl").write_text(json.dumps(question), encoding="utf-8")
    return tmp_path


SHORT = [
    *("--data.pack_tokens", 600, "--trainer.max_steps", 1, "--trainer.log_every_n_steps", 1),
    *("--trainer.num_sanity_val_steps", 0, "--model.generation.max_new_tokens", 2),
    *("--progress.refresh_rate", 0),
]


def mini(world):
    """What takes the place of the big models, the GPU and the many steps."""
    return [
        *("--model.vision.name", world / "mini_clip", "--model.language.name"),
        *(world / "mini_saiga", "--trainer.accelerator", "cpu", "--data.num_workers", 0),
        *("--trainer.accumulate_grad_batches", 1),
        *SHORT,
    ]


@pytest.mark.slow
def test_every_command_runs_in_order(checkout, demo_world):
    assert len(OURS) == 14
    for command in OURS:
        arguments = shlex.split(command)
        if arguments[1].startswith("tools/"):
            tool = [sys.executable, ROOT / arguments[1], *arguments[2:]]
            subprocess.run(list(map(str, tool)), check=True)
            continue
        assert arguments[1:3] == ["-m", "lightning_llava"]
        more = mini(demo_world) if "-c" in arguments else []
        if "configs/demo.yaml" in arguments:
            more = SHORT
        if "--ckpt_path" in arguments and arguments[3] == "fit":
            more = ["--trainer.max_steps", 2]  # the run to be resumed has made its one step
            # and no longer needs the weights that it began from
            shutil.rmtree("runs/align" if "runs/lora" in command else "runs/mini_align")
        command_line(*arguments[3:], *more)
    assert {path.parent.name for path in checkout.glob("runs/**/report.json")} >= {"version_0"}
    assert list(checkout.glob("runs/lora/version_0/checkpoints/step-000002.ckpt"))
    answers = [
        path
        for path in checkout.glob("runs/**/ledger.jsonl")
        if "Что это?" in path.read_text("utf-8")
    ]
    assert len(answers) == 1
    assert (checkout / "exported" / "model.safetensors").exists()
