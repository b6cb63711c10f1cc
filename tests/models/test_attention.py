"""Which attention is chosen, and that packed samples are as good as alone under each."""

import pytest
import torch
from packs import (
    KERNELS,
    LENGTHS,
    WINDOW,
    decoder,
    embeddings,
    packed_logits,
    register,
    separate_logits,
)

from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.errors import SettingError
from lightning_llava.models.activations import apply_policy
from lightning_llava.models.attention import candidates, choose_attention, passed_over
from lightning_llava.models.packed_attention import make_varlen, packed_mask
from tiny import IMAGE_SIZE, build, gradients, row

CPU, HALF = torch.device("cpu"), torch.bfloat16
BACKENDS = ["segments", "sdpa", "eager", "varlen_like"]


@pytest.fixture(autouse=True)
def _varlen_on_cpu(monkeypatch):
    """torch's kernel runs on CUDA alone; a stand-in of its signature runs what is around it."""
    register(monkeypatch, "varlen_like", make_varlen(KERNELS["2.13"]))


@pytest.fixture
def gpu(monkeypatch):
    def pretend(capability, flash_attn):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
        where = "lightning_llava.models.attention.find_spec"
        monkeypatch.setattr(where, lambda _: flash_attn or None)

    return pretend


@pytest.mark.parametrize(
    ("device", "capability", "flash_attn", "dtype", "expected"),
    [
        ("cuda", (8, 0), True, HALF, ["flash_attention_2", "varlen", "sdpa", "eager"]),
        ("cuda", (9, 0), False, HALF, ["varlen", "sdpa", "eager"]),
        ("cuda", (10, 0), True, HALF, ["varlen", "flash_attention_2", "sdpa", "eager"]),
        ("cuda", (12, 0), True, HALF, ["flash_attention_2", "varlen", "sdpa", "eager"]),
        ("cuda", (7, 5), True, torch.float16, ["sdpa", "eager"]),
        ("cuda", (9, 0), True, torch.float32, ["sdpa", "eager"]),
        ("cpu", None, True, HALF, ["segments", "sdpa", "eager"]),
        ("mps", None, True, torch.float16, ["segments", "sdpa", "eager"]),
    ],
)
def test_candidates_by_device(gpu, device, capability, flash_attn, dtype, expected):
    gpu(capability, flash_attn)
    arguments = torch.device(device), dtype
    assert candidates(*arguments) == expected
    assert choose_attention("auto", *arguments) == expected[0]
    for name in expected:
        assert choose_attention(name, *arguments) == name


@pytest.mark.parametrize(
    ("name", "device", "capability", "dtype", "message"),
    [
        ("flash_attention_2", "cpu", None, HALF, "the device is cpu; set .*: segments"),
        ("flash_attention_2", "cuda", (7, 5), HALF, "the GPU is older; set .*: sdpa"),
        ("flash_attention_2", "cuda", (9, 0), HALF, "not installed; set .*: varlen"),
        ("varlen", "cpu", None, HALF, "varlen needs .*the device is cpu; set .*: segments"),
        ("varlen", "cuda", (7, 5), HALF, "the GPU is older; set .*: sdpa"),
        ("varlen", "cuda", (9, 0), torch.float32, "precision is not bf16-mixed or .*: sdpa"),
        ("flash", "cpu", None, HALF, "found 'flash'; expected one of auto, "),
    ],
)
def test_what_cannot_run_is_refused_with_what_can(gpu, name, device, capability, dtype, message):
    gpu(capability, flash_attn=False)
    with pytest.raises(SettingError, match=f"^model.attention: .*{message}"):
        choose_attention(name, torch.device(device), dtype)


def test_a_torch_without_the_kernel_has_no_varlen(gpu, monkeypatch):
    gpu((9, 0), flash_attn=False)
    monkeypatch.setattr("lightning_llava.models.attention.torch_varlen", None)
    assert candidates(torch.device("cuda"), HALF) == ["sdpa", "eager"]
    assert passed_over(torch.device("cuda"), HALF) == [
        "flash_attention_2: the package is not installed",
        f"varlen: torch {torch.__version__} has none that can be causal",
    ]


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("backend", BACKENDS)
def test_other_samples_are_unchanged_to_the_bit(backend, window, checkpointing):
    language = decoder(backend, window).train()
    assert language.config.use_cache is True
    if checkpointing:
        apply_policy(language, "full")
    embeds = embeddings()
    before = packed_logits(language, embeds)
    for sample in range(len(LENGTHS)):
        start, end = sum(LENGTHS[:sample]), sum(LENGTHS[: sample + 1])
        first = start + 2  # causality: what comes before it in its sample may not change either
        other = embeds.clone()
        other[:, first:end] += 1
        changed = (packed_logits(language, other) != before).any(dim=-1)[0]
        assert changed.nonzero().flatten().tolist() == list(range(first, end))


@pytest.mark.parametrize("window", [None, WINDOW])
@pytest.mark.parametrize("backend", BACKENDS)
def test_packed_logits_and_gradients_are_those_of_separate_samples(backend, window):
    language, results = decoder(backend, window), []
    for forward in (packed_logits, separate_logits):
        language.zero_grad()
        embeds = embeddings().requires_grad_()
        logits = forward(language, embeds)
        logits.square().mean().backward()
        grads = {n: p.grad.clone() for n, p in language.named_parameters() if p.grad is not None}
        results.append((logits.detach(), grads | {"embeds": embeds.grad}))
    (packed, packed_grads), (separate, separate_grads) = results
    torch.testing.assert_close(packed, separate, atol=1e-5, rtol=1e-5)
    assert packed_grads.keys() == separate_grads.keys()
    for name, value in packed_grads.items():
        torch.testing.assert_close(value, separate_grads[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_activation_checkpointing_changes_nothing(clip, mistral, backend):
    torch.manual_seed(0)
    model = build(clip, mistral).train()
    model.language.requires_grad_(True).set_attn_implementation(backend)
    batch = collate_packed([row("a", 12, 1, 4, 1), row("b", 20, 2, 9, 2)], 16, IMAGE_SIZE)
    results = []
    for _ in range(2):
        model.zero_grad()
        loss = model(batch).loss
        loss.backward()
        results.append((loss.detach(), gradients(model)))
        apply_policy(model.language, "full")
    torch.testing.assert_close(results[0], results[1], atol=0, rtol=0)


@pytest.mark.parametrize("backend", ["segments", "varlen_like"])
def test_positions_alone_keep_samples_apart(backend):
    """Whoever calls the decoder without borders must not mix samples either."""
    language, embeds = decoder(backend, WINDOW), embeddings()
    positions = torch.cat([torch.arange(n) for n in LENGTHS])[None]
    with torch.no_grad():
        # Two rows, whose samples end at different places.
        alone = language(
            inputs_embeds=torch.cat([embeds, embeds.flip(1)]),
            position_ids=torch.cat([positions, torch.arange(sum(LENGTHS))[None]]),
            use_cache=False,
        ).logits
        torch.testing.assert_close(alone[:1], packed_logits(language, embeds), atol=1e-5, rtol=1e-5)
        language.set_attn_implementation("eager")
        whole = language(inputs_embeds=embeds.flip(1), use_cache=False).logits
    torch.testing.assert_close(alone[1:], whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ["segments", "varlen_like"])
def test_padded_rows_and_generation_are_as_with_sdpa(clip, mistral, backend):
    torch.manual_seed(0)
    model = build(clip, mistral)
    prompts = [row("a", 12, 1, 0, 1), row("c", 5, 0, 0, 3)]
    left, right = (collate_padded(prompts, 16, IMAGE_SIZE, left=side) for side in (True, False))
    results = []
    for name in ("sdpa", backend):
        model.language.set_attn_implementation(name)
        with torch.no_grad():
            results.append((model.logits(right), model.generate(left, 6, stop_ids=[1], pad_id=0)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_only_packed_rows_go_without_a_mask():
    sizes = {"batch_size": 1, "q_length": 3, "kv_length": 3, "allow_is_causal_skip": False}
    assert packed_mask(**sizes) is None
    lower = torch.ones(3, 3).tril().bool()
    assert torch.equal(packed_mask(**sizes, use_vmap=True)[0, 0], lower)
    padding = torch.tensor([[True, True, False]])
    assert torch.equal(packed_mask(**sizes, attention_mask=padding)[0, 0], lower & padding)
    cached = packed_mask(**sizes | {"q_length": 1}, q_offset=1)
    assert cached.tolist() == [[[[True, True, False]]]]


def test_a_batch_knows_its_longest_sample(clip, mistral, monkeypatch):
    """Counted by the collator: on a GPU, to look at the borders makes the CPU wait."""
    model, calls = build(clip, mistral), []
    model.language.set_attn_implementation("varlen_like")
    batch = collate_packed([row("a", 12, 1, 4, 1), row("b", 20, 0, 9, 2)], 16, IMAGE_SIZE)
    assert batch.longest == 12 + 15
    monkeypatch.setattr(
        type(model.language), "forward", lambda _, **kwargs: calls.append(kwargs) or NotImplemented
    )
    monkeypatch.setattr(torch.Tensor, "diff", None)
    with pytest.raises(AttributeError):  # NotImplemented has no logits
        model.logits(batch)
    assert calls[0]["max_length_q"] == calls[0]["max_length_k"] == 27
    assert calls[0]["cu_seq_lens_q"] is calls[0]["cu_seq_lens_k"] is batch.cu_seqlens
    assert calls[0]["use_cache"] is False
