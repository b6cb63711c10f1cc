"""A checkpoint without its trainer answers as `test` does."""

import json
import shutil

import pytest
import torch
import yaml
from rich.console import Console

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.own import OwnCheckpoint, find_checkpoint
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.evaluation.ledger import read_ledger
from lightning_llava.evaluation.run import evaluate
from lightning_llava.specs import BenchmarkSpec
from runs import command_line

CPU = torch.device("cpu")


@pytest.fixture(scope="session")
def spec(demo_world):
    files = {"random": str(demo_world / "pope/en/demo_pope_random.json")}
    return BenchmarkSpec(files=files, images=str(demo_world / "images"))


@pytest.fixture
def copied(short_run, tmp_path):
    """A run folder to be changed."""
    shutil.copytree(short_run, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def last(run):
    return find_checkpoint(run, None)


def test_its_rows_are_those_of_the_trainer(short_run, spec, tmp_path):
    files = json.dumps({"pope": {"files": spec.files, "images": spec.images}})
    flags = {"trainer.default_root_dir": tmp_path, "model.generation.max_new_tokens": 6}
    command_line(
        *["test", "--config", short_run / "config.yaml", "--ckpt_path", last(short_run)],
        *[f"--data.benchmarks={files}", *(f"--{key}={value}" for key, value in flags.items())],
    )
    theirs = read_ledger(tmp_path / "version_0" / "ledger.jsonl")
    model = OwnCheckpoint(last(short_run), CPU, max_new_tokens=6)
    ours = evaluate(
        load_benchmark("pope", spec), model, tmp_path / "ours", {}, Console(quiet=True)
    ).rows
    key = lambda row: (row.split, row.question_id)  # noqa: E731
    assert sorted(ours, key=key) == sorted(theirs, key=key)
    assert len({row.raw_answer for row in ours}) > 1


def test_the_run_says_how_long_answers_are(copied):
    assert OwnCheckpoint(last(copied), CPU).max_new_tokens == 32
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config["model"]["generation"]["max_new_tokens"] = 5
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    assert OwnCheckpoint(last(copied), CPU).max_new_tokens == 5
    assert OwnCheckpoint(last(copied), CPU, max_new_tokens=7).max_new_tokens == 7


def test_without_the_run_the_checkpoint_is_enough(copied, tmp_path):
    shutil.copy(last(copied), tmp_path / "alone.ckpt")
    alone, at_home = OwnCheckpoint(tmp_path / "alone.ckpt", CPU), OwnCheckpoint(last(copied), CPU)
    assert alone.fingerprint == at_home.fingerprint


@pytest.mark.parametrize(
    ("section", "key", "value", "said"),
    [
        ("model", "lora", None, r"model\.lora\.alpha: 'absent', but .* with 256"),
        ("data", "image_mode", "square", r"data\.image_mode: 'square', but .* with 'pad'"),
    ],
)
def test_a_config_of_another_run_is_refused(copied, section, key, value, said):
    config = yaml.safe_load((copied / "config.yaml").read_text())
    config[section][key] = value
    (copied / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SettingError, match=said):
        OwnCheckpoint(last(copied), CPU)


def test_what_changes_answers_changes_the_fingerprint(copied):
    def of(name, **settings):
        return OwnCheckpoint(copied / "checkpoints" / name, CPU, **settings).fingerprint

    earlier = min(path.name for path in (copied / "checkpoints").glob("step*.ckpt"))
    prints = {of("last.ckpt"), of("last.ckpt", max_new_tokens=3), of(earlier)}
    assert len(prints) == 3
    # Another checkpoint at the same path.
    shutil.copy(copied / "checkpoints" / earlier, copied / "checkpoints" / "best.ckpt")
    before = of("best.ckpt")
    shutil.copy(last(copied), copied / "checkpoints" / "best.ckpt")
    assert before == of(earlier) != of("best.ckpt") == of("last.ckpt")


def test_a_folder_without_a_checkpoint_is_refused(tmp_path):
    with pytest.raises(SettingError, match=r"has no checkpoints/last\.ckpt; name the file by --c"):
        find_checkpoint(tmp_path, None)
    assert find_checkpoint(tmp_path, tmp_path / "a.ckpt") == tmp_path / "a.ckpt"


def test_another_programs_checkpoint_is_refused(tmp_path):
    torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
    with pytest.raises(SettingError, match=r"other\.ckpt' has no 'model_settings' in it"):
        OwnCheckpoint(tmp_path / "other.ckpt", CPU)
