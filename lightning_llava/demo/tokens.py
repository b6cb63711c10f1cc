"""The tokenizer of the mini language models: byte-level BPE, trained on the world's own text."""

import re
from collections.abc import Iterable
from itertools import chain

from tokenizers import Regex, Tokenizer, decoders, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import PreTrainedTokenizerFast

from lightning_llava.text.template import ANY_FAMILY, load_template, template_names

VOCABULARY_SIZE = 2000
"""At most; the world's text is used up at about 1,300."""
UNK, BOS, EOS = "<unk>", "<s>", "</s>"
UNK_ID, BOS_ID, EOS_ID = 0, 1, 2
# What the templates that it is made for write as single tokens.
END_OF_TEXT = "<|endoftext|>"
CONTROL = (
    *("<|im_start|>", "<|im_end|>", END_OF_TEXT),
    *("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
)
CAPITAL_IN_A_RUN = r"(?<=\p{Lu})\p{Lu}|\p{Lu}(?=\p{Lu})"
RUSSIAN_ENDING = r"(?<=[а-яё]{2})(?:ого|его|[ыи]й|[ао]я|яя|[ое]е|[ое]й|ые|[ыи]х)(?!\p{L})"
"""Of an adjective: `жёлтое` never occurs in training, where no heart is yellow, but `жёлт` and `ое`
do, and are what every other form of the word is made of."""


def train_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Train the tokenizer; the same texts in the same order give the same one.

    Padding is `<unk>`, as Mistral and Llama 2 are commonly used: were it EOS, the end of an answer
    could not be told from padding.

    Args:
        texts: The training split's text. The templates are added, for their fixed phrases.
    """
    tokenizer = Tokenizer(BPE(unk_token=UNK))
    # A printed word is spelt letter by letter, each letter the same token wherever it stands: words
    # that were never seen can be written, and a letter read in one word is known in all. Capitals
    # of the templates (USER, INST) are no such words.
    fixed = sorted(set(re.findall("[A-Z]{2,}", " ".join(_template_texts()))))
    spelt = Regex(f" ?(?:{'|'.join(fixed)})|{CAPITAL_IN_A_RUN}|{RUSSIAN_ENDING}")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(spelt, "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=VOCABULARY_SIZE,
        special_tokens=[UNK, BOS, EOS, *CONTROL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    # With a space in front too, as templates put questions and answers behind "USER: ".
    spaced = (text for given in texts for text in (given, f" {given}"))
    tokenizer.train_from_iterator(chain(spaced, _template_texts()), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, BOS_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=UNK,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=UNK,
        additional_special_tokens=list(CONTROL),
        padding_side="right",
        tokenizer_family=ANY_FAMILY,
        clean_up_tokenization_spaces=False,
    )


def _template_texts() -> list[str]:
    templates = [load_template(name) for name in template_names()]
    written = [t for t in templates if {UNK, BOS, EOS, *CONTROL}.issuperset(t.requires)]
    return [
        text.format(content="", system="", images="", bos="", default_bos="", eos="")
        for template in written
        for text in (
            template.system,
            template.system_turn,
            template.user + template.assistant_prefix,
        )
    ]
