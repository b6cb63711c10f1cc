"""Phrase to box: RefCOCO, RefCOCO+ and RefCOCOg, asked in the words that training has."""

from collections.abc import Iterator

from lightning_llava.data.converters.draft import LeftOut
from lightning_llava.data.converters.reading import identifier, text
from lightning_llava.data.converters.refcoco import Reference, read_references
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.converters.regions import PROMPTS, place_region, sentence
from lightning_llava.data.converters.vqa import coco_name
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.benchmarks.question import Question
from lightning_llava.evaluation.benchmarks.source import Source
from lightning_llava.evaluation.benchmarks.truth import Truth
from lightning_llava.evaluation.scorers.regions import pad


def read_regions(source: Source) -> Iterator[Question]:
    """Ask for the box of every phrase; the label is the right one, with four decimals.

    Raises:
        SettingError: the file is another, or a row cannot be used.
    """
    for reference in read_references(source.file):
        if isinstance(reference, LeftOut):
            raise SettingError(
                f"{source.setting}: {reference.id}: {reference.detail}; every phrase counts, mend "
                f"{source.file}"
            )
        try:
            yield from _questions(source, reference)
        except Unusable as error:
            raise SettingError(
                f"{source.setting}: image {reference.picture.id}: {error}; every phrase counts, "
                f"mend {source.file}"
            ) from error


def _questions(source: Source, reference: Reference) -> Iterator[Question]:
    picture, spec = reference.picture, source.spec
    ask = PROMPTS[spec.language][1]
    for said in reference.phrases:
        name, phrase = identifier(said, "id"), text(said, "phrase")
        region = place_region(name, reference.corners, phrase, picture, spec.coordinates)
        box = region.box.xyxy
        if spec.coordinates == "padded":
            box = pad(box, (picture.width, picture.height))
        written = f"[{', '.join(f'{edge:.4f}' for edge in box)}]"
        # RefCOCO is made of COCO's training images of 2014, its val and test splits too.
        image = coco_name(int(picture.id), "train2014")
        truth = Truth(name, (written,))
        yield source.question(truth, ask.format(phrase=sentence(phrase)), image)
