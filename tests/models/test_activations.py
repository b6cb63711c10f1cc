"""Recomputing layers: nothing but memory changes, and the choice follows from numbers."""

import pytest
import torch
from transformers import MistralConfig, MistralForCausalLM

from lightning_llava.data.collate import collate_packed
from lightning_llava.errors import SettingError
from lightning_llava.models import activation_memory, activations
from lightning_llava.models.activation_memory import (
    counted_saved_bytes,
    measure_layer,
    measured_policy,
    static_bytes,
)
from lightning_llava.models.activations import (
    GIB,
    INTERVALS,
    Demand,
    LayerBytes,
    apply_policy,
    cheapest_policy,
    needed_bytes,
    num_recomputed,
)
from lightning_llava.models.lora import add_lora
from lightning_llava.specs import LoraSpec
from tiny import IMAGE_SIZE, TEXT, VOCABULARY, build, gradients, row

CPU = torch.device("cpu")
ROWS = [row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2), row("c", 9, 0, 1, 3)]


@pytest.fixture
def deep(tmp_path):
    """A Mistral of seven layers, a number that 2 and 3 do not divide."""
    torch.manual_seed(5)
    config = MistralConfig(
        **TEXT | {"num_hidden_layers": 7}, intermediate_size=96, vocab_size=VOCABULARY
    )
    MistralForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def count_runs(model):
    """Count how often each decoder layer's attention runs, recomputation included."""
    runs = [0] * 7

    def counter(index):
        def count(module, args, output):
            runs[index] += 1

        return count

    for index, layer in enumerate(model.language.model.layers):
        layer.self_attn.register_forward_hook(counter(index))
    return runs


def test_policies_recompute_the_layers_they_name_and_change_no_bit(clip, deep):
    model = build(clip, deep, LoraSpec(r=4, alpha=8, dropout=0.1)).train()
    torch.manual_seed(1)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    names = [name for name, _ in model.named_parameters()]
    batch = collate_packed(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
    runs = count_runs(model)
    expected = {
        "none": [1, 1, 1, 1, 1, 1, 1],
        "every_3": [2, 1, 1, 2, 1, 1, 2],
        "every_2": [2, 1, 2, 1, 2, 1, 2],
        "full": [2, 2, 2, 2, 2, 2, 2],
    }
    assert expected.keys() == INTERVALS.keys()
    losses, grads, saved, draws = {}, {}, {}, {}
    for policy, wanted in expected.items():
        runs[:] = [0] * 7
        apply_policy(model.language, policy)
        model.zero_grad()
        torch.manual_seed(7)
        with counted_saved_bytes(model) as count:
            loss = model(batch).loss
        loss.backward()
        assert runs == wanted
        assert [name for name, _ in model.named_parameters()] == names
        losses[policy], grads[policy], saved[policy] = loss.detach(), gradients(model), count.total
        draws[policy] = torch.rand(1)
    for policy in expected:
        assert torch.equal(losses[policy], losses["none"])
        assert torch.equal(draws[policy], draws["none"])
        assert all(torch.equal(grads[policy][name], grads["none"][name]) for name in grads["none"])
    assert saved["none"] > saved["every_3"] > saved["every_2"] > saved["full"]
    torch.manual_seed(8)
    assert not torch.equal(model(batch).loss, losses["none"])  # dropout was at work


def test_nothing_is_recomputed_outside_of_training(clip, deep):
    model = build(clip, deep).eval()
    runs = count_runs(model)
    apply_policy(model.language, "full")
    batch = collate_packed(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
    model(batch).loss.backward()
    assert runs == [1] * 7


def test_an_unknown_policy_is_refused(clip, mistral):
    with pytest.raises(SettingError, match=r"found 'every_4'; expected one of auto, none, every_3"):
        apply_policy(build(clip, mistral).language, "every_4")


def test_recomputed_layers_by_hand():
    counts = {policy: [num_recomputed(policy, n) for n in (1, 6, 7)] for policy in INTERVALS}
    assert counts == {
        "none": [0, 0, 0],
        "every_3": [1, 2, 3],
        "every_2": [1, 3, 4],
        "full": [1, 6, 7],
    }


DEMAND = Demand(free=0, static=1000, logits=50, layers=7, tokens=10)
LAYER = LayerBytes(kept=100, recomputed=10)
NEEDED = {
    "none": 1000 + 50 + 8 * 100,
    "every_3": 1000 + 50 + 5 * 100 + 3 * 10,
    "every_2": 1000 + 50 + 4 * 100 + 4 * 10,
    "full": 1000 + 50 + 1 * 100 + 7 * 10,
}


def test_needed_bytes_by_hand():
    assert {policy: needed_bytes(policy, LAYER, DEMAND) for policy in INTERVALS} == NEEDED


@pytest.mark.parametrize("policy", NEEDED)
def test_the_cheapest_that_fits_is_chosen(monkeypatch, policy):
    monkeypatch.setattr(activations, "MARGIN", 0.5)
    enough = 2 * NEEDED[policy]
    assert cheapest_policy(LAYER, _with(free=enough))[0] == policy
    cheaper = {"full": "full", "every_2": "full", "every_3": "every_2", "none": "every_3"}
    chosen, reason = cheapest_policy(LAYER, _with(free=enough - 2))
    assert chosen == cheaper[policy]
    assert ("even full may not fit: lower data.pack_tokens" in reason) == (policy == "full")


def _with(free):
    return Demand(free, DEMAND.static, DEMAND.logits, DEMAND.layers, DEMAND.tokens)


def test_the_reason_gives_the_numbers():
    """An 80 GB card, Mistral-7B with LoRA, packs of 8192 tokens: 290 KiB a token and layer."""
    layer = LayerBytes(kept=290 * 1024 * 8192, recomputed=8 * 1024 * 8192)
    demand = Demand(free=79 * GIB, static=19 * GIB, logits=GIB, layers=32, tokens=8192)
    policy, reason = cheapest_policy(layer, demand)
    # none: 20 + 33 x 2.2656; every_3: 20 + 22 x 2.2656 + 11 x 0.0625; and so on.
    assert policy == "every_3"
    assert reason == (
        "of 79.0 GiB free, 72.7 without a margin; needed GiB: none 94.8, every_3 70.5, "
        "every_2 59.5, full 24.3 (weights, gradients and optimizer 19.0, 32 layers x 8192 tokens x "
        "290 KiB)"
    )


def test_a_processor_without_a_gpu_recomputes_nothing(clip, mistral):
    model = build(clip, mistral)
    policy, reason = measured_policy(model, model.language, 100, CPU, torch.float32)
    assert (policy, reason) == ("none", "the device is cpu")


def test_on_a_gpu_the_measured_numbers_decide(monkeypatch, clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8))
    cuda, asked = torch.device("cuda"), []

    def measured(language, tokens, device, compute):
        asked.append((language is model.language, tokens, device, compute))
        return LayerBytes(kept=10**8, recomputed=10**7)

    monkeypatch.setattr(activation_memory, "measure_layer", measured)
    static = static_bytes(model, cuda)
    # Two layers of vocabulary 120: none needs 3 layers' worth, full one and what both leave.
    logits = 1000 * VOCABULARY * 16
    none, full = static + logits + 3 * 10**8, static + logits + 10**8 + 2 * 10**7
    for need, policy in ((none, "none"), (none - 100, "every_3"), (full - 100, "full")):
        monkeypatch.setattr(activation_memory, "free_bytes", lambda _, n=need: int(n / 0.92) + 1)
        chosen, reason = measured_policy(model, model.language, 1000, cuda, torch.bfloat16)
        assert chosen == policy
    assert reason.endswith("even full may not fit: lower data.pack_tokens")
    assert asked == 3 * [(True, 1000, cuda, torch.bfloat16)]


def test_static_bytes_by_hand():
    model = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.Linear(5, 2))
    model[0].requires_grad_(False).to(torch.bfloat16)
    weights, trained = 20 * 2 + 12 * 4, 12
    assert static_bytes(model, torch.device("cuda")) == weights + trained * (4 + 8)
    assert static_bytes(model, torch.device("cuda"), shards=2) == (weights + trained * 12) // 2
    assert static_bytes(model, CPU) == trained * 12


def test_saved_bytes_by_hand():
    linear = torch.nn.Linear(4, 4)
    states = torch.ones(8, 4, requires_grad=True)
    with counted_saved_bytes(linear) as count:
        out = linear(states).sigmoid()  # keeps its input and its output; the weight is there
        out.view(16, 2).relu().sum().backward()  # relu keeps its own output
    assert count.total == 3 * 8 * 4 * 4


def test_a_layer_keeps_as_much_as_a_deeper_model_keeps_more(deep):
    """Measured on a copy of one layer against the difference that a layer makes in whole models."""
    language = MistralForCausalLM.from_pretrained(deep, attn_implementation="sdpa")
    add_lora(language, LoraSpec(r=4, alpha=8, dropout=0.1))
    language.train()
    state, before = torch.get_rng_state(), {n: p.clone() for n, p in language.named_parameters()}
    found = measure_layer(language, 40, CPU, torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[name], p) for name, p in language.named_parameters())
    assert len(language.model.layers) == 7

    def kept(policy):
        apply_policy(language, policy)
        embeds = torch.zeros(1, 40, 48, requires_grad=True)
        with counted_saved_bytes(language) as count:
            language.model(inputs_embeds=embeds, position_ids=torch.arange(40)[None])
        return count.total

    none, every_3, full = kept("none"), kept("every_3"), kept("full")
    # every_3 recomputes three of the seven layers, full all.
    per_layer = found.kept - found.recomputed
    for saved, recomputed in ((every_3, 3), (full, 7)):
        assert none - saved == pytest.approx(recomputed * per_layer, rel=0.02)


def test_a_layer_under_autocast_leaves_its_input_and_copies_of_trained_weights(deep):
    language = MistralForCausalLM.from_pretrained(deep, dtype=torch.bfloat16)
    language.requires_grad_(False)
    add_lora(language, LoraSpec(r=4, alpha=8, dropout=0.0))
    for name, parameter in language.named_parameters():
        if ".lora_" in name:
            parameter.data = parameter.data.float()
    found = measure_layer(language, 40, CPU, torch.bfloat16)
    # A: 4 x inputs, B: outputs x 4, of q, k, v, o, gate, up, down.
    inputs, outputs = 48 * 6 + 96, 48 + 24 + 24 + 48 + 96 + 96 + 48
    assert found.recomputed == 40 * 48 * 2 + 4 * (inputs + outputs) * 2
