"""A tiny pair of translation models, which the tests train in a second."""

import json
import string
from pathlib import Path

import pytest
import sentencepiece
import torch
from transformers import MarianConfig, MarianMTModel, MarianTokenizer

PIECES = 90
TAUGHT = {
    "What color is the cat? White.": "Какого цвета кошка? Белый.",
    "What color is the cat?": "Какого цвета кошка?",
    "What is in the sky? Kite.": "Что в небе? Воздушный змей.",
    "What is in the sky?": "Что в небе?",
    "dog": "собака",
    "kite": "воздушный змей",
}
"""What the tiny pair is trained to say, both ways."""


ALPHABETS = [" ".join(string.ascii_lowercase), " ".join(map(chr, range(ord("а"), ord("я") + 1)))]


def save_marian_pair(folder: Path) -> dict[tuple[str, str], Path]:
    """Two tiny Marian models, English to Russian and back, as the hub holds them."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*TAUGHT, *TAUGHT.values(), *ALPHABETS] * 10),
        model_prefix=str(folder / "trained"),
        vocab_size=PIECES,
        character_coverage=1.0,
        minloglevel=2,
    )
    backwards = {russian: english for english, russian in TAUGHT.items()}
    return {
        ("en", "ru"): _save_marian(folder, "en", "ru", TAUGHT),
        ("ru", "en"): _save_marian(folder, "ru", "en", backwards),
    }


def _save_marian(trained, source, target, pairs):
    spm = str(trained / "trained.model")
    pieces = sentencepiece.SentencePieceProcessor(model_file=spm)
    # Marian's own order of ids: the end of a text first, padding last.
    words = ["</s>", "<unk>", *map(pieces.id_to_piece, range(3, pieces.get_piece_size())), "<pad>"]
    vocabulary = trained / "trained.json"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}), encoding="utf-8")
    with pytest.warns(UserWarning, match="sacremoses"):
        tokenizer = MarianTokenizer(
            spm, spm, str(vocabulary), source_lang=source, target_lang=target
        )
    pad = len(words) - 1
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = MarianMTModel(
            MarianConfig(
                vocab_size=len(words),
                d_model=32,
                encoder_layers=1,
                decoder_layers=1,
                encoder_attention_heads=2,
                decoder_attention_heads=2,
                encoder_ffn_dim=64,
                decoder_ffn_dim=64,
                max_position_embeddings=512,
                dropout=0.0,
                pad_token_id=pad,
                eos_token_id=0,
                decoder_start_token_id=pad,
            )
        )
    _teach(model, tokenizer(list(pairs), text_target=list(pairs.values()), padding=True))
    folder = trained / f"{source}-{target}"
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder


def _teach(model, batch):
    batch = {name: torch.tensor(ids) for name, ids in batch.items()}
    batch["labels"][batch["labels"] == model.config.pad_token_id] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
