"""Compiled decoder layers: the same numbers and names, few graphs, and refusals in time."""

import pytest
import torch
from torch._dynamo.utils import counters

from lightning_llava.data.collate import collate_packed
from lightning_llava.errors import SettingError
from lightning_llava.models import settle
from lightning_llava.models.activations import apply_policy
from lightning_llava.models.checkpoint import checkpoint_names
from lightning_llava.models.compilation import compile_layers, uncompiled
from lightning_llava.specs import BenchmarkSpec, LoraSpec
from runs import make_data, make_module, make_trainer
from tiny import IMAGE_SIZE, build, gradients, row

# torch's own, about itself.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),
    pytest.mark.filterwarnings("ignore:VecISA dlopen probe"),  # on a busy machine
]

CPU = torch.device("cpu")
PACKS = [[12, 20, 9], [20], [9, 8], [30, 11, 5, 5, 7, 6], [13, 13, 13], [40]]


@pytest.fixture(autouse=True)
def fresh_compiler(monkeypatch):
    """No graphs of other tests, and the process-wide settings put back."""
    config = torch._dynamo.config
    before = config.optimize_ddp, config.recompile_limit
    torch._dynamo.reset()
    counters.clear()
    yield
    config.optimize_ddp, config.recompile_limit = before
    torch._dynamo.reset()


def make_model(clip, language, policy="none", attention="sdpa", dropout=0.0):
    torch.manual_seed(0)
    model = build(clip, language, LoraSpec(r=4, alpha=8, dropout=dropout)).train()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.language.set_attn_implementation(attention)
    apply_policy(model.language, policy)
    return model


def pack(model, lengths):
    rows = [row(str(i), n, i % 2, 3, seed=i) for i, n in enumerate(lengths)]
    return collate_packed(rows, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)


def step(model, lengths):
    model.zero_grad()
    loss = model(pack(model, lengths)).loss
    loss.backward()
    return loss.detach(), gradients(model)


def assert_same_steps(clip, language, policy, backend, packs=PACKS):
    plain, compiled = make_model(clip, language, policy), make_model(clip, language, policy)
    compile_layers(compiled.language, CPU, torch.float32, backend)
    assert list(compiled.state_dict()) == list(plain.state_dict())
    assert checkpoint_names(compiled) == checkpoint_names(plain)
    for lengths in packs:
        (loss, grads), (found, changed) = step(plain, lengths), step(compiled, lengths)
        torch.testing.assert_close(found, loss)
        assert changed.keys() == grads.keys()
        for name, gradient in grads.items():
            torch.testing.assert_close(changed[name], gradient, rtol=1e-4, atol=1e-5)
    assert not counters["graph_break"]
    # A pack of one sample has no mask: one graph with it and one without, for all packs and layers.
    assert counters["stats"]["unique_graphs"] == 1 + any(len(lengths) == 1 for lengths in packs)


@pytest.mark.parametrize(
    ("policy", "backend", "packs"),
    [
        ("none", "eager", PACKS),
        pytest.param(
            *("full", "aot_eager", [p for p in PACKS if len(p) > 1]), marks=pytest.mark.slow
        ),
    ],
)
def test_compiled_layers_change_neither_losses_nor_gradients_nor_names(
    clip, mistral, policy, backend, packs
):
    assert_same_steps(clip, mistral, policy, backend, packs)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["none", "full"])
def test_inductor_changes_neither_losses_nor_gradients(clip, mistral, policy):
    assert_same_steps(clip, mistral, policy, "inductor")


@pytest.mark.slow
def test_inductor_draws_the_dropout_that_torch_draws(clip, mistral):
    plain, compiled = (make_model(clip, mistral, dropout=0.3) for _ in range(2))
    compile_layers(compiled.language, CPU, torch.float32)
    losses = []
    for model in (plain, compiled):
        torch.manual_seed(1)
        losses.append(step(model, PACKS[0])[0])
    torch.testing.assert_close(*losses)


def test_the_tower_stays_as_it_is(clip, mistral):
    model = make_model(clip, mistral)
    compile_layers(model.language, CPU, torch.float32, "eager")
    compiled = [name for name, part in model.named_modules() if part._compiled_call_impl]
    assert compiled == ["language.model.layers.0", "language.model.layers.1"]


@pytest.mark.parametrize("policy", ["none", "full"])
def test_attention_by_segments_is_refused(clip, mistral, policy):
    model = make_model(clip, mistral, policy, attention="segments")
    with pytest.raises(SettingError, match=r"cannot follow attention `segments`.*attention: sdpa"):
        compile_layers(model.language, CPU, torch.float32, "eager")


def test_dropout_in_recomputed_layers_is_refused(clip, mistral):
    model = make_model(clip, mistral, "every_2", dropout=0.1)
    with pytest.raises(SettingError, match=r"dropout \(0\.1\).*set model\.lora\.dropout: 0 or"):
        compile_layers(model.language, CPU, torch.float32, "eager")
    apply_policy(model.language, "none")
    compile_layers(model.language, CPU, torch.float32, "eager")


@pytest.mark.parametrize("mark", ["quant_state", "SCB"])
def test_quantized_weights_are_refused(clip, mistral, mark):
    model = make_model(clip, mistral)
    weight = model.language.model.layers[1].mlp.up_proj.base_layer.weight
    setattr(weight, mark, object())  # as bitsandbytes has it in 4 and in 8 bits
    with pytest.raises(SettingError, match=r"quantized by bitsandbytes.*set model\.compile: none"):
        compile_layers(model.language, CPU, torch.float32, "eager")


def test_a_compiler_that_is_not_there_is_named(clip, mistral):
    def missing(graph, inputs):
        raise RuntimeError("No working C++ compiler found\nand a page more")

    model = make_model(clip, mistral)
    with pytest.raises(
        SettingError, match=r"No working C\+\+ compiler found\).*set model\.compile: none$"
    ):
        compile_layers(model.language, CPU, torch.float32, missing)


def test_a_compiler_that_computes_something_else_is_found_out(clip, mistral):
    def wrong(graph, inputs):
        return lambda *args: tuple(output.roll(1, -1) for output in graph(*args))

    model = make_model(clip, mistral)
    with pytest.raises(SettingError, match=r"something else than the layers themselves \(cosine"):
        compile_layers(model.language, CPU, torch.float32, wrong)


@pytest.mark.slow
def test_answers_between_steps_run_uncompiled(demo_world, tmp_path, monkeypatch):
    """A fit with a validation: the answers add no graph, and the steps after it need no new one."""
    monkeypatch.setattr(
        settle, "compile_layers", lambda *settings: compile_layers(*settings, backend="eager")
    )
    module = make_module(
        demo_world,
        attention="sdpa",
        activation_checkpointing="every_2",
        lora=LoraSpec(r=8, alpha=16, dropout=0.0),
        compile="layers",
    )
    graphs = []

    def count(*_):
        graphs.append(counters["stats"]["unique_graphs"])

    monkeypatch.setattr(module, "on_validation_start", count, raising=False)
    monkeypatch.setattr(module, "on_validation_end", count, raising=False)
    data = make_data(demo_world, benchmarks=demo_benchmark(demo_world))
    trainer = make_trainer(
        tmp_path,
        max_steps=4,
        limit_val_batches=2,
        val_check_interval=2,
        check_val_every_n_epoch=None,
    )
    trainer.fit(module, data)
    assert module.rows
    # Recomputed and kept layers have a graph each.
    assert graphs == [2, 2, 2, 2]
    assert counters["stats"]["unique_graphs"] == 2


@pytest.mark.slow
def test_without_that_each_answer_would_be_compiled(clip, mistral):
    model = make_model(clip, mistral)
    compile_layers(model.language, CPU, torch.float32, "eager")
    model.eval()
    ids = torch.arange(6)[None]

    def answer(length):
        model.language.generate(ids[:, :length], max_new_tokens=1, pad_token_id=0)

    with uncompiled():
        answer(4)
    assert counters["stats"]["unique_graphs"] == 1
    answer(4)
    assert counters["stats"]["unique_graphs"] > 1


def demo_benchmark(world):
    files = {"random": str(world / "pope/en/demo_pope_random.json")}
    return {"pope": BenchmarkSpec(files=files, images=str(world / "images"), subset=4)}
