"""Mini decoders that learn, from scratch, to answer questions about scenes described in text."""

from math import cos, sin
from random import Random

import numpy as np
import torch
from mini_texts import WEIGHTS, conversation, single
from mini_training import chunks
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

from lightning_llava.batch import IGNORE_INDEX
from lightning_llava.demo import english, russian
from lightning_llava.demo.questions import Topic
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.tokens import BOS_ID, EOS_ID, UNK_ID
from lightning_llava.demo.wording import Wording
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder, Encoded
from lightning_llava.text.turns import Turn

HEAD_WIDTH = 32
LAYERS = 4
CONTEXT = 2048
ROPE_THETA = 1000.0
"""Conversations are short: a smaller base makes nearby positions easier to tell apart."""
INITIALIZER_RANGE = 0.05
LOOK_BACK = {4: (1, 3, 4, 5), 5: (1, 2, 3, 4, 5)}
"""By number of heads: how many tokens back each head of the first layer looks at the start."""
SHARPNESS = 8.0
"""Logit by which a head of the first layer prefers its offset."""
SAME_TOKEN_STD = 0.08
"""Of the common query and key weights at width 128."""
TEXT_LENGTH = 128
"""Tokens of a training conversation; questions that do not fit are left away."""
QUESTIONS = 6
BATCH, MICRO_BATCH = 128, 16
WITH_SYSTEM = 0.25
"""Share of the conversations that start with the template's system text."""
MIXED = 0.25
"""Share of a bilingual decoder's conversations whose description may be in the other language."""
DecoderModel = LlamaForCausalLM | MistralForCausalLM


def build_decoder(family: str, heads: int, vocabulary: int) -> DecoderModel:
    """Build a decoder with the weights that it starts from.

    Args:
        family: `llama` or `mistral`.
        heads: of 32 each, which makes the width.
        vocabulary: size.
    """
    width = heads * HEAD_WIDTH
    settings = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "intermediate_size": 3 * width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": CONTEXT,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "initializer_range": INITIALIZER_RANGE,
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": UNK_ID,
        # On short rows on a CPU faster than the fused kernels.
        "attn_implementation": "eager",
    }
    if family == "llama":
        model: DecoderModel = LlamaForCausalLM(LlamaConfig(**settings))
    else:
        model = MistralForCausalLM(MistralConfig(**settings, sliding_window=None))
    start_lookups(model)
    return model


@torch.no_grad()
def start_lookups(model: DecoderModel) -> None:
    """Start the attention as trained language models have it, so that lookups are learned at all.

    To say what colour the star is, one layer must tell "star" which word stood before it, and
    another must find the "star" that is asked for: neither is of use without the other, and from
    random weights nothing happened for a thousand steps (colour of a shape 0.77, which is what
    guessing among the colours in the scene gives). So the heads of the first layer look a fixed
    number of tokens back, as the previous-token heads of Olsson et al. 2022 (In-context Learning
    and Induction Heads) do, and those of the others look for tokens like their own, with queries
    equal to keys (Trockman & Kolter 2023, Mimetic Initialization of Self-Attention Layers).
    """
    embedding = model.model.embed_tokens.weight
    # One feature that all tokens share carries what does not depend on the token.
    embedding[:, 0] = 2 * INITIALIZER_RANGE
    shared = (embedding[:, 0] / embedding.pow(2).mean(1).sqrt()).mean().item()
    first, *others = [layer.self_attn for layer in model.model.layers]
    half = HEAD_WIDTH // 2
    rates = [ROPE_THETA ** (-i / half) for i in range(half)]  # radians per token
    used = [rate for rate in rates if rate > 0.1]  # the slow ones do not tell neighbours apart
    size = (SHARPNESS * HEAD_WIDTH**0.5 / len(used)) ** 0.5 / shared
    heads = model.config.num_attention_heads
    for head, offset in enumerate(LOOK_BACK[heads]):
        for i, rate in enumerate(used):
            at = head * HEAD_WIDTH + i
            first.q_proj.weight[at, 0] += size
            first.k_proj.weight[at, 0] += size * cos(rate * offset)
            first.k_proj.weight[at + half, 0] += size * sin(rate * offset)
    std = SAME_TOKEN_STD * (4 / heads) ** 0.5
    for attention in others:
        attention.q_proj.weight.normal_(0.0, std)
        attention.k_proj.weight.copy_(attention.q_proj.weight)


class TextLearner:
    """A decoder that learns from conversations; only answers are supervised.

    Args:
        model: the decoder.
        tokenizer: folder of its tokenizer.
        template: name of its prompt format.
        languages: that it learns.
        seed: what scenes and conversations are drawn from.
    """

    def __init__(
        self,
        model: DecoderModel,
        tokenizer: str,
        template: str,
        languages: tuple[Wording, ...],
        seed: int,
    ) -> None:
        self.model, self.languages, self.seed = model, languages, seed
        self.encoders = [
            ConversationEncoder(LanguageSpec(tokenizer, template, max_length=length, system=system), 0)
            for length, system in ((TEXT_LENGTH, ""), (TEXT_LENGTH, None))
        ]
        self._compiled = torch.compile(model.model, dynamic=False)

    @property
    def module(self) -> nn.Module:
        """The decoder."""
        return self.model

    def learn(self, step: int) -> float:
        """Add the gradients of 128 conversations; return the mean loss of a supervised token."""
        batch = [self.example(step * BATCH + i) for i in range(BATCH)]
        ids, labels = padded(batch, TEXT_LENGTH)
        supervised = (labels[:, 1:] != IGNORE_INDEX).sum()
        total = 0.0
        for part in chunks(BATCH, MICRO_BATCH):
            logits, wanted, _ = self._logits(ids[part], labels[part], self._compiled)
            loss = cross_entropy(logits, wanted, reduction="sum") / supervised
            loss.backward()
            total += loss.item()
        return total

    def example(self, number: int) -> Encoded:
        """Make training conversation `number`."""
        rng = Random(f"mini/{self.seed}/{number}")
        scene = generate(self.seed, number, "train")
        asked = rng.choice(self.languages)
        described = rng.choice(self.languages) if rng.random() < MIXED else asked
        encoder = self.encoders[rng.random() < WITH_SYSTEM]
        while True:
            try:
                return encoder.encode(conversation(scene, described, asked, rng, QUESTIONS), 0)
            except SettingError:  # a long description and a long first answer; another choice fits
                encoder = self.encoders[0]

    @torch.no_grad()
    def scores(self, scenes: int = 100) -> dict[str, float]:
        """Score single questions about held-out scenes, exact match, per topic and language.

        Which token the decoder would write next is asked behind the right beginning of each answer:
        all are right exactly where a greedy answer is.
        """
        self.model.eval()
        made = {
            f"{topic}.{wording.CODE}": self._score(topic, wording, scenes)
            for wording in self.languages
            for topic in WEIGHTS
        }
        self.model.train()
        return {"all": sum(made.values()) / len(made), **made}

    def _score(self, topic: Topic, wording: Wording, scenes: int) -> float:
        encoded = [
            self.encoders[0].encode(asked, 0)
            for index in range(scenes)
            if (asked := self._question(index, wording, topic))
        ]
        ids, labels = padded(encoded, max(len(e.input_ids) for e in encoded))
        right = 0
        for part in chunks(len(ids), 2 * MICRO_BATCH):
            logits, wanted, kept = self._logits(ids[part], labels[part], self.model.model)
            correct = torch.ones_like(kept)
            correct[kept] = logits.argmax(-1) == wanted
            right += int(correct.all(1).sum())
        return right / len(ids)

    def _question(self, index: int, wording: Wording, topic: Topic) -> list[Turn]:
        # Another seed than the world's: the questions of the benchmarks are not looked at.
        rng = Random(f"mini/check/{topic}/{index}")
        return single(generate(self.seed + 1, index, "validation"), wording, topic, rng)

    def _logits(
        self, ids: torch.Tensor, labels: torch.Tensor, decoder: nn.Module
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return logits and targets of the supervised positions, and where these are."""
        device = self.model.device
        ids, wanted = ids.to(device), labels[:, 1:].to(device)
        kept = wanted != IGNORE_INDEX
        with torch.autocast(device.type, torch.bfloat16):
            hidden = decoder(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
            logits = self.model.lm_head(hidden[kept])
        return logits.float(), wanted[kept], kept


def padded(batch: list[Encoded], length: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right, where causal attention makes a mask needless."""
    ids = np.full((len(batch), length), UNK_ID, np.int64)
    labels = np.full((len(batch), length), IGNORE_INDEX, np.int64)
    for row, encoded in enumerate(batch):
        ids[row, : len(encoded.input_ids)] = encoded.input_ids
        labels[row, : len(encoded.labels)] = encoded.labels
    return torch.from_numpy(ids), torch.from_numpy(labels)


ENGLISH: tuple[Wording, ...] = (english,)
BILINGUAL: tuple[Wording, ...] = (english, russian)
