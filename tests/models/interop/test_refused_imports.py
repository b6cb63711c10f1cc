"""What is damaged, dangerous or of another model is refused in a sentence; nothing is left."""

import json
import os

import pytest
import torch
from safetensors.torch import save_file

import layouts
from layouts import Twin
from tool_files import load_tool


@pytest.fixture(scope="module")
def tool():
    return load_tool("import_weights")


@pytest.fixture
def refused(tool, tmp_path, capsys):
    """Run the tool on what it must refuse; return what it says."""

    def run(source, *more):
        place = tmp_path / "place"
        given = ["--source", source, "--output", place / "out", "--template", "vicuna_v1", *more]
        assert tool.main([str(word) for word in given]) == 2
        assert list(place.iterdir()) == []  # no folder, and no unfinished one beside it
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        return said

    return run


def bare(twin, tmp_path):
    file = tmp_path / "mm_projector.bin"
    torch.save(twin.projector(""), file)
    return file, "--base", twin.base, "--vision", twin.tower


class Trap:
    """What runs when a pickle is loaded without care."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_pickle_is_not_run(twin, tmp_path, refused, zipped):
    file, *more = bare(twin, tmp_path)
    content = twin.projector("") | {"extra": Trap(tmp_path / "ran")}
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    assert "holds code or objects beside tensors, and was not loaded" in refused(file, *more)
    assert not (tmp_path / "ran").exists()
    assert "holds code" in refused(file, *more, "--kind", "projector")


def cut(file, part=0.6):
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * part)])


@pytest.mark.parametrize("part", [0.0, 0.01, 0.6, 0.999])
def test_files_that_are_cut_off(twin, tmp_path, refused, part):
    source = twin.save_original(tmp_path / "bin", shards=2)
    cut(source / "pytorch_model-00002-of-00002.bin", part)
    said = refused(source)
    assert "pytorch_model-00002-of-00002.bin' (" in said
    assert "is cut off" in said
    source = twin.save_hugging_face(tmp_path / "safe", old=False)
    cut(source / "model.safetensors", part)
    assert "is cut off" in refused(source)


def test_a_shard_that_is_missing_or_misses_a_weight(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source", shards=2)
    shard = source / "pytorch_model-00002-of-00002.bin"
    content = torch.load(shard, weights_only=True)
    name = next(iter(content))
    torch.save({k: v for k, v in content.items() if k != name}, shard)
    assert f"promises 1 weights that are in no shard (first: {name})" in refused(source)
    shard.unlink()
    assert f"names 1 shards that are not in the folder (first: '{shard.name}')" in refused(source)


def test_an_index_that_points_out_of_its_folder(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source", shards=1)
    index = source / "pytorch_model.bin.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["lm_head.weight"] = "../elsewhere.bin"
    layouts.write_json(index, content)
    torch.save({}, tmp_path / "elsewhere.bin")
    assert "(first: '../elsewhere.bin')" in refused(source)
    content["weight_map"]["lm_head.weight"] = ["a list"]
    layouts.write_json(index, content)
    assert "(first: ['a list'])" in refused(source)


def test_a_cut_off_index_or_config(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source", shards=1)
    cut(source / "pytorch_model.bin.index.json")
    assert "cannot be read as JSON" in refused(source)
    cut(source / "config.json")
    assert "cannot be read as JSON" in refused(source)


def test_missing_and_unexpected_weights_are_listed(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    weights = twin.original_weights(tower=False)
    value = weights.pop("model.layers.1.mlp.up_proj.weight")
    torch.save(weights, source / "pytorch_model.bin")
    said = refused(source)
    assert "1 missing (model.layers.1.mlp.up_proj.weight); 0 unexpected" in said
    assert "incomplete" in said
    weights["model.layers.2.mlp.up_proj.weight"] = value
    torch.save(weights, source / "pytorch_model.bin")
    assert "1 unexpected (model.layers.2.mlp.up_proj.weight)" in refused(source)
    weights["model.visual.proj.weight"] = value
    weights["visual.proj.weight"] = value
    torch.save(weights, source / "pytorch_model.bin")
    assert "1 unexpected weights (visual.proj.weight)" in refused(source)


def test_a_missing_half_of_the_projector(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    weights = twin.original_weights(tower=False)
    torch.save(
        {k: v for k, v in weights.items() if "projector.2" not in k}, source / "pytorch_model.bin"
    )
    said = refused(source)
    assert "2 names (0.bias, 0.weight), expected those of mlp2x_gelu" in said


def test_a_whole_projector_that_is_missing(tmp_path, refused):
    """Not even where tower and LLM are as wide as each other: it would pass for the identity."""
    twin = Twin(tmp_path / "twin", "llama", width=32)
    source = twin.save_hugging_face(tmp_path / "source", old=False)
    weights = {
        k: v for k, v in twin.hugging_face_weights(old=False).items() if "projector" not in k
    }
    save_file(weights, source / "model.safetensors")
    assert "0 names, expected those of linear or mlpNx_gelu" in refused(source)


def test_a_lora_folder_without_its_projector(twin, tmp_path, refused):
    """What is left would pass for adapters of an LLM alone."""
    source = twin.save_lora(tmp_path / "source")
    (source / "non_lora_trainables.bin").unlink()
    assert "non_lora_trainables.bin' does not exist" in refused(source)


def test_another_vocabulary_than_config_json_says(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    layouts.write_json(source / "config.json", twin.original_config() | {"vocab_size": 32000})
    said = refused(source)
    assert "2 shaped differently (lm_head.weight (" in said
    assert "The vocabulary is not the one" in said


def test_another_tower_or_llm_than_the_projector_s(own_twin, tmp_path, refused):
    other = Twin(tmp_path / "other", "llama", width=64)
    file, *_ = bare(own_twin, tmp_path)
    wrong = ["--base", other.base, "--vision", own_twin.tower]
    said = refused(file, *wrong)
    assert f"a projector between {own_twin.tower} and {other.base}" in said
    assert "(0.bias (48,) instead of (64,)" in said
    assert "its LLM by --base" in said
    config = own_twin.tower / "config.json"
    layouts.write_json(config, json.loads(config.read_text()) | {"hidden_size": 64})
    said = refused(file, "--base", own_twin.base, "--vision", own_twin.tower)
    assert "(0.weight (48, 32) instead of (48, 64))" in said
    assert "its tower by --vision" in said


@pytest.mark.parametrize("merge", [(), ("--merge",)])
def test_adapters_of_another_llm(twin, tmp_path, refused, merge):
    source = twin.save_lora(tmp_path / "source")
    other = Twin(tmp_path / "other", "llama", width=64)
    file = source / "non_lora_trainables.bin"
    torch.save(other.projector("base_model.model."), file)  # or else that would be refused first
    said = refused(source, "--base", other.base, *merge)
    assert "the adapter does not fit its LLM: 0 unexpected; 14 shaped differently" in said
    assert f"name that by --base (adapter_config.json says '{twin.base}')" in said


def test_adapters_that_are_more_than_lora(twin, tmp_path, refused):
    source = twin.save_lora(tmp_path / "dora", use_dora=True)
    assert "peft_type LORA, use_dora: True; expected plain LoRA" in refused(source)
    source = twin.save_lora(tmp_path / "rooted", use_rslora=True)
    said = refused(source)
    assert "divided by the root of the rank (use_rslora)" in said
    assert "--merge" in said
    config = source / "adapter_config.json"
    layouts.write_json(config, json.loads(config.read_text()) | {"peft_type": "IA3"})
    assert "peft_type IA3" in refused(source)
    source = twin.save_lora(tmp_path / "pissa")
    config = source / "adapter_config.json"
    content = json.loads(config.read_text())
    layouts.write_json(config, content | {"init_lora_weights": "pissa_niter_4"})
    assert "init_lora_weights: pissa_niter_4; expected plain LoRA" in refused(source)
    layouts.write_json(config, content | {"lora_alpha": None})
    assert "lora_alpha None, expected a number" in refused(source)


def test_half_an_adapter(twin, tmp_path, refused):
    source = twin.save_lora(tmp_path / "source")
    weights = torch.load(source / "adapter_model.bin", weights_only=True)
    name = next(name for name in weights if "lora_B" in name)
    torch.save({k: v for k, v in weights.items() if k != name}, source / "adapter_model.bin")
    assert "1 modules have one of the two matrices" in refused(source)


def test_more_than_a_projector_beside_the_adapters(twin, tmp_path, refused):
    source = twin.save_lora(tmp_path / "source")
    file = source / "non_lora_trainables.bin"
    more = {"base_model.model.model.embed_tokens.weight": torch.zeros(2, 2)}
    torch.save(twin.projector("base_model.model.") | more, file)
    said = refused(source)
    assert "1 unexpected (base_model.model.model.embed_tokens.weight) weights" in said
    assert "would be lost" in said


@pytest.mark.parametrize(
    ("field", "said"),
    [
        ({"model_type": "llava_mpt"}, "model_type 'llava_mpt', expected llava, llava_llama"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio 'anyres'"),
        ({"mm_use_im_start_end": True}, "tokens around every picture"),
        ({"mm_projector_type": "linear"}, "expected those of linear"),
        ({"mm_vision_select_layer": [-2, -5]}, "expected one layer"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature 'cls'"),
        (
            {"hidden_size": "48"},
            "could not load 'config.json' (Validation error for field 'hidden_",
        ),
    ],
)
def test_what_llava_1_5_is_not(twin, tmp_path, refused, field, said):
    source = twin.save_original(tmp_path / "source")
    layouts.write_json(source / "config.json", twin.original_config() | field)
    assert said in refused(source)


def test_a_tower_on_its_author_s_machine(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    named = {"mm_vision_tower": "/home/author/clip"}
    layouts.write_json(source / "config.json", twin.original_config() | named)
    said = refused(source)
    assert "the folder '/home/author/clip' does not exist" in said
    assert "--vision names another" in said


def test_tiles(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    weights = twin.original_weights(tower=False) | {"model.image_newline": torch.zeros(48)}
    save_file(weights, source / "model.safetensors")
    assert "image_newline" in refused(source)


@pytest.mark.parametrize(
    "field", [{"projector_hidden_act": "relu"}, {"vision_feature_layer": [-2, -5]}]
)
def test_features_of_llava_hf_that_ours_cannot_take(twin, tmp_path, refused, field):
    source = twin.save_hugging_face(tmp_path / "source", old=False)
    config = source / "config.json"
    layouts.write_json(config, json.loads(config.read_text()) | field)
    assert next(iter(field)) in refused(source)


def test_a_folder_of_something_else(twin, tmp_path, refused):
    assert "is none of the formats that are read" in refused(twin.base)
    assert "does not exist" in refused(tmp_path / "nothing")
    (tmp_path / "last.ckpt").touch()
    assert "needs no import: start from it by model.init_from" in refused(tmp_path / "last.ckpt")


def test_a_template_for_another_tokenizer(twin, tmp_path, refused, tool, capsys):
    source = twin.save_original(tmp_path / "source")
    given = ["--source", str(source), "--output", str(tmp_path / "out")]
    assert tool.main(given) == 2
    said = capsys.readouterr().err
    assert f"the tokenizer of '{source}' does not say how conversations are written" in said
    assert "no_such_template" in refused(source, "--template", "no_such_template")


def test_a_folder_that_is_there_stays(twin, tmp_path, tool, capsys):
    file, *more = map(str, bare(twin, tmp_path))
    (tmp_path / "out").mkdir()
    (tmp_path / "out/kept").touch()
    assert tool.main(["--source", file, "--output", str(tmp_path / "out"), *more]) == 2
    assert "exists and is not empty" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["kept"]


@pytest.mark.parametrize("option", ["--base", "--vision", "--merge"])
def test_options_that_would_change_nothing(twin, tmp_path, refused, option):
    source = twin.save_hugging_face(tmp_path / "source", old=False)
    more = [option] if option == "--merge" else [option, twin.base]
    assert f"{option}: '{source}' is of the kind hf" in refused(source, *more)


def test_a_kind_that_it_is_not(twin, tmp_path, refused):
    source = twin.save_original(tmp_path / "source")
    base = ("--base", twin.base)
    assert "mm_projector.bin' does not exist" in refused(source, "--kind", "projector", *base)
    assert "could not load" in refused(source, "--kind", "hf")
    assert "adapter_config.json' cannot be read" in refused(source, "--kind", "peft")


@pytest.mark.parametrize("merge", [(), ("--merge",)])
def test_adapters_on_a_llava(twin, tmp_path, refused, tool, merge):
    """LLaVA's finetune_task_lora.sh starts from a LLaVA: that is imported first."""
    source = twin.save_lora(tmp_path / "source")
    first = Twin(tmp_path / "first", "llama").save_original(tmp_path / "llava")
    assert f"--base: '{first}' is no LLM but a LLaVA" in refused(source, "--base", first, *merge)
    settings = {"template": "vicuna_v1"}
    layouts.take_over(first, tmp_path / "imported", **settings)
    base = str(tmp_path / "imported/language")
    layouts.take_over(source, tmp_path / "out", base=base, merge=bool(merge))
    layouts.assert_equals_twin(tmp_path / "out", twin)


def test_a_tower_in_the_place_of_the_llm_is_named(refused, twin, tmp_path):
    file, *_ = bare(twin, tmp_path)
    said = refused(file, "--base", twin.tower, "--vision", twin.tower)
    assert "--base: a model of type 'clip_vision_model' is no causal LLM" in said
