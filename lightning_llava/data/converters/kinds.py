"""What can be converted: every published format by its name."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lightning_llava.data.converters.chat import read_llava_instruct_ru, read_sharegpt
from lightning_llava.data.converters.draft import Draft, LeftOut
from lightning_llava.data.converters.llava import read_llava
from lightning_llava.data.converters.ocr import (
    read_handwriting,
    read_ocrvqa,
    read_textcaps,
    read_textvqa,
)
from lightning_llava.data.converters.refcoco import read_refcoco
from lightning_llava.data.converters.regions import PROMPTS
from lightning_llava.data.converters.visual_genome import read_vg
from lightning_llava.data.converters.vqa import (
    read_aokvqa,
    read_gqa,
    read_gqa_ru,
    read_okvqa,
    read_vqav2,
)
from lightning_llava.text.template import SHORT_ANSWER


@dataclass(frozen=True)
class Choice:
    """An option with a few values."""

    help: str
    values: dict[str, str]
    """Each with what it does; the first is the default."""

    @property
    def default(self) -> str:
        """What holds when the option is not given."""
        return next(iter(self.values))


@dataclass(frozen=True)
class Kind:
    """A published format, and how it is asked for."""

    help: str
    read: Callable[..., Iterator[Draft | LeftOut]]
    """Takes the files, the optional ones and the choices as keyword arguments."""
    files: dict[str, str]
    """Required paths, with what each is."""
    example: dict[str, str]
    """Paths of an example."""
    images: str = ""
    """What the folder of images holds; none where there are no images, or the file has them."""
    optional: dict[str, str] = field(default_factory=dict)
    """Paths that may be None, with what each is."""
    choices: dict[str, Choice] = field(default_factory=dict)
    text_only: bool = False


_PROMPT = {
    "prompt": Choice(
        "language of the prompt for short answers, after the first question of a conversation",
        {language: f"`{words.strip()}`" for language, words in SHORT_ANSWER.items()},
    )
}
_NAMES = {
    "names": Choice(
        "how the files of COCO's images are called",
        {
            "train2014": "COCO_train2014_000000000009.jpg",
            "val2014": "COCO_val2014_000000000009.jpg",
            "bare": "000000000009.jpg, as since 2017",
        },
    )
}
_REGIONS = {
    "prompt": Choice(
        "language of the questions; phrases stay as they are",
        {language: f"`{words[0]}`" for language, words in PROMPTS.items()},
    ),
    "coordinates": Choice(
        "what boxes are fractions of",
        {
            "padded": "the image padded to a square, as LLaVA has it and a tower in mode pad sees"
            " it",
            "image": "the image itself, for a tower whose processor stretches it to a square",
        },
    ),
}
_ROSETTA = {
    "ocr": "TextVQA_Rosetta_OCR_v0.2_*.json: adds the words that an OCR program found to the first"
    " question"
}
_COCO = "COCO's images"
_TEXTVQA = "TextVQA's images, {image_id}.jpg"
_TEXTVQA_EXAMPLE = {
    "ocr": "TextVQA_Rosetta_OCR_v0.2_train.json",
    "images": "textvqa/train_images",
}

KINDS: dict[str, Kind] = {
    "llava": Kind(
        "LLaVA's JSON: LCS-558K, mix665k, and everything of that form",
        read_llava,
        {"json": "the records: an array, or one a line"},
        {"json": "llava_v1_5_mix665k.json", "images": "images"},
        "the folder that the records' `image` starts from",
    ),
    "vqav2": Kind(
        "VQAv2, all questions about an image in one conversation",
        read_vqav2,
        {
            "questions": "v2_OpenEnded_mscoco_*_questions.json",
            "annotations": "v2_mscoco_*_annotations.json",
        },
        {
            "questions": "v2_OpenEnded_mscoco_train2014_questions.json",
            "annotations": "v2_mscoco_train2014_annotations.json",
            "images": "coco/train2014",
        },
        _COCO,
        choices=_PROMPT | _NAMES,
    ),
    "okvqa": Kind(
        "OK-VQA, the most common of ten answers",
        read_okvqa,
        {
            "questions": "OpenEnded_mscoco_*_questions.json",
            "annotations": "mscoco_*_annotations.json",
        },
        {
            "questions": "OpenEnded_mscoco_train2014_questions.json",
            "annotations": "mscoco_train2014_annotations.json",
            "images": "coco/train2014",
        },
        _COCO,
        choices=_PROMPT
        | _NAMES
        | {
            "answers": Choice(
                "which form of the ten answers is counted and written",
                {
                    "answer": "stemmed (`race`), as the benchmark scores",
                    "raw_answer": "as it was given (`racing`)",
                },
            )
        },
    ),
    "aokvqa": Kind(
        "A-OKVQA as multiple choice, answered by a letter",
        read_aokvqa,
        {"questions": "aokvqa_v1p0_*.json"},
        {"questions": "aokvqa_v1p0_train.json", "images": "coco/train2017"},
        "COCO's images of 2017, 000000000009.jpg",
        choices={
            "rotations": Choice(
                "in how many orders the choices are shown",
                {
                    "all": "a conversation for each choice, turned by one place each time, as"
                    " LLaVA-1.5 has it",
                    "one": "as published",
                },
            )
        },
    ),
    "gqa": Kind(
        "GQA and xGQA, all questions about an image in one conversation",
        read_gqa,
        {"questions": "{train,val,testdev}_balanced_questions.json"},
        {"questions": "train_balanced_questions.json", "images": "gqa/images"},
        "GQA's images, {imageId}.jpg",
        choices=_PROMPT,
    ),
    "gqa_ru": Kind(
        "deepvk/GQA-ru (parquet), which holds its images",
        read_gqa_ru,
        {
            "instructions": "folder or file of *_balanced_instructions",
            "pictures": "folder or file of *_balanced_images",
        },
        {
            "instructions": "GQA-ru/train_balanced_instructions",
            "pictures": "GQA-ru/train_balanced_images",
        },
    ),
    "ocrvqa": Kind(
        "OCR-VQA, a conversation a book cover",
        read_ocrvqa,
        {"dataset": "dataset.json"},
        {"dataset": "dataset.json", "images": "ocr_vqa/images"},
        "the covers, {key}.jpg, or with the ending of their address",
        choices={
            "split": Choice(
                "which books are read",
                {
                    "train": "those for training",
                    "val": "those for validation",
                    "test": "those for the test",
                    "all": "every one",
                },
            ),
            **_PROMPT,
        },
    ),
    "textvqa": Kind(
        "TextVQA, the most common of ten answers",
        read_textvqa,
        {"questions": "TextVQA_0.5.1_*.json"},
        {"questions": "TextVQA_0.5.1_train.json", **_TEXTVQA_EXAMPLE},
        _TEXTVQA,
        _ROSETTA,
        _PROMPT,
    ),
    "textcaps": Kind(
        "TextCaps, one caption (or all) of each image",
        read_textcaps,
        {"captions": "TextCaps_0.1_*.json"},
        {"captions": "TextCaps_0.1_train.json", **_TEXTVQA_EXAMPLE},
        _TEXTVQA,
        _ROSETTA,
        {
            "per_image": Choice(
                "captions of an image",
                {
                    "one": "the first that can be used, as LLaVA-1.5 has it",
                    "all": "each of the five, a conversation each",
                },
            )
        },
    ),
    "vg": Kind(
        "Visual Genome's regions: box to phrase, phrase to box",
        read_vg,
        {"regions": "region_descriptions.json", "image_data": "image_data.json"},
        {
            "regions": "region_descriptions.json",
            "image_data": "image_data.json",
            "images": "vg",
        },
        "the folder that holds VG_100K and VG_100K_2",
        choices={
            **_REGIONS,
            "per_image": Choice(
                "regions of an image",
                {
                    "ten": "at most ten, chosen by their ids, as LLaVA-1.5 has so many",
                    "all": "each, cut into conversations of ten",
                },
            ),
        },
    ),
    "refcoco": Kind(
        "RefCOCO, RefCOCO+, RefCOCOg: box to phrase, phrase to box",
        read_refcoco,
        {"refs": "MDETR's finetune_refcoco*_*.json, or the parquet of jxu124/refcoco*"},
        {"refs": "finetune_refcoco_train.json", "images": "coco/train2014"},
        _COCO,
        choices=_REGIONS | _NAMES,
    ),
    "sharegpt": Kind(
        "ShareGPT's conversations, text only",
        read_sharegpt,
        {"conversations": "ShareGPT_V3_unfiltered_cleaned_split.json"},
        {"conversations": "ShareGPT_V3_unfiltered_cleaned_split.json"},
        text_only=True,
    ),
    "llava_instruct_ru": Kind(
        "deepvk/LLaVA-Instruct-ru (parquet or JSON)",
        read_llava_instruct_ru,
        {"conversations": "llava_instruct_ru_*.json, or parquet: a file, or a folder of one split"},
        {"conversations": "llava_instruct_ru_train.json", "images": "coco"},
        "the folder that the records' `image` starts from",
    ),
    "handwriting": Kind(
        "Cyrillic handwriting, with a question that asks what is written",
        read_handwriting,
        {"labels": "*.tsv, one `path<TAB>text` a line"},
        {"labels": "train.tsv", "images": "train"},
        "the folder that the lines' paths start from",
    ),
}
