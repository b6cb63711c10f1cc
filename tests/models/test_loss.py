"""The loss in chunks against the loss in one piece, on heads of every kind."""

import weakref

import pytest
import torch
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import (
    CohereConfig,
    CohereForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
)

from lightning_llava.batch import IGNORE_INDEX
from lightning_llava.data.collate import collate_packed, collate_padded
from lightning_llava.models import loss as loss_file
from lightning_llava.models.build import build_llava
from lightning_llava.models.head import OutputHead, caught_hidden_states, find_head
from lightning_llava.models.loss import chunked_cross_entropy, shifted_targets
from lightning_llava.specs import (
    LanguageSpec,
    LearningRates,
    LoraSpec,
    ProjectorSpec,
    VisionSpec,
)
from tiny import IMAGE_SIZE, TEXT, VOCABULARY, build, gradients, row

ROWS = [row("a", 12, 1, 7, 1), row("b", 20, 2, 9, 2), row("c", 9, 0, 5, 3)]
SMALL = TEXT | {"intermediate_size": 64, "vocab_size": VOCABULARY, "head_dim": 12}
HEADS = {
    "plain": lambda: MistralForCausalLM(MistralConfig(**SMALL, tie_word_embeddings=False)),
    "tied": lambda: MistralForCausalLM(MistralConfig(**SMALL, tie_word_embeddings=True)),
    "capped": lambda: Gemma2ForCausalLM(Gemma2Config(**SMALL, pad_token_id=0)),
    "scaled up": lambda: CohereForCausalLM(CohereConfig(**SMALL, pad_token_id=0, logit_scale=0.3)),
    "scaled down": lambda: GraniteForCausalLM(GraniteConfig(**SMALL, logits_scaling=4.0)),
    "with bias": lambda: PhiForCausalLM(PhiConfig(**SMALL)),
}


@pytest.fixture(params=HEADS)
def decoder_folder(request, tmp_path):
    torch.manual_seed(0)
    language = HEADS[request.param]()
    # Weights as drawn give logits near zero, where a cap would not show.
    torch.nn.init.normal_(language.get_output_embeddings().weight, std=2.0)
    if language.get_output_embeddings().bias is not None:
        torch.nn.init.normal_(language.get_output_embeddings().bias)
    language.save_pretrained(tmp_path)
    return tmp_path


def reference_loss(model, batch):
    """All logits, made by transformers alone, and cross entropy over the shifted labels."""
    logits = model.logits(batch)
    targets = shifted_targets(batch.labels, batch.cu_seqlens)
    return cross_entropy(
        logits.flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
    )


@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
def test_chunks_give_the_loss_and_gradients_of_all_logits(
    monkeypatch, clip, decoder_folder, trained
):
    rates = LearningRates(projector=1e-3, lora=None, language=1e-4 if trained else None)
    model = build_llava(
        VisionSpec(name=str(clip)),
        ProjectorSpec(),
        LanguageSpec(name=str(decoder_folder)),
        None,
        rates,
        attention="eager",  # Gemma2 has no other in transformers 5.23
    )
    assert model._head is not None
    for collate in (collate_packed, collate_padded):
        batch = collate(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
        model.zero_grad()
        expected = reference_loss(model, batch)
        expected.backward()
        wanted = gradients(model)
        for most in (loss_file.MAX_LOGITS, 4 * VOCABULARY, 1):
            monkeypatch.setattr(loss_file, "MAX_LOGITS", most)
            model.zero_grad()
            result = model(batch)
            result.loss.backward()
            assert int(result.supervised) == 7 + 9 + 5
            torch.testing.assert_close(result.loss, expected, atol=0, rtol=1e-6)
            found = gradients(model)
            assert found.keys() == wanted.keys()
            for name, gradient in found.items():
                scale = float(wanted[name].abs().max())
                torch.testing.assert_close(
                    gradient, wanted[name], atol=1e-6 * scale + 1e-9, rtol=1e-5, msg=name
                )


class LiveLogits(TorchDispatchMode):
    """Watch how many rows as wide as the vocabulary are alive at a time, but for the weight."""

    def __init__(self, weight):
        super().__init__()
        self.width, self.live, self.most = weight.shape[0], {}, 0
        self.weight = weight.untyped_storage().data_ptr()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else [out]:
            if isinstance(tensor, torch.Tensor) and tensor.ndim and tensor.shape[-1] == self.width:
                storage = tensor.untyped_storage()
                if storage.data_ptr() != self.weight:
                    rows = tensor.numel() // self.width
                    self.live[storage.data_ptr()] = (weakref.ref(storage), rows)
        self.live = {key: held for key, held in self.live.items() if held[0]() is not None}
        self.most = max(self.most, sum(rows for _, rows in self.live.values()))
        return out


def test_never_more_than_a_chunk_of_logits_lives(monkeypatch):
    positions, width, vocabulary = 64, 8, 977
    hidden = torch.randn(positions, width, requires_grad=True)
    projection = torch.nn.Linear(width, vocabulary, bias=False).requires_grad_(False)
    targets = torch.randint(vocabulary, (positions,))
    most = {}
    for rows in (positions, 4):
        monkeypatch.setattr(loss_file, "MAX_LOGITS", rows * vocabulary)
        with LiveLogits(projection.weight) as watch:
            chunked_cross_entropy(hidden, targets, projection, vocabulary).backward()
        most[rows] = watch.most
    # In one piece the logits, what cross entropy keeps of them and two gradients come together.
    assert most[positions] >= 2 * positions
    assert most[4] <= 4 * 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_is_what_the_config_says_only_if_the_model_agrees(dtype):
    torch.manual_seed(0)
    gemma = HEADS["capped"]().to(dtype)
    assert find_head(gemma) == OutputHead(cap=30.0)
    assert find_head(HEADS["scaled down"]().to(dtype)) == OutputHead(scale=0.25)
    # Mistral knows no such key, Gemma does what its config no longer says.
    mistral = HEADS["plain"]().to(dtype)
    mistral.config.final_logit_softcapping = 30.0
    assert find_head(mistral) is None
    gemma.config.final_logit_softcapping = None
    assert find_head(gemma) == OutputHead()
    plain = gemma.forward

    def with_constant(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits + 1
        return output

    gemma.forward = with_constant
    assert find_head(gemma) is None


def test_a_head_of_its_own_kind_still_gives_the_right_loss(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8, dropout=0.0))
    plain = model.language.forward

    def halved(*args, **kwargs):
        output = plain(*args, **kwargs)
        output.logits = output.logits / 2 - 1
        return output

    model.language.forward = halved
    model._head = find_head(model.language)
    assert model._head is None
    batch = collate_packed(ROWS, model.vision_tower.geometry.image_tokens, IMAGE_SIZE)
    expected = reference_loss(model, batch)
    torch.testing.assert_close(model(batch).loss, expected, atol=0, rtol=1e-6)


def test_nothing_supervised_is_a_loss_of_zero_with_a_graph(clip, mistral):
    model = build(clip, mistral, LoraSpec(r=4, alpha=8))
    batch = collate_packed(
        [row("a", 12, 1, 0, 1)], model.vision_tower.geometry.image_tokens, IMAGE_SIZE
    )
    result = model(batch)
    result.loss.backward()
    assert float(result.loss.detach()) == 0
    assert int(result.supervised) == 0
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def test_hidden_states_are_those_that_transformers_returns(mistral):
    language = MistralForCausalLM.from_pretrained(mistral).eval()
    ids = torch.arange(10)[None]
    with torch.no_grad(), caught_hidden_states(language) as caught:
        output = language(ids, use_cache=False, output_hidden_states=True)
        language(ids, use_cache=False)
    assert len(caught) == 2
    torch.testing.assert_close(caught[0], output.hidden_states[-1], atol=0, rtol=0)
    with torch.no_grad():
        language(ids, use_cache=False)
    assert len(caught) == 2
