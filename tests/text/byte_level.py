"""A byte-level BPE tokenizer, for the LLMs whose own cannot be had offline.

Its ids are its own. What is shown with it is the text that is written, which special tokens are
single ids, and where the supervised spans lie.
"""

from official import IGNORED, IMAGE, IMAGE_ID
from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from small_tokenizers import BYTE_LEVEL_PATTERN

SPECIAL = [
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|im_start|>",
    "<|im_end|>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<s>",
    "</s>",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|end|>",
    "<think>",
    "</think>",
]
CORPUS = [
    "system\nYou are a helpful assistant.",
    "user\nWhat color is the bus? Answer the question using a single word or phrase.",
    "assistant\nRed Black Yes No",
    "model\nЭто чёрный кот, а это красный автобус. Да, нет.\n\nОтветь одним словом.",
    "Сколько кошек? Две кошки. 1, 2, 3\n\n\tindented  twice",
]


def make_tokenizer(special=SPECIAL, **settings):
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(BYTE_LEVEL_PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=706,
        special_tokens=list(special),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 4, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        additional_special_tokens=list(special),
        clean_up_tokenization_spaces=False,
        **settings,
    )


def save_byte_level(folder, **settings):
    settings.setdefault("eos_token", "<|end_of_text|>")
    make_tokenizer(**settings).save_pretrained(folder)
    return folder


def written(encoder, ids):
    """Decode ids, each picture as its placeholder."""
    runs = " ".join(map(str, ids)).split(str(IMAGE_ID))
    decode = encoder.tokenizer.decode
    return IMAGE.join(
        decode(list(map(int, run.split())), skip_special_tokens=False) for run in runs
    )


def spans(encoder, encoded):
    """Decode every run of supervised ids."""
    texts, run = [], []
    for index, label in zip([*encoded.input_ids, 0], [*encoded.labels, IGNORED], strict=True):
        assert label in (index, IGNORED)
        if label != IGNORED:
            run.append(int(label))
        elif run:
            texts.append(encoder.tokenizer.decode(run, skip_special_tokens=False))
            run = []
    return texts
