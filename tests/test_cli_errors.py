from pathlib import Path

import pytest
import torch.multiprocessing
from torch._utils import ExceptionWrapper

import parsing
from lightning_llava.cli_errors import MAX_LINES, sentence
from lightning_llava.errors import SettingError

HELP = "  all settings: python -m lightning_llava fit --help"


@pytest.fixture
def refused(capsys):
    """Return what the command line says before it exits with 2, line by line."""

    def run(*arguments):
        before = Path.cwd()
        with pytest.raises(SystemExit) as exit_:
            parsing.parser().parse_args([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert exit_.value.code == 2
        assert captured.out == ""
        assert Path.cwd() == before
        lines = captured.err.splitlines()
        assert len(lines) <= MAX_LINES
        return lines

    return run


@pytest.fixture
def file(tmp_path, monkeypatch):
    """Write a config into the current folder."""
    monkeypatch.chdir(tmp_path)

    def write(content, name="run.yaml"):
        Path(name).write_text(content)
        return name

    return write


@pytest.mark.parametrize(
    ("content", "line", "wrong", "meant"),
    [
        ("trainer:\n  max_stepz: 3\n", 2, "trainer.max_stepz", "trainer.max_steps"),
        ("\nmodle:\n  lora: null\n", 3, "modle.lora", "model.lora"),
        ("fit:\n  model:\n    lora: null\n", 3, "fit.model.lora", "model.lora"),
        ("max_steps: 3\n", 1, "max_steps", "trainer.max_steps"),
        ("model:\n  language: {nam: x}\n", 2, "model.language.nam", "model.language.name"),
        ("model:\n  lora: {rr: 8}\n", 2, "model.lora.rr", "model.lora.r"),
        (
            "data:\n  sources:\n    mine: {shardz: x}\n",
            3,
            "data.sources.mine.shardz",
            "data.sources.mine.shards",
        ),
        (
            "data:\n  preparation:\n    class_path: lightning_llava.demo.world.DemoWorld\n"
            "    init_args:\n      foldr: x\n",
            5,
            "data.preparation.init_args.foldr",
            "data.preparation.init_args.folder",
        ),
    ],
)
def test_a_mistyped_key_in_a_file(refused, file, content, line, wrong, meant):
    assert refused("fit", "-c", file(content)) == [
        f"error: run.yaml, line {line}: {wrong} is not a setting",
        f"  did you mean {meant}?",
        HELP,
    ]


def test_the_file_that_holds_the_mistake_is_named(refused, file):
    good, bad = file("trainer: {max_steps: 3}\n", "good.yaml"), file("trainer: {max_stepz: 3}\n")
    assert refused("fit", "-c", bad, "-c", good)[0].startswith("error: run.yaml, line 1: ")
    assert refused("fit", "--config", good, "--config", bad)[0].startswith("error: run.yaml, ")


@pytest.mark.parametrize(
    "words", [["--trainer.max_stepz", "3"], ["--trainer.max_stepz=3"], ["--max_steps", "3"]]
)
def test_a_mistyped_flag(refused, words):
    assert refused("fit", *words) == [
        f"error: {words[0].removesuffix('=3')} is not a setting",
        "  did you mean --trainer.max_steps?",
        HELP,
    ]


@pytest.mark.parametrize(
    ("flag", "value", "expected"),
    [
        ("--trainer.max_steps", "many", "a whole number"),
        ("--model.learning_rate.lora", "fast", "a number or null"),
        ("--model.language.allow_foreign_template", "perhaps", "true or false"),
        ("--data.pack_tokens", "1.5", "a whole number from 1 up"),
        ("--data.num_workers", "-1", "a whole number from 0 up"),
        ("--data.max_bad_fraction", "2", "a number from 0 to 1"),
        ("--data.cache_gb", "-0.5", "a number from 0 up"),
        ("--model.lora.r", "x", "a whole number"),
    ],
)
def test_a_value_of_the_wrong_type(refused, flag, value, expected):
    assert refused("fit", flag, value) == [f"error: {flag} is '{value}', expected {expected}", HELP]


def test_a_value_of_the_wrong_type_in_a_file(refused, file):
    assert refused("fit", "-c", file("trainer:\n  max_steps: many\n")) == [
        "error: run.yaml, line 2: trainer.max_steps is 'many', expected a whole number",
        HELP,
    ]


def test_a_wrong_literal_brings_the_nearest(refused, file):
    assert refused("fit", "--data.prompt", "plian") == [
        "error: --data.prompt is 'plian', expected chat or plain",
        "  did you mean plain?",
        HELP,
    ]
    lines = refused("fit", "-c", file("data:\n  benchmarks: {mine: {language: rus}}\n"))
    assert lines[0] == (
        "error: run.yaml, line 2: data.benchmarks.mine.language is 'rus', expected en or ru"
    )


def test_a_flag_into_a_dictionary_that_is_null(refused):
    lines = refused("fit", "--data.sources", "null", "--data.sources.mine.shards", "x.tar")
    assert lines[0] == (
        "error: --data.sources.mine.shards cannot be set alone; "
        "set data.sources as a whole, or in a file"
    )


def test_a_wrong_class_path(refused, file):
    config = file("data:\n  preparation: {class_path: lightning_llava.demo.world.DemoWorlds}\n")
    lines = refused("fit", "-c", config)
    assert lines[0].startswith("error: run.yaml, line 2: data.preparation is ")
    assert lines[1] == "  module 'lightning_llava.demo.world' has no attribute 'DemoWorlds'"


def test_a_missing_config_brings_the_nearest_name(refused, file):
    file("{}", "demo.yaml")
    assert refused("fit", "-c", "demos.yaml") == [
        "error: --config demos.yaml does not exist",
        "  did you mean demo.yaml?",
        HELP,
    ]
    assert refused("fit", "-c", "nowhere/demo.yaml")[:1] == [
        "error: --config nowhere/demo.yaml does not exist"
    ]


def test_a_folder_as_config(refused, tmp_path):
    assert refused("fit", "-c", tmp_path)[0] == (
        f"error: --config {tmp_path} is a folder, expected a YAML file"
    )


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trainer: [a\n", "run.yaml, line 2, column 1: not valid YAML: expected ',' or ']'"),
        ("trainer:\n\tmax_steps: 3\n", "run.yaml, line 2, column 1: not valid YAML: found char"),
        ("- a\n", "run.yaml holds ['a'], expected settings like `trainer:`"),
        ("", "run.yaml holds no settings"),
        ("3: 4\n", "run.yaml: the key 3 is no text"),
        ("trainer: 3\n", "run.yaml, line 1: trainer is '3', expected a mapping (or a file) with"),
        (
            "model:\n  learning_rate: 3\n",
            "run.yaml, line 2: model.learning_rate is '3', expected a mapping (or a file) with "
            "projector, lora, language, vision",
        ),
        (
            "trainer: {max_steps: 3}\ndata: {}\ntrainer: {devices: 1}\n",
            "run.yaml, line 3: trainer is set already in line 1; join the two",
        ),
        (
            "data: {language: {name: x}}\n",
            "run.yaml, line 1: data.language follows from model.language; set that instead",
        ),
        (
            "data: {seed: 3}\n",
            "run.yaml, line 1: data.seed follows from seed_everything; set that instead",
        ),
    ],
)
def test_a_file_that_is_no_config(refused, file, content, said):
    lines = refused("fit", "-c", file(content))
    assert lines[0].startswith(f"error: {said}")
    assert lines[-1] == HELP


def test_a_file_that_is_no_text(refused, file):
    name = file("")
    Path(name).write_bytes(b"\xff\xfe")
    assert refused("fit", "-c", name)[0].startswith(
        "error: run.yaml: not valid YAML: 'utf-8' codec"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("fitt", "'fitt' is no subcommand, expected one of fit, validate, test, predict"),
        ("", "no subcommand, expected one of fit, validate, test, predict"),
        ("-c demo.yaml fit", "-c is set before `fit`; put flags and --config behind it"),
        (
            "--trainer.max_steps 3 fit",
            "--trainer.max_steps is set before `fit`; put flags and --config behind it",
        ),
        ("fit demo.yaml", "unexpected argument 'demo.yaml'"),
        ("fit --trainer.max_steps", "argument --trainer.max_steps: expected one argument"),
        ("fit --data.seed 3", 'Linked "data.seed" must be given via "seed_everything".'),
    ],
)
def test_words_in_the_wrong_place(refused, file, arguments, said):
    file("trainer: {max_steps: 3}\n", "demo.yaml")
    assert refused(*arguments.split())[0] == f"error: {said}"


def test_no_line_is_endless(refused, file):
    lines = refused("fit", "-c", file(f"trainer:\n  max_steps: {'many ' * 500}\n"))
    assert max(map(len, lines)) < 320


def broken_rank(rank):
    raise SettingError("shard a.tar, sample 7: the answer is empty; drop the pair")


def test_the_sentence_of_a_data_loader():
    try:
        broken_rank(0)
    except SettingError:
        # What a DataLoader's worker sends and the loader raises; a real one takes 5 s to end.
        wrapped = ExceptionWrapper(where="in DataLoader worker process 0")
    with pytest.raises(SettingError, match="Traceback") as raised:
        wrapped.reraise()
    assert sentence(raised.value) == "shard a.tar, sample 7: the answer is empty; drop the pair"


def test_the_sentence_of_a_spawned_rank():
    with pytest.raises(torch.multiprocessing.ProcessRaisedException) as raised:
        torch.multiprocessing.start_processes(broken_rank, nprocs=1, start_method="fork")
    assert sentence(raised.value) == "shard a.tar, sample 7: the answer is empty; drop the pair"


def test_the_cause_of_a_sentence_is_not_shown():
    error = SettingError("one sentence")
    error.__cause__ = ValueError("another")
    assert sentence(error) == "one sentence"


@pytest.mark.parametrize(
    "error", [ValueError("ours"), KeyError("x"), RuntimeError("SettingError: x")]
)
def test_other_errors_have_no_sentence(error):
    assert sentence(error) is None
