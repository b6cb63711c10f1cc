"""What will be supervised, decoded and compared on real samples before the first step.

`ConversationEncoder` knows by construction what it supervises. This looks at the result from the
other side, through the tokenizer's own `decode`, so that a template, a tokenizer or a data set that
does not fit is found before a week of training is spent on it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from rich import box
from rich.table import Table
from rich.text import Text

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX
from lightning_llava.errors import SettingError
from lightning_llava.text.conversation import ConversationEncoder, Encoded
from lightning_llava.text.tokenizer import adds_bos, tokenizer_family
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn
from lightning_llava.tiling import Size

PROBE = (Turn("user", f"{IMAGE_PLACEHOLDER}\nHi"), Turn("assistant", "Black"))
"""The conversation whose ids the templates' `golden` runs belong to."""
SHORT = 20
"""Characters of what is learnt that the table shows."""
SHOWN = 200
"""Characters of a bad sample that its error shows."""


@dataclass(frozen=True)
class Example:
    """A conversation to be checked."""

    name: str
    """Where it comes from, for the error."""
    source: str
    language: str
    turns: Sequence[Turn]
    images: int | Sequence[Size]
    """How many, or the size of each, as `ConversationEncoder.encode` takes them."""


@dataclass
class Summary:
    """What the checked samples of one source and language are like."""

    samples: int = 0
    truncated: int = 0
    """Samples that lose turns because they are too long."""
    words: int = 0
    """Of all turns, by white space."""
    tokens: int = 0
    """Of the same text."""
    supervised: int = 0
    length: int = 0
    """Tokens of whole conversations, images expanded."""
    learnt: str = ""
    """What the first sample's first answer teaches, decoded."""

    def add(self, encoder: ConversationEncoder, turns: Sequence[Turn], encoded: Encoded) -> None:
        """Count a checked sample."""
        texts = [turn.text.replace(IMAGE_PLACEHOLDER, "") for turn in turns]
        self.samples += 1
        self.truncated += encoded.dropped_turns > 0
        self.words += sum(len(text.split()) for text in texts)
        self.tokens += sum(len(encoder.tokenizer.tokenize(text)) for text in texts)
        self.supervised += int((encoded.labels != IGNORE_INDEX).sum())
        self.length += encoded.length
        self.learnt = self.learnt or decode_spans(encoder, encoded)[0]


def preflight(
    encoder: ConversationEncoder, examples: Iterable[Example]
) -> dict[tuple[str, str], Summary]:
    """Check the encoder and then every example.

    Returns:
        A summary per source and language.

    Raises:
        SettingError: with the first bad sample and what is wrong with it.
    """
    check_encoder(encoder)
    summaries: dict[tuple[str, str], Summary] = {}
    for example in examples:
        try:
            encoded = check_conversation(encoder, example.turns, example.images)
        except SettingError as error:
            shown = " / ".join(f"{turn.role}: {turn.text}" for turn in example.turns)[:SHOWN]
            raise SettingError(f"preflight, {example.name}: {error}; it says {shown!r}") from error
        summary = summaries.setdefault((example.source, example.language), Summary())
        summary.add(encoder, example.turns, encoded)
    return summaries


def check_encoder(encoder: ConversationEncoder) -> None:
    """Check what is the same in every conversation: BOS, terminator, golden ids.

    Raises:
        SettingError: the template does not fit the tokenizer.
    """
    encoded = encoder.encode(PROBE, [(1, 1)])
    ids, template = encoded.input_ids.tolist(), encoder.template
    setting = f"model.language.template: {template.name!r}"
    bos = encoder.tokenizer.bos_token_id
    # A template with a token of its own at the front is taken at its word.
    missing = adds_bos(encoder.tokenizer) and ids[0] != bos and not template.begin
    if missing or ids[:2] == [bos, bos]:
        raise SettingError(
            f"{setting} begins with the ids {ids[:2]}, but this tokenizer begins texts with one "
            f"BOS ({bos}); write {{bos}} or {{default_bos}} in its `begin`"
        )
    last = int(encoded.labels[encoded.labels != IGNORE_INDEX][-1])
    if last not in encoder.stop_ids:
        raise SettingError(
            f"{setting} ends answers with the id {last}, but generation stops at "
            f"{encoder.stop_ids}; name in `stop` what `answer` ends with"
        )
    family = tokenizer_family(encoder.tokenizer) or ""
    for run in template.golden.get(family, []):
        if not any(ids[i : i + len(run)] == run for i in range(len(ids))):
            raise SettingError(
                f"{setting} gives the ids {ids} for {PROBE[0].text!r}, {PROBE[1].text!r}; expected "
                f"{run} among them, as in every {family} tokenizer: the tokenizer was loaded or "
                "converted in another way than the LLM was trained with"
            )

    if template.name == "auto":
        _check_chat_template(encoder)


def _check_chat_template(encoder: ConversationEncoder) -> None:
    """Compare ids with the tokenizer's own, which may write no "▁" behind a special token."""
    turns = [Turn("user", "Hi, is it 5 o'clock?"), Turn("assistant", "Да, 5.")] * 2
    messages = [{"role": turn.role, "content": turn.text} for turn in turns]
    if encoder.system:
        messages.insert(0, {"role": "system", "content": encoder.system})
    written = encoder.tokenizer.apply_chat_template(messages, tokenize=False)
    theirs = list(encoder.tokenizer(str(written), add_special_tokens=False)["input_ids"])  # pyright: ignore[reportArgumentType]
    ours = encoder.encode(turns, []).input_ids.tolist()
    if theirs[: len(ours)] != ours:
        raise SettingError(
            f"model.language.template: auto gives the ids {ours}, but this tokenizer encodes its "
            f"own chat template as {theirs}; set model.language.template to a YAML file of your "
            "own, and see with tools/preflight.py what it teaches"
        )


def check_conversation(
    encoder: ConversationEncoder, turns: Sequence[Turn], images: int | Sequence[Size]
) -> Encoded:
    """Encode a conversation, and compare what is supervised with its answers.

    Raises:
        SettingError: it cannot be encoded, or the labels do not say what the answers say.
    """
    encoded = encoder.encode(turns, images)
    expected_images = images if isinstance(images, int) else len(images)
    placed = int((encoded.input_ids == IMAGE_TOKEN_INDEX).sum())
    if placed != expected_images:
        raise SettingError(f"{placed} image placeholders in the ids, expected {expected_images}")
    supervised = encoded.labels != IGNORE_INDEX
    if not np.array_equal(encoded.labels[supervised], encoded.input_ids[supervised]):
        raise SettingError("labels differ from the ids where they are supervised")
    unknown = encoder.tokenizer.unk_token_id
    if unknown is not None and unknown in encoded.labels:
        raise SettingError(
            "the tokenizer has no tokens for an answer and writes "
            f"{encoder.tokenizer.unk_token!r}; choose an LLM whose tokenizer knows this script"
        )
    kept = len(turns) - encoded.dropped_turns
    expected = [_learnt(encoder, turn.text) for turn in turns[1:kept:2]]
    found = decode_spans(encoder, encoded)
    if len(found) != len(expected):
        raise SettingError(f"{len(found)} supervised spans for {len(expected)} answers")
    for text, answer in zip(found, expected, strict=True):
        if _comparable(text) != _comparable(answer):
            raise SettingError(f"supervised is {text!r}, expected {answer!r}")
    return encoded


def decode_spans(encoder: ConversationEncoder, encoded: Encoded) -> list[str]:
    """Decode every run of supervised tokens, terminators included."""
    positions = np.flatnonzero(encoded.labels != IGNORE_INDEX)
    runs = np.split(positions, np.flatnonzero(np.diff(positions) != 1) + 1)
    return [
        str(encoder.tokenizer.decode(encoded.labels[run].tolist(), skip_special_tokens=False))
        for run in runs
        if run.size
    ]


def coloured(encoder: ConversationEncoder, encoded: Encoded, brackets: bool = False) -> Text:
    """Write a conversation with what is supervised in green (or ⟦⟧) and the pictures in yellow."""
    text = Text()
    kinds = np.where(encoded.input_ids == IMAGE_TOKEN_INDEX, 2, encoded.labels != IGNORE_INDEX)
    borders = [0, *(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    for start, end in pairwise(borders):
        if kinds[start] == 2:
            text.append("[image]" * (end - start), style="yellow")
        else:
            ids = encoded.input_ids[start:end].tolist()
            piece = str(encoder.tokenizer.decode(ids, skip_special_tokens=False))
            piece = f"⟦{piece}⟧" if brackets and kinds[start] else piece
            text.append(piece, style="bold green" if kinds[start] else "dim")
    return text


def summary_table(summaries: dict[tuple[str, str], Summary]) -> Table:
    """Show the summaries, a line per source and language."""
    # No frame: this must fit into 80 columns.
    table = Table(title="Preflight", title_justify="left", box=box.SIMPLE_HEAD, padding=0)
    for name in ("source", "language", "checked", "tokens/word", "supervised", "cut", "learnt"):
        table.add_column(name, justify="left" if name in ("source", "learnt") else "right")
    for (source, language), summary in summaries.items():
        table.add_row(
            source,
            language,
            str(summary.samples),
            f"{summary.tokens / max(1, summary.words):.2f}",
            f"{summary.supervised / max(1, summary.length):.1%}",
            f"{summary.truncated / summary.samples:.1%}",
            Text(_shortened(summary.learnt)),
        )
    return table


def _shortened(learnt: str) -> str:
    """Leave the middle out: the end shows the terminator."""
    return repr(learnt if len(learnt) <= SHORT else f"{learnt[:6]} … {learnt[-11:]}")


def _learnt(encoder: ConversationEncoder, answer: str) -> str:
    template = encoder.template
    content = answer.strip() if "assistant" in template.strip else answer
    eos = str(encoder.tokenizer.eos_token)
    return template.answer.replace("{eos}", eos).replace("{content}", content)


def _comparable(text: str) -> str:
    """Level what SentencePiece cannot tell apart: its "▁", and a space at the front."""
    return text.replace("▁", " ").strip()


def check_vocabulary(encoder: ConversationEncoder, embeddings: int, language: str) -> None:
    """Refuse a template whose special tokens the LLM has no embeddings for.

    Args:
        encoder: with the template.
        embeddings: how many the LLM has.
        language: `model.language.name`, for the message.

    Raises:
        SettingError: naming the token.
    """
    for token, index in encoder.special_ids.items():
        if index is not None and index >= embeddings:
            raise SettingError(
                f"model.language.template: {encoder.template.name!r} writes {token!r}, for which "
                f"{language!r} has no embedding (it has {embeddings}); choose the template that "
                "the LLM was trained with"
            )
