"""Checkpoints of a few steps on a few handmade samples, and what they answer."""

import io
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.collate import Row, collate_padded
from lightning_llava.data.images import ImageTransform
from lightning_llava.data.schema import Sample
from lightning_llava.data.shards import write_shards
from lightning_llava.datamodule import ShardDataModule
from lightning_llava.export.command import run
from lightning_llava.geometry import load_geometry
from lightning_llava.models.trained import build_trained, read_trained
from lightning_llava.module import LlavaModule
from lightning_llava.specs import (
    GenerationSpec,
    LanguageSpec,
    LearningRates,
    LoraSpec,
    OptimizerSpec,
    ProjectorSpec,
    SourceSpec,
    VisionSpec,
)
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn
from runs import make_trainer

SIZES = {"square": (40, 40), "wide": (90, 31), "tall": (33, 80), "tiny": (5, 9), "small": (20, 20)}
SHAPES = ("square", "wide", "tall")
QUESTION = "What is in picture 3?"


def write_samples(folder):
    samples = [
        Sample(
            id=str(number),
            turns=[
                Turn("user", f"<image>\nWhat is in picture {number}?"),
                Turn("assistant", f"a cat {number}"),
                Turn("user", "And?"),
                Turn("assistant", "a dog"),
            ],
            images=[encoded(make_picture("wide", seed=number))],
            source="cats",
        )
        for number in range(8)
    ]
    write_shards(samples, folder, "cats")


def train(root, vision, language, template, mode="pad", steps=3, **settings):
    """Train on handmade samples, and return the checkpoint."""
    root.mkdir(parents=True, exist_ok=True)
    specs = {
        "vision": vision if isinstance(vision, VisionSpec) else VisionSpec(name=str(vision)),
        "language": LanguageSpec(name=str(language), template=template, max_length=400),
    }
    defaults = {
        "projector": ProjectorSpec(),
        "learning_rate": LearningRates(projector=3e-2, lora=3e-2),
        "optimizer": OptimizerSpec(),
        "generation": GenerationSpec(max_new_tokens=4),
        "lora": LoraSpec(r=4, alpha=8, dropout=0.05),
    }
    write_samples(root)
    torch.manual_seed(0)
    module = LlavaModule(**specs, **defaults | settings)
    data = ShardDataModule(
        **specs,
        sources={"cats": SourceSpec(shards=str(root / "cats-*.tar"))},
        pack_tokens=400,
        num_workers=0,
        image_mode=mode,
    )
    trainer = make_trainer(root, steps)
    trainer.fit(module, data)
    trainer.save_checkpoint(root / "last.ckpt")
    return root / "last.ckpt"


def make_picture(shape, seed=7):
    width, height = SIZES[shape]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def encoded(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def export(checkpoint, folder, *options):
    arguments = ["--checkpoint", checkpoint, "--output", folder, "--dtype", "float32", *options]
    assert run([str(argument) for argument in arguments]) == 0
    return folder


class Ours:
    """A checkpoint, adapters not merged."""

    def __init__(self, checkpoint: Path) -> None:
        trained = read_trained(checkpoint, "--checkpoint")
        geometry = load_geometry(trained.vision)
        self.encoder = ConversationEncoder(
            trained.language, geometry.image_tokens, tiling=geometry.tiling
        )
        self.transform = ImageTransform(trained.vision, trained.data["data.image_mode"])
        self.model = build_trained(trained, self.encoder).eval()

    def prompt(self, *texts, images=1):
        """Ids, a picture as one placeholder."""
        turns = [Turn("assistant" if n % 2 else "user", text) for n, text in enumerate(texts)]
        return self.encoder.prompt(turns, images)[0]

    def batch(self, image, ids):
        shown = self.transform.prepare([encoded(image)])
        counts = self.encoder.count_features(shown.sizes)
        row = Row("probe", ids, ids, shown.pixels, shown.sizes, counts)
        geometry = self.model.vision_tower.geometry
        return collate_padded([row], geometry.image_tokens, geometry.image_size, left=True)

    @torch.no_grad()
    def logits(self, image, ids):
        return self.model.logits(self.batch(image, ids))

    def answer(self, image, ids, tokens=12):
        stop = self.encoder.stop_ids
        made = self.model.generate(self.batch(image, ids), tokens, stop, pad_id=0)
        return self.encoder.decode(made[0])


def ask(processor, image):
    content = [{"type": "image", "image": image}, {"type": "text", "text": QUESTION}]
    return processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )


def assert_same(checkpoint, folder, kind=LlavaForConditionalGeneration, shapes=SHAPES):
    """Compare logits and greedy answers about pictures of several shapes."""
    ours = Ours(checkpoint)
    processor = AutoProcessor.from_pretrained(folder, backend="pil")
    model = kind.from_pretrained(folder).eval()
    answers = set()
    for shape in shapes:
        image = make_picture(shape)
        inputs, ids = ask(processor, image), ours.prompt(f"<image>\n{QUESTION}")
        expected = ours.batch(image, ids).input_ids[0]
        expected[expected == IMAGE_TOKEN_INDEX] = processor.image_token_id
        assert inputs["input_ids"][0].tolist() == expected.tolist()
        with torch.no_grad():
            logits = model(**inputs).logits
        theirs = logits[..., : ours.logits(image, ids).shape[-1]]
        assert (theirs - ours.logits(image, ids)).abs().max() <= 1e-5
        made = model.generate(**inputs, max_new_tokens=12)[0, inputs["input_ids"].shape[1] :]
        answer = processor.decode(made, skip_special_tokens=True).strip()
        assert answer == ours.answer(image, ids)
        answers.add(tuple(made.tolist()))
    assert any(answers)
    return model, processor
