import itertools
import logging
import os
import re
import runpy
import sys
import warnings

import jsonargparse
import pytest
import torch
import yaml
from lightning.pytorch.utilities import rank_zero_info

import parsing
from lightning_llava import cli
from lightning_llava.cli import MISLEADING, LlavaCLI, main, silence_misleading
from lightning_llava.cli_inputs import KnownSettings
from lightning_llava.demo.world import DemoWorld
from lightning_llava.module import LlavaModule

CONFIGS = parsing.ROOT / "configs"
STAGES = sorted((CONFIGS / "stage").glob("*.yaml"))
MODELS = sorted((CONFIGS / "model").glob("*.yaml"))
FOLDERS = ("stage", "model", "pictures", "data", "eval", "hardware")
DEMO = CONFIGS / "demo.yaml"


@pytest.fixture(autouse=True)
def _own_arguments(monkeypatch):
    # Lightning warns when arguments come from both sides, and pytest has some of its own.
    monkeypatch.setattr(sys, "argv", ["pytest"])
    yield
    # `--help` leaves this on for the process, and it makes every other parser slow.
    jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=False)


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_the_allocators_segments_grow_unless_the_user_says_otherwise(monkeypatch, name):
    for known in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(known, "")  # so that it is put back
        monkeypatch.delenv(known)
    monkeypatch.setenv(name, "max_split_size_mb:64")
    runpy.run_module("lightning_llava", run_name="not_run")
    assert os.environ.get("PYTORCH_ALLOC_CONF") in ("max_split_size_mb:64", None)
    monkeypatch.delenv(name)
    runpy.run_module("lightning_llava", run_name="not_run")
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


@pytest.mark.parametrize("stage", STAGES, ids=lambda path: path.stem)
@pytest.mark.parametrize("model", MODELS, ids=lambda path: path.stem)
def test_stage_and_model_stack_on_the_demo_in_either_order(stage, model):
    wanted = yaml.safe_load(stage.read_text()), yaml.safe_load(model.read_text())
    settings = parsing.stack(DEMO, stage, model)
    assert settings == parsing.stack(DEMO, model, stage)
    assert settings["model"]["learning_rate"] == wanted[0]["model"]["learning_rate"]
    assert settings["data"]["prompt"] == wanted[0]["data"]["prompt"]
    assert settings["model"]["language"]["name"] == wanted[1]["model"]["language"]["name"]
    assert settings["model"]["language"]["template"] == wanted[1]["model"]["language"]["template"]


def test_a_run_is_the_same_in_any_order_of_its_four_files():
    files = [
        "configs/stage/lora.yaml",
        "configs/model/clip_saiga_mistral_7b.yaml",
        "configs/data/llava_mix665k.yaml",
        "configs/hardware/gpu_80gb.yaml",
    ]
    first, *others = [parsing.stack(*order) for order in itertools.permutations(files)]
    assert all(other == first for other in others)
    assert first["model"]["vision"]["name"] == "openai/clip-vit-large-patch14-336"
    assert first["model"]["language"]["name"] == "IlyaGusev/saiga_mistral_7b_merged"
    assert first["model"]["language"]["template"] == "saiga_mistral"
    assert first["model"]["lora"] == {"r": 128, "alpha": 256, "dropout": 0.05}
    rates = {"projector": 2e-5, "lora": 2e-4, "language": None, "vision": None}
    assert first["model"]["learning_rate"] == rates
    assert (first["data"]["prompt"], first["data"]["image_mode"]) == ("chat", "pad")
    assert first["data"]["sources"]["mix665k"]["shards"] == "data/shards/mix665k/*.tar"
    assert first["data"]["pack_tokens"] == 8192
    assert first["trainer"]["precision"] == "bf16-mixed"
    assert first["trainer"]["accumulate_grad_batches"] == 12


def test_language_and_vision_reach_the_data_from_the_model():
    settings = parsing.stack(DEMO, "configs/model/clip_qwen.yaml")
    assert settings["data"]["language"] == settings["model"]["language"]
    assert settings["data"]["vision"] == settings["model"]["vision"]
    assert parsing.parse("fit", "--seed_everything", "7")["data"]["seed"] == 7


def leaves(path):
    """Dotted keys; what lies under a name that the user chose belongs to the dictionary."""

    def walk(prefix, value):
        if isinstance(value, dict) and prefix not in ("data.sources", "data.benchmarks"):
            return [k for key, v in value.items() for k in walk(f"{prefix}.{key}".strip("."), v)]
        return [prefix]

    return walk("", yaml.safe_load(path.read_text()))


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(FOLDERS, 2)))
def test_no_two_folders_set_the_same_key(one, other):
    mine = {key for path in (CONFIGS / one).glob("*.yaml") for key in leaves(path)}
    theirs = {key for path in (CONFIGS / other).glob("*.yaml") for key in leaves(path)}
    assert mine
    assert theirs
    both = [
        (a, b) for a in mine for b in theirs if f"{a}.".startswith(f"{b}.") or b.startswith(f"{a}.")
    ]
    assert not both


@pytest.mark.parametrize("folder", FOLDERS)
def test_all_files_of_a_folder_set_the_same_keys(folder):
    # Else a setting of the file before would stay when one file is stacked on another.
    files = sorted((CONFIGS / folder).glob("*.yaml"))
    common = {"model.init_from"}  # `align` is the first stage; the others are given it by flag
    keys = {path.name: set(leaves(path)) - common for path in files}
    # `lora: null` and `lora: {r: …}` both decide all of it; so do a strategy's name and its class.
    whole = re.compile(r"^(model\.lora|trainer\.strategy)\..*")
    decided = {name: {whole.sub(r"\1", key) for key in found} for name, found in keys.items()}
    assert all(value == decided[files[0].name] for value in decided.values()), decided


def test_files_of_the_model_folder_are_about_the_model_alone():
    for folder, section in (("model", "model"), ("data", "data"), ("eval", "data")):
        for path in (CONFIGS / folder).glob("*.yaml"):
            assert list(yaml.safe_load(path.read_text())) == [section], path


def test_printed_settings_are_a_config_of_the_same_run(tmp_path, capsys):
    stacked = [
        "fit",
        "-c",
        str(DEMO),
        "-c",
        str(CONFIGS / "stage/lora.yaml"),
        "--data.pack_tokens=99",
    ]
    with pytest.raises(SystemExit) as exit_:
        main([*stacked, "--print_config"])
    assert exit_.value.code == 0
    saved = tmp_path / "saved.yaml"
    saved.write_text(capsys.readouterr().out)
    assert parsing.stack(saved) == parsing.parse(*stacked)


def test_everyday_flags_win_over_files():
    settings = parsing.parse(
        *(
            "fit",
            "-c",
            str(DEMO),
            "--data.num_workers",
            "3",
            "--checkpoint.every_n_train_steps",
            "7",
        ),
        *("--trainer.max_steps", "5", "--trainer.default_root_dir", "elsewhere"),
        *("--trainer.limit_val_batches", "1", "--model.lora.r", "4"),
    )
    assert settings["data"]["num_workers"] == 3
    assert settings["checkpoint"]["every_n_train_steps"] == 7
    trainer = settings["trainer"]
    assert (trainer["max_steps"], trainer["default_root_dir"]) == (5, "elsewhere")
    assert trainer["limit_val_batches"] == 1
    assert settings["model"]["lora"] == {"r": 4, "alpha": 32, "dropout": 0.0}


@pytest.mark.parametrize("subcommand", ["validate", "test", "predict"])
def test_every_subcommand_takes_the_file_of_the_training(subcommand):
    assert parsing.parse(subcommand, "-c", str(DEMO))["model"] == parsing.stack(DEMO)["model"]


def test_help_has_text_and_default_of_every_setting(capsys):
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "--help"])
    assert exit_.value.code == 0
    entries = {}
    for entry in re.split(r"\n  (?=-)", capsys.readouterr().out):
        if key := re.match(r"--([\w.]+)", entry):
            entries[key[1]] = " ".join(entry.split())
    ours = ("model.", "data.", "checkpoint.", "panels.", "progress.", "meter.", "reports.")
    types = KnownSettings(parsing.parser()._subcommands_action._name_parser_map["fit"]).types
    # Parts that may be null, and dictionaries, have a help of their own: --model.lora.help.
    nested = tuple(f"{key}." for key in types if key.startswith(("data.", "model.lora")))
    linked = ("data.language", "data.vision", "data.seed")
    expected = [
        key
        for key, hint in types.items()
        if key.startswith(ours) and hint is not None and not key.startswith((*nested, *linked))
    ]
    assert len(expected) > 35
    for key in expected:
        assert re.search(r"\w{3,}.* \(type: .*, default: ", entries[key].split(" ", 2)[2]), key
    assert "LLaVA 1.5 takes the last but one" in entries["model.vision.layer"]


def test_help_of_an_optional_part_has_its_texts_and_defaults(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--model.lora.help"])
    assert re.search(
        r"--model\.lora\.r R +Rank\. \(type: int, default: 128\)", capsys.readouterr().out
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two steps on a tiny world; returns what it said and which modules rested."""
    folder = tmp_path_factory.mktemp("run")
    world = folder / "world"
    DemoWorld(folder=str(world), train_scenes=8, validation_scenes=4).prepare()
    config = folder / "config.yaml"
    text = DEMO.read_text().replace("data/demo", str(world))
    scenes = "train_scenes: 8, validation_scenes: 4, folder:"
    config.write_text(text.replace("init_args: {folder:", "init_args: {" + scenes))
    resting, records, step = [], [], LlavaModule.training_step
    threads = torch.get_num_threads()

    def watched(self, batch, batch_idx):
        resting.extend(name for name, module in self.named_modules() if not module.training)
        return step(self, batch, batch_idx)

    handler = logging.Handler()
    handler.emit = lambda record: records.append(record.getMessage())
    logger = logging.getLogger("lightning.pytorch")
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        patch.setattr(sys, "argv", ["pytest"])
        patch.setattr(LlavaModule, "training_step", watched)
        logger.addHandler(handler)
        flags = (
            f"--trainer.default_root_dir={folder}/runs --trainer.limit_val_batches=0 "
            "--trainer.max_steps=2 --progress.refresh_rate=0 --model.lora.r=4 "
            "--data.pack_tokens=600"
        )
        torch.set_num_threads(1)  # more of them wait for each other where cores are short
        main(["fit", "-c", str(config), *flags.split()])
        torch.set_num_threads(threads)
        logger.removeHandler(handler)
    return {
        "folder": folder,
        "config": config,
        "said": [*records, *(str(warning.message) for warning in warned)],
        "resting": resting,
    }


def test_a_run_says_nothing_misleading(run):
    assert any("max_steps=2" in message for message in run["said"])  # it is being listened to
    for pattern in MISLEADING:
        assert not [message for message in run["said"] if re.match(pattern, message)]


def test_only_the_frozen_tower_rests_in_training(run):
    """Otherwise `MISLEADING` would hide a true warning."""
    assert run["resting"]
    assert all(name.startswith("llava.vision_tower") for name in run["resting"])


def test_the_settings_saved_with_a_run_repeat_it(run):
    saved = parsing.stack(run["folder"] / "runs" / "version_0" / "config.yaml")
    assert saved["model"]["lora"]["r"] == 4
    assert saved["data"]["language"]["max_length"] == 512
    assert saved["trainer"]["max_steps"] == 2


def test_only_the_named_messages_are_dropped(caplog):
    caplog.set_level(logging.INFO, logger="lightning.pytorch.utilities.rank_zero")
    silence_misleading()
    silence_misleading()
    rank_zero_info("💡 Tip: For seamless x, try installing [litlogger](https://x)")
    rank_zero_info("💡 Tip: use more workers")
    assert [record.getMessage() for record in caplog.records] == ["💡 Tip: use more workers"]
    warnings.warn("Found 45 module(s) in eval mode at the start of training.", stacklevel=1)
    with pytest.warns(UserWarning, match="Found 45 sharks"):
        warnings.warn("Found 45 sharks", stacklevel=1)


REFUSED = {
    "model.language.name: could not load 'no/such-model'": [
        "--model.language.name",
        "no/such-model",
    ],
    "data.sources.captions.shards: nothing matches": [
        "--data.sources.captions.shards",
        "none/*.tar",
    ],
    "model.language.template: no template 'mistral'": ["--model.language.template", "mistral"],
    "--ckpt_path: the file 'none.ckpt' does not exist": ["--ckpt_path", "none.ckpt"],
    "trainer.max_epochs is 3, expected 1": ["--trainer.max_epochs", "3"],
    "trainer.default_root_dir: cannot make": ["--trainer.default_root_dir", "/dev/null/runs"],
    "You selected an invalid accelerator name": ["--trainer.accelerator", "tpuu"],
    "Invalid value for every_n_train_steps=-4": ["--checkpoint.every_n_train_steps", "-4"],
    "`val_check_interval` (1000) must be": ["--trainer.val_check_interval", "1000"],
}


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("said", "flags"), list(REFUSED.items()), ids=str)
def test_what_a_user_can_mend_is_one_sentence(run, capsys, said, flags, tmp_path):
    # One step, so that a flag that is accepted by mistake does not train for minutes.
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "1"]
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(run["config"]), *root, *flags])
    assert exit_.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: {said}")


def test_a_template_for_another_tokenizer(run, capsys, tmp_path):
    template = tmp_path / "other.yaml"
    answer = 'user: "{content}"\nanswer: "{content}<|other|>"\nrequires: ["<|other|>"]\n'
    template.write_text(answer)
    root = ["--trainer.default_root_dir", str(tmp_path), "--trainer.max_steps", "1"]
    with pytest.raises(SystemExit) as exit_:
        main(["fit", "-c", str(run["config"]), *root, "--model.language.template", str(template)])
    assert exit_.value.code == 2
    said = capsys.readouterr().err
    assert "error: model.language.template: 'other' was written for other tokenizers, but" in said
    assert "lacks <|other|>; set model.language.template to the template of this LLM" in said


def test_a_misspelt_folder_brings_the_nearest(run, capsys, tmp_path):
    meant = run["folder"] / "world" / "mini_saiga"
    flags = ["--model.language.name", f"{meant}l", "--trainer.default_root_dir", str(tmp_path)]
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(run["config"]), *flags])
    assert f"did you mean {meant}?" in capsys.readouterr().err


@pytest.mark.parametrize("subcommand", ["fit", "validate"])
def test_a_misspelt_checkpoint_brings_the_nearest(run, capsys, subcommand):
    checkpoint = run["folder"] / "runs" / "version_0" / "checkpoints" / "lst.ckpt"
    with pytest.raises(SystemExit):
        main([subcommand, "-c", str(run["config"]), "--ckpt_path", str(checkpoint)])
    assert f"did you mean '{checkpoint.with_name('last.ckpt')}'?" in capsys.readouterr().err


def test_a_bug_keeps_its_traceback(monkeypatch):
    def broken(self, args):
        raise ValueError("ours")

    monkeypatch.setattr(LlavaCLI, "__init__", broken)
    with pytest.raises(ValueError, match="ours"):
        cli.main([])
