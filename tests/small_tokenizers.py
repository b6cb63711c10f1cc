"""Tokenizers of a few hundred pieces, of the kinds that LLMs are published with.

Each says that it belongs to any family: its ids are its own, and golden ids of the real ones do not
hold for it.
"""

import json
from pathlib import Path

import sentencepiece
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    normalizers,
    pre_tokenizers,
    processors,
)
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GemmaTokenizer, PreTrainedTokenizerFast

from lightning_llava.text.template import ANY_FAMILY

CORPUS = [
    "A chat between a curious user and an artificial intelligence assistant. USER: ASSISTANT:",
    "system\nYou are a helpful assistant. [INST] [/INST] bot\n",
    "user\nWhat color is the bus? Answer the question using a single word or phrase.",
    "assistant\nRed Black Yes No. Is there a dog in the image? a cat on the left?",
    "model\nЭто чёрный кот, а это красный автобус. Да, нет.\n\nОтветь одним словом.",
    "Сколько кошек? Две кошки. 1, 2, 3\n\n\tindented  twice",
    "Ты — Сайга, русскоязычный автоматический ассистент. Ты разговариваешь с людьми.",
]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
BYTE_LEVEL_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Of Llama 3; those of Qwen and Phi-4 differ in how many digits go together."""


def save_sentencepiece(folder: Path, added: dict[str, int] | None = None, **settings) -> int:
    """A bare `tokenizer.model`, as the repositories of Vicuna and Saiga/Mistral hold it.

    Args:
        folder: where to.
        added: tokens beyond the model, and how far beyond its end.
        settings: of `tokenizer_config.json`.

    Returns:
        The number of tokens.
    """
    model = _train_sentencepiece(folder)
    size = model.get_piece_size()
    tokens = {str(size + i): _added(token) for token, i in (added or {}).items()}
    written = {
        "tokenizer_class": "LlamaTokenizer",
        "tokenizer_family": ANY_FAMILY,
        "legacy": True,
        "add_bos_token": True,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "added_tokens_decoder": tokens,
    }
    text = json.dumps(written | settings, ensure_ascii=False)
    (folder / "tokenizer_config.json").write_text(text, encoding="utf-8")
    return size + len(tokens)


def save_metaspace(
    folder: Path, added: tuple[AddedToken, ...] = (), bos: bool = True, **settings
) -> int:
    """A `tokenizer.json` with a "▁" before every run of text: Mistral's and Phi-3's.

    Returns:
        The number of tokens.
    """
    model = _train_sentencepiece(folder)
    (folder / "tokenizer.model").unlink()
    names = list(map(model.id_to_piece, range(model.get_piece_size())))
    vocabulary = {name: i for i, name in enumerate(names)}
    tokenizer = Tokenizer(
        BPE(vocabulary, _merges(model), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            *(decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()),
            decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>", *added])
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)]
        )
    return _save(
        PreTrainedTokenizerFast(
            **{"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"} | settings,
            tokenizer_object=tokenizer,
        ),
        folder,
    )


def save_gemma(folder: Path, special: tuple[str, ...], **settings) -> int:
    """A `tokenizer.json` without a "▁" in front, loaded by Gemma's own class.

    Returns:
        The number of tokens.
    """
    front = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *special]
    tokenizer = Tokenizer(BPE(byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    # No piece of Gemma's goes on behind a line break.
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\n+|▁?[^▁\n]+|▁"), "isolated")
    trainer = BpeTrainer(
        vocab_size=480, special_tokens=[*front, "\n", "\n\n", *BYTES], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    made = GemmaTokenizer(
        vocab=learnt["vocab"],
        merges=[("\n", "\n"), *map(tuple, learnt["merges"])],
        additional_special_tokens=list(special),
        tokenizer_family=ANY_FAMILY,
        **settings,
    )
    made._tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A <bos> $B", special_tokens=[("<bos>", 2)]
    )
    return _save(made, folder)


def save_byte_level(folder: Path, special: tuple[str, ...], bos: str = "", **settings) -> int:
    """A byte-level `tokenizer.json`: Llama 3's, Qwen's, Phi-4's.

    Args:
        folder: where to.
        special: tokens that are single ids, behind the others.
        bos: what every text begins with; Qwen's have none.
        settings: of the tokenizer.

    Returns:
        The number of tokens.
    """
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BYTE_LEVEL_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=400,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    tokenizer.add_special_tokens(list(special))
    if bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
        settings["bos_token"] = bos
    return _save(PreTrainedTokenizerFast(tokenizer_object=tokenizer, **settings), folder)


def _train_sentencepiece(folder: Path) -> sentencepiece.SentencePieceProcessor:
    sentencepiece.SentencePieceTrainer.train(
        # Llama's and Mistral's line break is a byte.
        sentence_iterator=iter([line for text in CORPUS * 4 for line in text.splitlines() if line]),
        model_prefix=str(folder / "tokenizer"),
        model_type="bpe",
        vocab_size=480,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        **{"unk_id": 0, "bos_id": 1, "eos_id": 2, "pad_id": -1},
        minloglevel=2,
    )
    (folder / "tokenizer.vocab").unlink()
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def _merges(model: sentencepiece.SentencePieceProcessor) -> list[tuple[str, str]]:
    """All ways to put a piece together of two, in the order of the pieces' scores."""
    scores = {model.id_to_piece(i): model.get_score(i) for i in range(model.get_piece_size())}
    pairs = [
        (piece[:cut], piece[cut:])
        for piece in sorted(scores, key=scores.__getitem__, reverse=True)
        for cut in range(1, len(piece))
    ]
    return [pair for pair in pairs if pair[0] in scores and pair[1] in scores]


def _added(token: str) -> dict[str, object]:
    flags = dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)
    return {"content": token, "special": True, **flags}


def _save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> int:
    tokenizer.init_kwargs["tokenizer_family"] = ANY_FAMILY
    tokenizer.save_pretrained(folder)
    return len(tokenizer)
