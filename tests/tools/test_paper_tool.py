"""The paper in miniature: what it runs, and that it runs it once."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from lightning_llava.errors import SettingError
from parsing import parse
from runs import lay_out_checkout

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
    lay_out_checkout(demo_world, tmp_path)
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
    assert align["data"]["prompt"] == "chat"
    assert align["model"]["lora"] is None
    assert align["model"]["learning_rate"]["lora"] is None
    assert align["model"]["init_from"] is None
    assert align["data"]["sources"].keys() == {"captions"}
    shards = align["data"]["sources"]["captions"]["shards"]
    assert shards == f"data/demo/train/captions{languages}.tar"
    assert lora["data"]["prompt"] == "chat"
    assert lora["model"]["lora"]["r"] == 16
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
    as_ever = settings("lora", "mini-vicuna")["data"]["sources"]
    assert replay == as_ever | {"text": as_ever["text"] | {"weight": 0.25}}
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
            paper_parts.train(
                "align", "mini-saiga", variant(), output, ["-c", "configs/demo.yaml"], QUIET
            )
    monkeypatch.setattr(paper_parts, "run_command", commands.append)
    for _ in range(2):
        paper_parts.train(
            "align", "mini-saiga", variant(), output, ["-c", "configs/demo.yaml"], QUIET
        )
    fresh = ["fit", "-c", "configs/demo.yaml", "--trainer.default_root_dir", "out/align/mini-saiga"]
    last = run / "checkpoints" / "last.ckpt"
    again = ["fit", "--config", str(run / "config.yaml"), "--ckpt_path", str(last)]
    assert commands == [fresh, fresh, again]


def test_a_training_without_a_checkpoint_is_no_training(checkout, monkeypatch):
    import paper_parts

    monkeypatch.setattr(paper_parts, "run_command", lambda words: None)
    with pytest.raises(SettingError, match="training ended without out/align/mini-saiga/"):
        paper_parts.train("align", "mini-saiga", variant(), Path("out"), [], QUIET)


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
        names = ["table.md", "table.json", "table.png", "scores.png", "losses.png", "samples.png"]
        assert [name for name in names if not (folder / name).is_file()] == []
    lines = Path("out/ablations.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in lines[4:]] == [
        *("paper", "paper", "paper", "permuted-images", "permuted-images"),
    ]

    # With other settings it refuses before anything is trained.
    other = ["3" if word == "2" else word for word in SHORT]
    assert main(other) == 2
    assert "was made with fit" in capsys.readouterr().err
    note = Path("out/align/mini-vicuna/part.json")
    note.write_text(note.read_text() + "\n")
    assert main(SHORT) == 2
    assert "out/lora/mini-vicuna was made with align" in capsys.readouterr().err
    for stage in ("lora", "align"):
        recipe = Path(f"configs/demo/{stage}.yaml")
        recipe.write_text(recipe.read_text() + "# another recipe\n")
        assert main(SHORT) == 2
        assert f"out/{stage}/mini-vicuna was made with configs" in capsys.readouterr().err
