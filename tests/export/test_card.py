"""The model card: what the Hub reads of it, and that its lines run."""

import json
import re
from dataclasses import asdict

import pytest
import yaml
from huggingface_hub import ModelCard

import architectures
import exports
from lightning_llava.errors import SettingError
from lightning_llava.export.card import write_card
from lightning_llava.export.card_scores import read_scores
from lightning_llava.export.command import run
from lightning_llava.models.trained import Trained, read_trained
from lightning_llava.specs import LanguageSpec, OptimizerSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = architectures.save_llama(tmp_path_factory.mktemp("llama"))
    return ConversationEncoder(LanguageSpec(name=str(folder), template="vicuna_v1"), 16)


@pytest.fixture
def trained(tmp_path):
    model = {
        "vision": asdict(VisionSpec(revision="abc")),
        "projector": {"type": "mlp2x_gelu"},
        "language": asdict(LanguageSpec()),
        "lora": {"r": 128, "alpha": 256, "dropout": 0.05},
        "learning_rate": {"projector": 2e-5, "lora": 2e-4, "language": None, "vision": None},
        "optimizer": asdict(OptimizerSpec()),
    }
    data = {
        "data.image_mode": "pad",
        "data.prompt": "chat",
        "data.pack_tokens": 8192,
        "seed_everything": 42,
        "data.sources": {"mix665k": {"weight": 1.0, "samples": 665298}},
    }
    return Trained(tmp_path / "last.ckpt", {}, model, data, 5198, 12)


def write(folder, trained, encoder, form="hf", **more):
    write_card(folder, trained, encoder, form, **more)
    return (folder / "README.md").read_text(encoding="utf-8")


def test_the_hub_reads_its_front_matter(tmp_path, trained, encoder):
    write(tmp_path, trained, encoder, licence="llama2", languages=["en", "ru"])
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict() == {
        "library_name": "transformers",
        "pipeline_tag": "image-text-to-text",
        "license": "llama2",
        "language": ["en", "ru"],
        "base_model": ["lmsys/vicuna-7b-v1.5", "openai/clip-vit-large-patch14-336"],
        "base_model_relation": "finetune",
        "tags": ["llava", "lightning-llava"],
    }


def test_what_is_not_known_is_left_out(tmp_path, trained, encoder):
    trained.model["language"]["name"] = trained.model["vision"]["name"] = str(tmp_path / "mini")
    text = write(tmp_path, trained, encoder, form="adapter")
    data = ModelCard.load(tmp_path / "README.md").data.to_dict()
    assert data.keys() == {"library_name", "pipeline_tag", "tags"}
    assert data["library_name"] == "peft"
    assert str(tmp_path) not in text
    assert "`mini`" in text
    assert "## Licence\n\nNot stated" in text


def test_it_says_data_and_recipe(tmp_path, trained, encoder):
    text = write(tmp_path, trained, encoder)
    assert "| mix665k | 665,298 | 1 |" in text
    assert "* trained, at the rate: projector 2e-05, lora 0.0002" in text
    assert "* LoRA: r 128, alpha 256, dropout 0.05" in text
    assert "* optimizer: adamw, cosine, warmup 0.03, weight decay 0" in text
    assert "after 5,198 optimizer steps" in text
    assert "* packs of a step: 12\n" in text
    assert "--trainer.max_steps 5198 --trainer.accumulate_grad_batches 12\n" in text
    assert "| abc |" in text
    assert "padded to a square" in text
    assert "USER: <image>\nWhat is in the picture? ASSISTANT:" in text
    assert "ends at `</s>`" in text
    assert "en: `Answer the question using a single word or phrase.`" in text


def test_its_settings_are_those_of_the_run(tmp_path, trained, encoder):
    text = write(tmp_path, trained, encoder)
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert yaml.safe_load(settings) == {
        "model": trained.model
        | {"optimizer": trained.model["optimizer"] | {"betas": [0.9, 0.999]}},
        "data": {"prompt": "chat", "image_mode": "pad", "pack_tokens": 8192},
    }


def test_a_streaming_run_has_no_list_of_sources(tmp_path, trained, encoder):
    del trained.data["data.sources"]
    assert "came from a stream" in write(tmp_path, trained, encoder)


@pytest.mark.parametrize(
    ("form", "used"),
    [("adapter", "import_weights.py --source FOLDER"), ("llava", "llava.serve.cli")],
)
def test_other_formats_say_how_they_are_used(tmp_path, trained, encoder, form, used):
    text = write(tmp_path, trained, encoder, form=form)
    assert used in text
    assert "LlavaForConditionalGeneration" not in text


def test_scores_of_a_report(tmp_path, trained, encoder):
    report = {"scores": {"pope": {"random": {"f1": 0.859, "total": 2910}}}, "headline": {}}
    (tmp_path / "report.json").write_text(json.dumps(report))
    text = write(tmp_path, trained, encoder, scores=[tmp_path / "report.json"])
    assert "| benchmark | split | asked | F1 |" in text
    assert "| pope | random | 2,910 | 85.90 |" in text


def test_scores_that_the_scoring_tool_printed(tmp_path):
    split = {"f1": 0.5, "accuracy": 0.75, "unknown_rate": None}
    pope = {"splits": {"random": split}, "headline": split}
    gqa = {"accuracy": 0.62, "total": 10, "by_type": {"query": {"accuracy": 0.5}}}
    for name, numbers in (("pope", pope), ("gqa", gqa)):
        content = {"benchmark": name, "dialects": {"official": numbers}, "notes": []}
        (tmp_path / f"{name}.json").write_text(json.dumps(content))
    kept = {"f1": 0.5, "accuracy": 0.75}
    expected = {"pope, official": {"random": kept, "mean": kept}}
    assert read_scores(tmp_path / "pope.json") == expected
    assert read_scores(tmp_path / "gqa.json") == {
        "gqa, official": {"all": {"accuracy": 0.62, "total": 10}}
    }


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', None])
def test_other_files_are_no_scores(tmp_path, content):
    if content is not None:
        (tmp_path / "x.json").write_text(content)
    with pytest.raises(SettingError, match=r"--scores: .*x\.json"):
        read_scores(tmp_path / "x.json")


def test_a_run_s_own_card_has_lines_that_run(tmp_path, clip, monkeypatch, capsys):
    """The Python of the card of an exported run, and the settings as `fit` takes them."""
    (tmp_path / "llm").mkdir()
    llm = architectures.save_qwen3(tmp_path / "llm")
    checkpoint = exports.train(tmp_path / "run", clip, llm, "qwen3")
    folder = tmp_path / "exported"
    run(["--checkpoint", str(checkpoint), "--output", str(folder), "--dtype", "float32"])
    exports.make_picture("wide").save(tmp_path / "photo.jpg")
    text = (folder / "README.md").read_text(encoding="utf-8")
    assert "| cats | 8 | 1 |" in text
    (program,) = re.findall(r"```python\n(.*?)```", text, re.S)
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    exec(program.replace("FOLDER", str(folder)), {})
    assert capsys.readouterr().out.strip()
    (settings,) = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert yaml.safe_load(settings)["model"]["language"]["template"] == "qwen3"
    assert read_trained(checkpoint, "").steps == 3


def test_an_imported_checkpoint_has_a_card_without_a_recipe(tmp_path, trained, encoder):
    trained.steps = 0
    trained.data = {key: trained.data[key] for key in ("data.image_mode", "data.prompt")}
    text = write(tmp_path, trained, encoder)
    assert "taken over by lightning_llava as others had trained it" in text
    assert "## Recipe" not in text
    assert "--trainer.max_steps" not in text
    assert "padded to a square" in text
    assert "python tools/evaluate.py --model FOLDER" in text
