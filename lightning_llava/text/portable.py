"""A tokenizer that finds by itself, in one text, the ids that `ConversationEncoder` builds.

Other libraries tokenise a prompt in one go: they look for special tokens in it and encode what lies
between. That gives our ids where every piece between is encoded as a text of its own would be, and
where no special token takes white space from its neighbours.
"""

import json
from typing import Any

from tokenizers import AddedToken, Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from lightning_llava.text.chat_program import chat_program
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import IMAGE_PLACEHOLDER, Turn

PAD = "<pad>"
"""Added where the tokenizer has no padding token, as in llava-hf's releases."""

State = dict[str, Any]
"""A tokenizer.json."""


def portable_tokenizer(encoder: ConversationEncoder) -> PreTrainedTokenizerBase:
    """Build the tokenizer of an exported model: `<image>` and a padding token in it, left padding.

    It is of transformers' plainest class, which takes tokenizer.json as it is; others build parts
    of it anew from the vocabulary.
    """
    own: Any = encoder.tokenizer
    state: State = json.loads(own.backend_tokenizer.to_str())
    named = {name: getattr(own, name) for name in ("bos_token", "eos_token", "unk_token")}
    pad = own.pad_token or PAD
    written = [*encoder.special_ids, *named.values(), own.pad_token]
    for token in dict.fromkeys(str(token) for token in written if token):
        _keep_whole(state, token, own.convert_tokens_to_ids(token))
    _prefix_every_piece(state)
    if not _begins_with_bos(encoder):
        state["post_processor"] = None  # or else a library would put BOS in front
    backend = Tokenizer.from_str(json.dumps(state))
    added = [token for token in (IMAGE_PLACEHOLDER, pad) if token not in own.get_vocab()]
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in added])
    family = own.init_kwargs.get("tokenizer_family")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        **{name: str(token) for name, token in named.items() if token},
        pad_token=pad,
        additional_special_tokens=[*(t for t in encoder.template.requires), IMAGE_PLACEHOLDER],
        padding_side="left",
        clean_up_tokenization_spaces=own.clean_up_tokenization_spaces,
        model_max_length=own.model_max_length,
        model_input_names=["input_ids", "attention_mask"],
        chat_template=chat_program(encoder),
        **({"tokenizer_family": family} if family else {}),
    )


def _keep_whole(state: State, token: str, index: int) -> None:
    """Let a token be found wherever it is written, and leave its neighbours their white space."""
    entry = {"id": index, "content": token, "special": True}
    entry |= dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    others = [other for other in state["added_tokens"] if other["content"] != token]
    state["added_tokens"] = sorted([*others, entry], key=lambda one: one["id"])


def _prefix_every_piece(state: State) -> None:
    """Put SentencePiece's "▁" before every piece of text, before one that begins with a space too.

    The pre-tokenizer Metaspace would put it before the first piece alone, or not before a space.
    """
    metaspaces = [
        step
        for step in _steps(state["pre_tokenizer"], "pretokenizers")
        if step["type"] == "Metaspace" and step["prepend_scheme"] != "never"
    ]
    for step in metaspaces:
        step["prepend_scheme"] = "never"
    if metaspaces:
        prefix = {"type": "Prepend", "prepend": metaspaces[0]["replacement"]}
        steps = [*_steps(state["normalizer"], "normalizers"), prefix]
        state["normalizer"] = {"type": "Sequence", "normalizers": steps}


def _steps(part: State | None, key: str) -> list[State]:
    if part is None:
        return []
    return part[key] if part["type"] == "Sequence" else [part]


def _begins_with_bos(encoder: ConversationEncoder) -> bool:
    ids = encoder.prompt([Turn("user", "x")], 0)[0]
    return len(ids) > 0 and int(ids[0]) == encoder.tokenizer.bos_token_id
