"""Real input, same road: photographs and LLaVA's JSON to shards, fit, predict, validate."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from photographs import write_photographs
from runs import command_line

ROOT = Path(__file__).parents[1]
TALKS = {
    "astronaut": [("What is the woman wearing?", "A space suit."), ("Is she smiling?", "Yes")],
    "coffee": [("Что в чашке?", "Кофе.")],
    "rocket": [("Что это?", "Ракета «Falcon 9» на стартовой площадке.")],
    "china_wide": [("Describe the image briefly.", "A temple with red walls.")],
    "flower_tall": [("What color is the flower?", "Yellow")],
    "cat_tiny": [("Is there a cat in the image?", "Yes"), ("Is there a dog?", "No")],
    "moon_grey": [("Есть ли на изображении луна?", "Да")],
    "coffee_cmyk": [("Сколько чашек на изображении?", "1")],
    "cat_rotated": [("Есть ли на изображении собака?", "Нет")],
}
POPE = [
    ("astronaut.jpg", "Is there a person in the image?", "yes"),
    ("astronaut.jpg", "Is there a dog in the image?", "no"),
    ("cat_rotated.jpg", "Is there a cat in the image?", "yes"),
    ("moon_grey.jpg", "Is there a cat in the image?", "no"),
]
SCALARS = {
    "learning/loss",
    "learning/grad_norm",
    "learning/lr/projector",
    "learning/lr/lora",
    "data/supervised_tokens",
    "speed/tokens_per_second",
    "speed/samples_per_second",
    "speed/peak_memory_gb",
    "benchmarks/pope/random/accuracy",
    "benchmarks/pope/random/f1",
    "benchmarks/pope/random/yes_ratio",
}


def conversation(pairs, placeholders=1):
    turns = []
    for number, (question, answer) in enumerate(pairs):
        front = "<image>\n" * placeholders if number == 0 else ""
        turns += [{"from": "human", "value": front + question}, {"from": "gpt", "value": answer}]
    return turns


def write_lines(path, rows):
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    path.write_text("".join(lines), encoding="utf-8")


def read_ledger(folder):
    lines = (folder / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """LLaVA's JSON: a record for each photograph, one for two, one for none; shards, POPE file."""
    folder = tmp_path_factory.mktemp("photographs")
    paths = {path.stem: path for path in write_photographs(folder / "images")}
    assert paths.keys() == TALKS.keys()
    records = [
        {"id": name, "image": paths[name].name, "conversations": conversation(pairs)}
        for name, pairs in TALKS.items()
    ]
    both = conversation([("Which of them is a drink?", "The first")], placeholders=2)
    records += [
        {"id": "two", "image": ["coffee.jpg", "rocket.jpg"], "conversations": both},
        {"id": "none", "conversations": conversation([("Сколько будет 2 + 2?", "4")], 0)},
    ]
    (folder / "photos.json").write_text(json.dumps(records, ensure_ascii=False), encoding="utf-8")
    tool = [sys.executable, str(ROOT / "tools" / "shards.py"), "convert", "llava"]
    inputs = ["--json", folder / "photos.json", "--images", folder / "images"]
    subprocess.run([*tool, *map(str, inputs), "--output", str(folder / "shards")], check=True)
    rows = [
        {"question_id": i, "image": image, "text": text, "label": label}
        for i, (image, text, label) in enumerate(POPE, start=1)
    ]
    write_lines(folder / "coco_pope_random.json", rows)
    return folder


def benchmark(folder, images="images"):
    files = {"random": str(folder / "coco_pope_random.json")}
    spec = {"pope": {"files": files, "images": str(folder / images)}}
    return ["--data.benchmarks", json.dumps(spec)]


@pytest.fixture(scope="module")
def stack(demo_world):
    """The README's stack, but for mini parts."""
    files = [ROOT / "configs" / name for name in ("stage/lora.yaml", "hardware/cpu.yaml")]
    return [
        *(flag for file in files for flag in ("-c", file)),
        *("--model.vision.name", demo_world / "mini_clip"),
        *("--model.language.name", demo_world / "mini_saiga"),
        *("--model.language.template", "mistral_instruct"),
        *("--progress.refresh_rate", 0),
    ]


@pytest.fixture(scope="module")
def trained(photographs, stack, tmp_path_factory):
    """The run folder of three steps on the photographs and a validation."""
    runs = tmp_path_factory.mktemp("runs")
    sources = {"photos": {"shards": str(photographs / "shards" / "*.tar")}}
    command_line(
        "fit",
        *stack,
        *benchmark(photographs),
        *("--data.sources", json.dumps(sources)),
        *("--trainer.max_steps", 3, "--trainer.val_check_interval", 3),
        *("--trainer.log_every_n_steps", 1, "--trainer.default_root_dir", runs),
    )
    return runs / "version_0"


def test_fit_trains_on_photographs_and_shows_it(trained):
    events = EventAccumulator(str(trained))
    events.Reload()
    assert set(events.Tags()["scalars"]) >= SCALARS
    assert [event.step for event in events.Scalars("learning/loss")] == [0, 1, 2]
    assert events.Tags()["images"] == [f"panels/en/{number:02d}" for number in range(4)]
    saved = {path.name for path in (trained / "checkpoints").iterdir()}
    assert saved == {"step-000003.ckpt", "last.ckpt"}


def test_predict_answers_questions_about_photographs(trained, photographs, stack, tmp_path):
    questions = [
        {"question_id": "a", "text": "Что на снимке?", "image": "rocket.jpg"},
        {"question_id": "b", "text": "What is two plus two?"},
    ]
    write_lines(tmp_path / "questions.jsonl", questions)
    command_line(
        "predict",
        *stack,
        *("--data.predict.questions", tmp_path / "questions.jsonl"),
        *("--data.predict.images", photographs / "images"),
        *("--ckpt_path", trained / "checkpoints/last.ckpt"),
        *("--trainer.default_root_dir", tmp_path),
    )
    rows = read_ledger(tmp_path / "version_0")
    assert [(row["question_id"], row["label"], row["correct"]) for row in rows] == [
        ("a", None, None),
        ("b", None, None),
    ]
    assert rows[0]["prompt"] == "<s>[INST] <image>\nЧто на снимке? [/INST]"
    assert rows[1]["prompt"] == "<s>[INST] What is two plus two? [/INST]"


def test_validate_scores_pope_on_photographs(trained, photographs, stack, tmp_path):
    command_line(
        "validate",
        *stack,
        *benchmark(photographs),
        *("--ckpt_path", trained / "checkpoints/last.ckpt"),
        *("--trainer.default_root_dir", tmp_path),
    )
    report = json.loads((tmp_path / "version_0/report.json").read_text(encoding="utf-8"))
    assert report["counts"] == {"pope": {"random": 4}}
    assert report["scores"]["pope"]["random"]["total"] == 4
    assert report["scores"]["pope"]["random"]["chance_accuracy"] == 0.5
    rows = read_ledger(tmp_path / "version_0")
    assert [row["label"] for row in rows] == [label for *_, label in POPE]
    assert rows[0]["prompt"] == (
        "<s>[INST] <image>\nIs there a person in the image?\n"
        "Answer the question using a single word or phrase. [/INST]"
    )


@pytest.mark.filterwarnings("ignore:validate has neither --ckpt_path nor model.init_from")
def test_a_missing_photograph_stops_the_benchmark(photographs, stack, tmp_path, capsys):
    shutil.copy(photographs / "coco_pope_random.json", tmp_path)
    shutil.copytree(photographs / "images", tmp_path / "images")
    (tmp_path / "images" / "moon_grey.jpg").unlink()
    with pytest.raises(SystemExit, match="2"):
        command_line(
            "validate", *stack, *benchmark(tmp_path), "--trainer.default_root_dir", tmp_path
        )
    assert "data.benchmarks.pope.images: 1 of 3 images are missing" in capsys.readouterr().err


def test_scores_of_a_random_projector_come_with_a_warning(photographs, stack, tmp_path):
    with pytest.warns(UserWarning, match="the projector is random, and so are the answers"):
        command_line(
            "validate", *stack, *benchmark(photographs), "--trainer.default_root_dir", tmp_path
        )


def test_a_refused_resume_leaves_the_run_as_it_was(trained, capsys):
    before = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    resume = ["--config", trained / "config.yaml", "--ckpt_path", trained / "checkpoints/last.ckpt"]
    with pytest.raises(SystemExit, match="2"):
        command_line("fit", *resume, "--model.lora.r", 8)
    assert "model.lora.r is 8 but the checkpoint has 128" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        command_line("fit", *resume, "--data.pack_tokens", 999)
    assert "data.pack_tokens is 999 but the checkpoint has 2048" in capsys.readouterr().err
    after = {path: path.read_bytes() for path in trained.rglob("*") if path.is_file()}
    assert {path: content for path, content in after.items() if path in before} == before


def test_a_finished_run_says_that_nothing_is_left(trained, tmp_path, capsys):
    shutil.copytree(trained, tmp_path / "version_0")
    checkpoint = tmp_path / "version_0/checkpoints/last.ckpt"
    settings = ["--config", trained / "config.yaml", "--trainer.default_root_dir", tmp_path]
    command_line("fit", *settings, "--ckpt_path", checkpoint)
    said = capsys.readouterr().out
    assert "the run already had its 3 steps" in " ".join(said.split())
    line = r"^hand on: python tools/export.py --checkpoint \S+\.ckpt --output \S+$"
    assert re.search(line, said, re.MULTILINE)


def test_without_a_terminal_steps_are_written_as_lines(trained, tmp_path, capsys):
    command_line(
        *("fit", "--config", trained / "config.yaml", "--trainer.default_root_dir", tmp_path),
        *("--progress.refresh_rate", 1, "--trainer.limit_val_batches", 0),
    )
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.split(":")[0] for line in lines] == [f"step {n} of 3" for n in (1, 2, 3)]
    assert "loss" in lines[1]
    assert "tokens/s" in lines[1]
