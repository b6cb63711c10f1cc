"""Every kind of model by the same command, also when it is killed on the way."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from lightning_llava.evaluation.command import parser
from lightning_llava.evaluation.ledger import read_ledger
from tool_files import TOOLS, load_tool

START_LIMIT_S = 120
"""An evaluation that has answered nothing by then never will."""


@pytest.fixture(scope="module")
def tool():
    return load_tool("evaluate")


@pytest.fixture(scope="module")
def config(demo_world, tmp_path_factory):
    """POPE of the embedded world in both languages: 112 prompts about 8 pictures."""
    benchmarks = {
        name: {
            "files": {
                split: str(demo_world / "pope" / language / f"demo_pope_{split}.json")
                for split in splits
            },
            "images": str(demo_world / "images"),
            "language": language,
            "subset": 2,
        }
        for name, language, splits in (
            ("pope", "en", ("random", "popular", "adversarial")),
            ("pope_ru", "ru", ("random",)),
        )
    }
    file = tmp_path_factory.mktemp("eval") / "pope.yaml"
    file.write_text(yaml.safe_dump({"data": {"benchmarks": benchmarks}}))
    return file


@pytest.fixture
def run(tool, config, capsys):
    """Run the tool in this process and return what it printed."""

    def call(model, output, *more, code=0):
        arguments = ["-c", config, "--model", model, "--output", output, *more]
        assert tool.main(list(map(str, arguments))) == code
        printed = capsys.readouterr()
        return printed.out if code == 0 else printed.err

    return call


def report(folder):
    content = json.loads((folder / "report.json").read_text())
    del content["meta"]["date"]
    return content


def test_the_russian_protocol_in_one_command(run, short_run, tmp_path):
    options = ("--protocol", "russian", "--to-russian", "oracle", "--to-english", "oracle")
    cache = ("--cache", tmp_path / "translations.jsonl")
    out = run(short_run, tmp_path, *options, *cache)
    rows = read_ledger(tmp_path / "ledger.jsonl")
    translated = [row for row in rows if row.benchmark == "pope"]
    assert translated
    assert all(row.language == "ru" and row.question != row.source for row in translated)
    assert all("Ответь одним словом" in row.prompt for row in translated)
    assert all(row.english is not None and row.route is not None for row in translated)
    # Asked in Russian from the beginning: left alone.
    assert all(row.source is None for row in rows if row.benchmark == "pope_ru")
    assert set(report(tmp_path)["intervals"]) == {"pope", "pope_ru"}
    assert "Есть ли на изображении" in (tmp_path / "gallery.html").read_text(encoding="utf-8")
    assert "MT ceiling" in out
    assert "pope/random" in out
    measured = json.loads((tmp_path / "russian.json").read_text(encoding="utf-8"))["splits"]
    scores = report(tmp_path)["scores"]["pope"]
    for split in ("random", "popular", "adversarial", "mean"):
        assert measured[f"pope/{split}"]["score"] == pytest.approx(scores[split]["f1"])
        assert measured[f"pope/{split}"]["ceiling"] == 1.0
    assert "0 prompts" in run(short_run, tmp_path, *options, *cache), "no question is asked twice"


@pytest.mark.parametrize("kind", ["blip2", "instructblip", "llava", "our own"])
def test_any_model(run, published_models, random_run, kind, tmp_path):
    model = random_run if kind == "our own" else published_models(kind)
    out = run(model, tmp_path, "--max-new-tokens", 4)
    assert "asked 112 prompts, 0 had answers" in out
    rows = read_ledger(tmp_path / "ledger.jsonl")
    assert len(rows) == 4 * 38
    assert len({row.raw_answer for row in rows}) > 3
    assert report(tmp_path)["counts"]["pope"] == dict.fromkeys(
        ("random", "popular", "adversarial"), 38
    )
    # Its ledger in the place of the model gives the same ledger.
    given = tmp_path / "given"
    run(tmp_path / "ledger.jsonl", given)
    assert read_ledger(given / "ledger.jsonl") == rows
    assert report(given)["scores"] == report(tmp_path)["scores"]


@pytest.mark.slow
def test_killed_and_started_again(run, config, published_models, tmp_path):
    model, more = published_models("llava"), ["--max-new-tokens", "8", "--batch-size", "2"]
    run(model, tmp_path / "whole", *more)
    killed = tmp_path / "killed"
    process = start(config, model, killed, more)
    answers = killed / "answers.jsonl"
    deadline = time.monotonic() + START_LIMIT_S
    try:
        while not answers.is_file() or not answers.stat().st_size:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL, "it was done before it could be killed"
    kept = len(answers.read_text(encoding="utf-8").splitlines())
    assert 0 < kept < 112
    assert f"asked {112 - kept:,} prompts, {kept:,} had answers" in run(model, killed, *more)
    assert len(answers.read_text(encoding="utf-8").splitlines()) == 112
    assert read_ledger(killed / "ledger.jsonl") == read_ledger(tmp_path / "whole/ledger.jsonl")
    assert report(killed) == report(tmp_path / "whole")
    assert "asked 0 prompts, 112 had answers" in run(model, killed, *more)


def start(config, model, output, more, *launcher):
    command = [
        *(launcher or [sys.executable]),
        TOOLS / "evaluate.py",
        "-c",
        config,
        "--model",
        model,
    ]
    return subprocess.Popen(
        [*map(str, command), "--output", str(output), *more],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOOLS.parent)},
    )


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_stopped_by_a_signal(config, published_models, run, signum, tmp_path):
    model, more = published_models("llava"), ["--max-new-tokens", "8", "--batch-size", "2"]
    process = start(config, model, tmp_path, more)
    while not (tmp_path / "answers.jsonl").is_file():
        assert process.poll() is None, process.communicate()
        time.sleep(0.002)
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 128 + signum
    assert (out, err.splitlines()[-1]) == ("", "stopped; the same command goes on from here")
    assert "asked" in run(model, tmp_path, *more)


@pytest.mark.slow
def test_two_processes(config, published_models, run, tmp_path):
    model, more = published_models("blip2"), ["--max-new-tokens", "6"]
    run(model, tmp_path / "one", *more)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    process = start(config, model, tmp_path / "two", more, *launcher)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert out.count("asked 112 prompts, 0 had answers") == 1
    sizes = [
        len((tmp_path / "two" / f"answers.rank{rank}.jsonl").read_text("utf-8").splitlines())
        for rank in (0, 1)
    ]
    assert sum(sizes) == 112
    assert min(sizes) > 20
    assert report(tmp_path / "two") == report(tmp_path / "one")
    assert "asked 0 prompts, 112 had answers" in run(model, tmp_path / "two", *more)


def test_a_subset_is_the_same_one_whoever_asks(run, published_models, tmp_path):
    model = published_models("blip2")
    run(model, tmp_path / "few", "--subset", 4, "--max-new-tokens", 2)
    run(model, tmp_path / "more", "--subset", 8, "--max-new-tokens", 2)
    few, more = (
        {
            (row.benchmark, row.split, row.question_id)
            for row in read_ledger(folder / "ledger.jsonl")
        }
        for folder in (tmp_path / "few", tmp_path / "more")
    )
    assert (len(few), len(more)) == (16, 32)
    assert few < more


@pytest.mark.parametrize(
    ("model", "more", "said"),
    [
        ("nothing/there/is", [], "--model: the folder 'nothing/there/is' does not exist"),
        ("blip2", ["--checkpoint", "a.ckpt"], "the file 'a.ckpt' does not exist"),
        (
            "blip2",
            ["--answerer", "hf", "--checkpoint", "a"],
            "--checkpoint: --answerer hf does not",
        ),
        ("blip2", ["--device", "cuda:7"], "--device: cannot use 'cuda:7'"),
        ("gone.jsonl", ["--answerer", "file"], "--model: the file 'gone.jsonl' does not exist"),
        ("blip2", ["--answerer", "llm"], "--prompt: auto cannot be used for"),
        ("blip2", ["--prompt", "Yes?"], "--prompt: 'Yes?' has no {question} in it"),
        ("mini_clip", [], "is of the type 'clip', which neither answers"),
        ("mini_saiga", [], "--answerer llm: question 1 of pope is about a picture"),
    ],
)
def test_refusals(run, published_models, demo_world, model, more, said, tmp_path):
    if model == "blip2":
        model = published_models(model)
    elif model.startswith("mini"):
        model = demo_world / model
        more = ["--prompt", "mistral_instruct"] if model.name == "mini_saiga" else more
    err = run(model, tmp_path, *more, code=2)
    assert err.startswith("error: ")
    assert said in err
    assert len(err.splitlines()) == 1


def test_a_wrong_config_is_named_with_its_line(tool, tmp_path, capsys):
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  benchmarks:\n    pope:\n      subset: many\n")
    arguments = ["-c", str(file), "--model", "x", "--output", str(tmp_path)]
    with pytest.raises(SystemExit, match="2"):
        tool.main(arguments)
    place = f"{file}, line 4: data.benchmarks.pope.subset is 'many'"
    assert f"error: {place}, expected a whole number or null" in capsys.readouterr().err
    for text, said in (("model: {}\n", "no data.benchmarks in"), ("a: [\n", "not valid YAML")):
        file.write_text(text)
        assert tool.main(arguments) == 2
        assert said in capsys.readouterr().err


def test_every_default_is_in_the_help():
    formatter = parser()._get_formatter()
    for action in parser()._actions:
        assert action.option_strings
        if action.dest != "help":
            text = formatter._expand_help(action)
            assert "(default: " in text or "(required)" in text, action.dest
