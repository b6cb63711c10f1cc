"""The paper in miniature: what it runs, that it runs it once, how its tables and charts read."""

import json
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console
from torch.utils.tensorboard import SummaryWriter

from lightning_llava.demo.scenes import HELD_OUT_KINDS, generate
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answering import make_rows
from lightning_llava.evaluation.benchmarks import Question
from parsing import parse

ROOT = Path(__file__).parents[2]
QUIET = Console(quiet=True)
OPTIONS = Namespace(steps=None, align_steps=None, subset=None, fit_flags=[])


@pytest.fixture(autouse=True)
def tools(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "tools")


@pytest.fixture
def checkout(tmp_path, monkeypatch, demo_world):
    """A folder with the configs and a small world, to run in."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "configs", "configs")
    demo, scenes = Path("configs/demo.yaml"), "train_scenes: 40, validation_scenes: 8"
    settings = demo.read_text().replace("{folder: data/demo}", f"{{folder: data/demo, {scenes}}}")
    demo.write_text(settings)
    shutil.copytree(demo_world, "data/demo")
    return tmp_path


def variant(*flags):
    from paper_variants import add_variant, variant_of

    parser = ArgumentParser()
    add_variant(parser)
    return variant_of(parser.parse_args(flags))


def settings(stage, model, *flags, **options):
    from paper_variants import fit_arguments

    options = Namespace(**vars(OPTIONS) | options)
    return parse("fit", *fit_arguments(stage, model, variant(*flags), Path("out"), options))


@pytest.mark.parametrize(
    ("model", "template", "languages"),
    [("mini-vicuna", "vicuna_v1", "-en-*"), ("mini-saiga", "saiga_mistral", "-*")],
)
def test_both_stages_in_effect(checkout, model, template, languages):
    align, lora = settings("align", model), settings("lora", model, steps=7)
    assert align["data"]["prompt"] == "plain"
    assert align["model"]["lora"] is None
    assert align["model"]["learning_rate"]["lora"] is None
    assert align["model"]["init_from"] is None
    assert align["data"]["sources"].keys() == {"captions"}
    shards = align["data"]["sources"]["captions"]["shards"]
    assert shards == f"data/demo/train/captions{languages}.tar"
    assert lora["data"]["prompt"] == "chat"
    assert lora["model"]["lora"]["r"] == 64
    assert lora["model"]["init_from"] == f"out/align/{model}/version_0/checkpoints/last.ckpt"
    assert lora["trainer"]["max_steps"] == 7 < align["trainer"]["max_steps"]
    assert lora["data"]["sources"]["text"]["weight"] == 1
    assert {name.removesuffix("_ru") for name in lora["data"]["benchmarks"]} == {
        *("vqav2", "gqa", "pope", "ocr"),
    }
    for stage in (align, lora):
        assert stage["model"]["language"]["template"] == template
        assert all(languages in s["shards"] for s in stage["data"]["sources"].values())


def test_ablations_in_effect(checkout):
    rank = settings("lora", "mini-saiga", "--lora-rank", "8")["model"]
    assert (rank["lora"]["r"], rank["lora"]["alpha"]) == (8, 16)
    # The align stage knows nothing of the rank, and is shared.
    assert rank["init_from"] == "out/align/mini-saiga/version_0/checkpoints/last.ckpt"
    linear = settings("lora", "mini-saiga", "--linear-projector")["model"]
    assert linear["projector"]["type"] == "linear"
    assert linear["init_from"].startswith("out/ablations/linear-projector/align/mini-saiga/")
    assert settings("align", "mini-saiga", "--linear-projector")["model"]["projector"] == {
        "type": "linear"
    }
    assert settings("lora", "mini-saiga", "--no-align")["model"]["init_from"] is None
    replay = settings("lora", "mini-vicuna", "--text-replay", "0.25")["data"]["sources"]
    assert {name: source["weight"] for name, source in replay.items()} == {
        "pictures": 1,
        "text": 0.25,
    }
    blank = settings("lora", "mini-vicuna", "--no-image", "--text-replay", "0.25")["data"]
    assert blank["sources"]["text"] == {
        "shards": "out/ablations/blank_world/train/text-en-*.tar",
        "weight": 0.25,
    }
    images = {benchmark["images"] for benchmark in blank["benchmarks"].values()}
    assert images == {"out/ablations/blank_pictures"}


def test_what_an_ablation_shares():
    permuted = variant("--permuted-images")
    assert permuted.folder(Path("out")) == Path("out/ablations/permuted-images")
    assert permuted.trained_as("lora").folder(Path("out")) == Path("out")
    both = variant("--no-image", "--lora-rank", "4")
    assert both.name == "lora-rank-4_no-image"
    assert both.trained_as("align").name == "no-image"
    assert both.trained_as("lora") == both
    with pytest.raises(SettingError, match="blank pictures are all the same"):
        variant("--no-image", "--permuted-images")


def test_without_configs_it_says_where_to_run(tmp_path, monkeypatch):
    from paper_variants import read_world

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="run this in the folder that holds configs/"):
        read_world()


def test_a_part_is_made_once(tmp_path):
    from paper_parts import once

    made = []

    def stopped():
        made.append("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        once(tmp_path / "part", {"fit": "a"}, stopped, QUIET)
    for _ in range(2):
        once(tmp_path / "part", {"fit": "a"}, lambda: made.append("whole"), QUIET)
    assert made == ["half", "whole"]
    with pytest.raises(SettingError, match=r"was made with fit 'a', and is now asked for with 'b'"):
        once(tmp_path / "part", {"fit": "b"}, lambda: made.append("other"), QUIET)
    assert made == ["half", "whole"]


def test_training_goes_on_from_its_last_checkpoint(checkout, monkeypatch):
    import paper_parts

    commands, output = [], Path("out")
    run = output / "align" / "mini-saiga" / "version_0"

    def killed(words):
        commands.append(words)
        (run / "checkpoints").mkdir(parents=True)
        if len(commands) == 2:
            (run / "checkpoints" / "last.ckpt").touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(paper_parts, "run_command", killed)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            paper_parts.train("align", "mini-saiga", variant(), output, ["-c", "a.yaml"], QUIET)
    monkeypatch.setattr(paper_parts, "run_command", commands.append)
    for _ in range(2):
        paper_parts.train("align", "mini-saiga", variant(), output, ["-c", "a.yaml"], QUIET)
    fresh = ["fit", "-c", "a.yaml", "--trainer.default_root_dir", "out/align/mini-saiga"]
    last = run / "checkpoints" / "last.ckpt"
    again = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(last)]
    assert commands == [fresh, fresh, again]


def test_a_training_without_a_checkpoint_is_no_training(checkout, monkeypatch):
    import paper_parts

    monkeypatch.setattr(paper_parts, "run_command", lambda words: None)
    with pytest.raises(SettingError, match="training ended without out/lora/mini-saiga/"):
        paper_parts.train("lora", "mini-saiga", variant(), Path("out"), [], QUIET)


def test_pictures_of_other_scenes(checkout):
    from paper_parts import other_pictures

    own = {path.name: path.read_bytes() for path in Path("data/demo/images").iterdir()}
    other_pictures(variant("--permuted-images"), Path("out"), QUIET)
    folder = Path("out/ablations/permuted_pictures")
    shown = {path.name: path.read_bytes() for path in folder.glob("*.png")}
    assert shown.keys() == own.keys()
    assert not any(shown[name] == own[name] for name in own)
    assert sorted(shown.values()) == sorted(own.values())


def test_blank_pictures_and_records(checkout):
    from paper_parts import blank_records, other_pictures

    from lightning_llava.evaluation.answerers.question_only import read_short_answers

    other_pictures(variant("--no-image"), Path("out"), QUIET)
    blank_records(Path("out"), QUIET)
    shown = [Image.open(path) for path in Path("out/ablations/blank_pictures").glob("*.png")]
    assert {(image.size, *image.getcolors()) for image in shown} == {
        ((128, 128), (128 * 128, (128, 128, 128)))
    }
    names = {path.name for path in Path("data/demo/train").glob("*.tar")}
    blank = Path("out/ablations/blank_world/train")
    assert {path.name for path in blank.glob("*.tar")} == names
    said = [list(read_short_answers(f"{f}/vqa-*.tar")) for f in ("data/demo/train", blank)]
    assert said[0] == said[1]


def measured(scores, low=None):
    """Make what `describe` returns of numbers per benchmark."""
    benchmarks = {}
    for (kind, language), value in scores.items():
        number = {"value": value, "low": low, "high": low and 2 * value - low, "questions": 50}
        measure = {"pope": "f1"}.get(kind, "accuracy")
        splits = {name: {measure: number} for name in ("held_out", "seen", "mean")}
        benchmarks[f"{kind}_{language}"] = {
            "kind": kind,
            "language": language,
            "splits": splits,
            "parts": {"where": splits["seen"], "exists": splits["seen"]},
            "yes_ratio": 0.25,
            "language_fidelity": 0.5 if kind == "pope" else 1.0,
            "total": 300 if kind == "pope" else 100,
        }
    return {"benchmarks": benchmarks}


RESULTS = {
    "mini-vicuna": measured({("vqav2", "en"): 0.8, ("pope", "en"): 0.9, ("ocr", "en"): 0.5}, 0.4),
    "question only": measured({("vqav2", "en"): 0.25, ("vqav2", "ru"): 0.125}),
}


def test_scores_in_the_layout_of_table_3():
    from paper_table import score_lines

    assert score_lines(RESULTS) == [
        ["model", "questions", "VQAv2", "GQA", "POPE", "OCR"],
        [
            *("mini-vicuna", "English", "0.800 (0.400–1.200)", "–", "0.900 (0.400–1.400)"),
            "0.500 (0.400–0.600)",
        ],
        ["question only", "English", "0.250", "–", "–", "–"],
        ["mini-vicuna", "Russian", "–", "–", "–", "–"],
        ["question only", "Russian", "0.125", "–", "–", "–"],
    ]


def test_leanings_and_language():
    from paper_table import leaning_lines

    header, first, *_ = leaning_lines(RESULTS)
    found = dict(zip(header, first, strict=True))
    assert (found["yes, VQAv2"], found["yes, GQA"], found["ceiling VQAv2"]) == ("0.250", "–", "–")
    # 100 questions of VQAv2, all in the language, and half of POPE's 300; OCR does not count.
    assert found["language"] == "0.625"


def test_splits_and_parts_in_their_order():
    from paper_table import markdown, part_lines, split_lines

    header, *_ = split_lines(RESULTS)
    assert header[2:4] == ["VQAv2, seen (50)", "VQAv2, held_out (50)"]
    assert markdown(part_lines({"question only": RESULTS["question only"]}, "vqav2")) == (
        "| model | questions | exists (50) | where (50) |\n"
        "| --- | --- | ---: | ---: |\n"
        "| question only | English | 0.250 | 0.250 |\n"
        "| question only | Russian | 0.125 | 0.125 |"
    )


def test_ablations_side_by_side():
    from paper_table import ablation_lines

    lines = ablation_lines({"paper": RESULTS, "no-align": RESULTS})
    assert lines[0][:4] == ["variant", "model", "VQAv2 en", "GQA en"]
    assert [line[:3] for line in lines[1:]] == [
        ["paper", "mini-vicuna", "0.800"],
        ["paper", "question only", "0.250"],
        ["no-align", "mini-vicuna", "0.800"],
    ]


def rows_of(kind, *answered, language="en", split="seen"):
    """Answer questions of a kind: label, raw answer, types and number of the scene."""
    made = []
    for number, (label, said, types, scene) in enumerate(answered):
        answers = (label,) * (10 if kind == "vqav2" else 1)
        image = Path(f"COCO_demo_{scene:012d}.png")
        name = f"{kind}{'_ru' * (language == 'ru')}"
        question = Question(
            *(name, split, str(number), "?", image, label, language, kind, answers),
            tuple(types.items()),
        )
        made += make_rows([question], "?", said)
    return made


def test_a_ledger_measured_by_hand():
    from paper_measure import describe

    def vqa(topic):
        return {"question_type": topic, "answer_type": "other"}

    shows = {
        any(kind in HELD_OUT_KINDS for kind in generate(0, i, "validation").kinds): i
        for i in range(60)
    }
    rows = [
        *rows_of("vqav2", ("yes", "Yes", vqa("exists"), 1), ("no", "Yes", vqa("exists"), 2)),
        *rows_of("vqav2", ("red", "Red", vqa("colour_of"), 3), split="held_out"),
        *rows_of("ocr", ("SUN", "SUN", {}, 1), ("ДОМ", "ДЫМ", {}, 2)),
        *rows_of("pope", ("yes", "Yes", {}, shows[True]), ("no", "Yes", {}, shows[False])),
    ]
    found = describe(rows, {"vqav2/mean": {"ceiling": 0.75}}, seed=0)["benchmarks"]
    vqav2, ocr, pope = (found[name] for name in ("vqav2", "ocr", "pope"))
    assert {name: part["accuracy"]["value"] for name, part in vqav2["splits"].items()} == {
        "seen": 0.5,
        "held_out": 1.0,
        "mean": 0.75,
    }
    assert vqav2["parts"]["exists"]["accuracy"]["value"] == 0.5
    assert vqav2["parts"]["colour_of"]["accuracy"]["value"] == 1.0
    assert (vqav2["yes_ratio"], vqav2["ceiling"], vqav2["total"]) == (1.0, 0.75, 3)
    assert ocr["cer"] == pytest.approx(1 / 6)
    assert ocr["parts"]["Latin"]["accuracy"]["value"] == 1
    assert ocr["parts"]["Cyrillic"]["accuracy"]["value"] == 0
    assert pope["parts"]["held_out"]["accuracy"]["value"] == 1
    assert pope["parts"]["seen"]["accuracy"]["value"] == 0
    assert pope["yes_ratio"] == 1


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (4.2, [0, 1, 2, 3, 4, 5]),
        (300, [0, 100, 200, 300]),
        (0.09, [0, 0.02, 0.04, 0.06, 0.08, 0.1]),
    ],
)
def test_round_ticks(highest, ticks):
    from paper_chart import round_ticks

    assert round_ticks(highest) == pytest.approx(ticks)


def test_a_score_is_where_its_number_says(tmp_path):
    from paper_chart import SERIES
    from paper_pictures import FACET, LABELS, ROW, TOP, draw_scores

    draw_scores(RESULTS, tmp_path / "scores.png")
    picture = Image.open(tmp_path / "scores.png")
    y = TOP + 4 + ROW  # the first line
    dot = picture.getpixel((round(LABELS + 0.8 * FACET), y))
    assert max(abs(a - b) for a, b in zip(dot, SERIES[0], strict=True)) < 8
    # What needs no picture is a dark line, higher than a dot.
    dark = [x for x in range(LABELS + FACET) if max(picture.getpixel((x, y - 12))) < 130]
    assert dark
    assert all(abs(x + 0.5 - (LABELS + 0.25 * FACET)) <= 1 for x in dark)


def test_losses_of_a_run_that_went_on(tmp_path):
    from paper_pictures import draw_losses, read_losses

    for steps in ((1, 2, 3), (2, 3, 4)):  # stopped after step 3, continued from step 1
        with SummaryWriter(tmp_path / "run") as writer:
            for step in steps:
                writer.add_scalar("learning/loss", 10 * len(steps) - step, step)
    assert read_losses(tmp_path / "run") == [(1, 29), (2, 28), (3, 27), (4, 26)]
    (tmp_path / "empty").mkdir()
    assert read_losses(tmp_path / "empty") == []
    runs = {("align", "a"): tmp_path / "run", ("lora", "a"): tmp_path / "empty"}
    draw_losses(runs, tmp_path / "losses.png")
    assert len(Image.open(tmp_path / "losses.png").getcolors(1 << 20)) > 10


SHORT = [
    *("--output", "out", "--align-steps", "2", "--steps", "2", "--subset", "6", "--"),
    *("--trainer.log_every_n_steps", "1", "--progress.refresh_rate", "0"),
    *("--trainer.num_sanity_val_steps", "0", "--trainer.limit_val_batches", "0"),
    *("--data.pack_tokens", "600"),
]


@pytest.mark.slow
def test_the_whole_experiment_and_two_ablations(checkout, monkeypatch, capsys):
    import paper_parts
    from paper_in_miniature import main

    real, calls = paper_parts.run_command, []

    def third_is_stopped(words):
        calls.append(words)
        if len(calls) == 3:
            raise KeyboardInterrupt
        real(words)

    monkeypatch.setattr(paper_parts, "run_command", third_is_stopped)
    with pytest.raises(KeyboardInterrupt):
        main(SHORT)
    # A stage that had ended, but not been noted: there is nothing left to train.
    note = Path("out/lora/mini-vicuna/part.json")
    note.write_text(note.read_text().replace('"finished": true', '"finished": false'))
    assert main(SHORT) == 0
    assert len(calls) == 3 + 3
    assert "--ckpt_path" in calls[3]
    for stage in ("align", "lora"):
        for model in ("mini-vicuna", "mini-saiga"):
            last = Path(f"out/{stage}/{model}/version_0/checkpoints/last.ckpt")
            assert torch.load(last, weights_only=True)["global_step"] == 2
    table = json.loads(Path("out/table.json").read_text(encoding="utf-8"))
    assert table["command"].startswith("python tools/paper_in_miniature.py --output out")
    assert table["results"].keys() == {"mini-vicuna", "mini-saiga", "question only"}
    for found in table["results"].values():
        assert len(found["benchmarks"]) == 8
        for part in found["benchmarks"].values():
            assert {"seen", "mean"} <= part["splits"].keys() or part["kind"] == "pope"
    before = {path: path.read_bytes() for path in Path("out").rglob("*.jsonl")}

    monkeypatch.setattr(paper_parts, "run_command", calls.append)
    assert main(SHORT) == 0
    assert main(["--permuted-images", *SHORT]) == 0
    assert len(calls) == 6, "nothing is trained twice"
    assert before.items() <= {p: p.read_bytes() for p in Path("out").rglob("*.jsonl")}.items()
    assert "ablations" in capsys.readouterr().out
    permuted = Path("out/ablations/permuted-images")
    for folder in (Path("out"), permuted):
        names = ["table.md", "table.json", "scores.png", "losses.png", "samples.png"]
        assert [name for name in names if not (folder / name).is_file()] == []
    lines = Path("out/ablations.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        *("paper", "paper", "paper", "permuted-images", "permuted-images"),
    ]

    # With other settings it refuses before anything is trained.
    other = ["3" if word == "2" else word for word in SHORT]
    assert main(other) == 2
    assert "was made with fit" in capsys.readouterr().err
