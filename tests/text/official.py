"""What LLaVA's own training code does to a conversation, written again from its description.

LLaVA writes the whole conversation as one string, tokenises that, and then finds out what to train
by splitting the string at separators and counting the tokens of the parts (train.py:
preprocess_v1, preprocess_llama_2, preprocess_mpt, preprocess_plain). Nothing here imports the
package. `masks` is None where the counts do not add up: there LLaVA trains nothing, and says so in
a line of its log at most.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from sentencepiece import SentencePieceProcessor

IMAGE, IMAGE_ID, IGNORED = "<image>", -200, -100
EOS = "</s>"
VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
LLAMA_2_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual "
    "content that the user provides, and assist the user with a variety of tasks using natural "
    "language."
)


class SlowTokenizer:
    """transformers 4's `LlamaTokenizer(legacy=True, use_fast=False)`, over SentencePiece itself.

    Special tokens are cut out first; what stands between them is encoded piece by piece, and
    SentencePiece puts its "▁" in front of each.
    """

    def __init__(self, model_file, special):
        self.pieces = SentencePieceProcessor(model_file=str(model_file))
        self.special = special

    def __call__(self, text):
        return [self.special["<s>"], *self.without_bos(text)]

    def without_bos(self, text):
        ids = []
        for part in re.split("(" + "|".join(map(re.escape, self.special)) + ")", text):
            ids += [self.special[part]] if part in self.special else self.pieces.encode(part)
        return ids


def image_ids(text, tokenizer):
    """Tokenise the text around the pictures chunk by chunk, with one BOS in front of all."""
    ids = tokenizer("")
    for number, chunk in enumerate(text.split(IMAGE)):
        ids += [IMAGE_ID] * (number > 0) + tokenizer(chunk)[1:]
    return ids


def pictures_first(texts):
    """Put one placeholder, on its own line, in front of each message that has any."""
    return [
        f"{IMAGE}\n{text.replace(IMAGE, '').strip()}".strip() if IMAGE in text else text
        for text in texts
    ]


@dataclass(frozen=True)
class Style:
    """A conversation format: how it is written, and where it is split again."""

    write: Callable[[list[str]], str]
    separator: str
    """Between the rounds."""
    prompt_end: str
    """Between the question and the answer of a round."""
    counted_beyond: int
    """Tokens of a tokenised prompt that are not masked: BOS, and "▁" of the space at its end."""


def write_two(texts, system=VICUNA_SYSTEM):
    written = system + " "
    for number, text in enumerate(texts):
        role = "ASSISTANT" if number % 2 else "USER"
        written += f"{role}: {text}" + (EOS if number % 2 else " ") if text else f"{role}:"
    return written


def write_llama_2(texts, system, begin):
    written = ""
    for number, text in enumerate(texts):
        if not text:
            continue
        if number % 2:
            written += f" {text} {EOS}"
            continue
        intro = f"<<SYS>>\n{system}\n<</SYS>>\n\n" if system and number == 0 else ""
        written += f"{begin}[INST] {intro}{text} [/INST]"
    return written.removeprefix(begin)


def write_mpt(texts, system="Answer the questions."):
    written = f"<|im_start|>system\n{system}<|im_end|>"
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        written += f"<|im_start|>{role}\n{text}<|im_end|>"
    return written


STYLES = {
    "vicuna_v1": Style(write_two, EOS, " ASSISTANT: ", 2),
    "llama_2": Style(lambda t: write_llama_2(t, LLAMA_2_SYSTEM, "<s>"), EOS, "[/INST] ", 2),
    "mistral_instruct": Style(lambda t: write_llama_2(t, "", ""), EOS, "[/INST] ", 2),
    "chatml": Style(write_mpt, "<|im_end|>", "<|im_end|><|im_start|>assistant\n", 1),
}


def rounds_of(name, written):
    style = STYLES[name]
    parts = written.split(style.separator)
    if name != "chatml":
        return parts
    # The system message ends like a turn, and so does the question: three parts, then two by two.
    starts = [0, *range(3, len(parts), 2)]
    ends = [*starts[1:], len(parts)]
    return [style.separator.join(parts[a:b]) for a, b in zip(starts, ends, strict=True)]


def masks(name, written, ids, count):
    """Mask everything but the answers, by counting the tokens of the parts."""
    style, labels, position = STYLES[name], list(ids), 1
    labels[0] = IGNORED
    for part in rounds_of(name, written):
        halves = part.split(style.prompt_end)
        if part == "" or len(halves) != 2:
            break
        prompt = count(halves[0] + style.prompt_end) - style.counted_beyond
        labels[position : position + prompt] = [IGNORED] * len(labels[position : position + prompt])
        position += count(part)
    labels[position:] = [IGNORED] * len(labels[position:])
    # Truncation is left out: these conversations are shorter than the model's greatest length.
    return labels if position == len(ids) else None


def train(name, texts, has_image, tokenizer):
    """Return LLaVA's ids and labels of the messages, of the user and the assistant in turn."""
    if has_image:
        texts = pictures_first(texts)
    if name == "plain":
        assert len(texts) == 2
        assert IMAGE in texts[0]
        ids = image_ids(IMAGE + texts[1] + "\n", tokenizer)
        return ids, [IGNORED, IGNORED, *ids[2:]]
    written = STYLES[name].write(texts)
    tokenise = (lambda text: image_ids(text, tokenizer)) if has_image else tokenizer
    ids = tokenise(written)
    return ids, masks(name, written, ids, lambda text: len(tokenise(text)))


SAIGA_SYSTEM = (
    "Ты — Сайга, русскоязычный автоматический ассистент. Ты разговариваешь с людьми и помогаешь им."
)


def train_saiga(texts, has_image, tokenizer, system=SAIGA_SYSTEM):
    """Encode Saiga's messages one by one, and learn the bot's contents with their `</s>`."""
    texts = pictures_first(texts) if has_image else texts
    ids, labels = [], []
    messages = [("system", system)] if system else []
    messages += [("bot" if i % 2 else "user", text) for i, text in enumerate(texts)]
    for role, content in messages:
        prompt = image_ids(f"{role}\n", tokenizer)
        message = image_ids(f"{role}\n{content.strip()}{EOS}", tokenizer)
        assert message[: len(prompt)] == prompt
        ids += message
        unlearnt = len(prompt) if role == "bot" else len(message)
        labels += [IGNORED] * unlearnt + message[unlearnt:]
    return ids, labels
