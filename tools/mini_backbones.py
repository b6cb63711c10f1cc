"""Train the mini backbones that ship with the embedded miniature, from scratch.

    python tools/mini_backbones.py clip          a CLIP of 2.9 M weights
    python tools/mini_backbones.py vicuna        an English Llama
    python tools/mini_backbones.py saiga         a Russian and English Mistral

Each takes half an hour to three quarters on one core, leaves a checkpoint every 100 steps, and goes
on from there. The results lie in `lightning_llava/demo/pretrained`, in Hugging Face format, with a
card.
"""

import argparse
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mini_cards import Card, write_card
from mini_clip import build_tower, ends_texts, image_processor, rescale_features
from mini_decoder import BILINGUAL, ENGLISH, TextLearner
from mini_start import build_decoder
from mini_tower import TowerLearner
from mini_training import Rates, train
from transformers import PreTrainedTokenizerFast

from lightning_llava.demo.backbones import PRETRAINED
from lightning_llava.demo.records import BUILDERS, samples
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.tokens import train_tokenizer
from lightning_llava.demo.world import LANGUAGES
from lightning_llava.errors import explains_wrong_input

TOKENIZER_SCENES = 2000
MEASURED_ON = 64
"""Scenes on which the size of the tower's features is measured."""
STEPS = {"clip": 2600, "vicuna": 2000, "saiga": 2400}
DECODERS = {
    "vicuna": ("llama", 135, "vicuna_v1", ENGLISH),
    "saiga": ("mistral", 160, "saiga_mistral", BILINGUAL),
}


@explains_wrong_input
def main() -> int:
    """Run the command line; return 0, or 2 on a wrong input."""
    args = _parser().parse_args()
    torch.manual_seed(args.seed)
    output = Path(args.output)
    steps = STEPS[args.what] if args.steps is None else args.steps
    checkpoint = Path(args.checkpoints) / f"{args.what}.ckpt"
    learner = _learner(args)
    learner.module.to(args.device)
    rates = Rates(args.matrix_rate, args.other_rate)
    scores = train(learner, steps, rates, checkpoint, args.check_every)
    command = shlex.join(["python", "tools/mini_backbones.py", *sys.argv[1:]])
    _save(learner, output / f"mini_{args.what}", Card(args.what, command, args.seed, steps, scores))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=tuple(STEPS))
    steps = ", ".join(f"{name} {number}" for name, number in STEPS.items())
    parser.add_argument("--steps", type=int, help=f"default: {steps}")
    for flag, default, about in (
        ("--seed", 1, "of weights and data"),
        ("--matrix-rate", Rates.matrices, "Muon's peak learning rate"),
        ("--other-rate", Rates.others, "AdamW's"),
        ("--check-every", 200, "steps from one check to the next"),
        ("--device", "cpu", "where to train"),
        ("--checkpoints", "runs/mini_backbones", "where the state is kept, and taken up again"),
        ("--output", str(PRETRAINED), "where the results go, in the place of what is there"),
    ):
        shown = f"{about}; default: %(default)s"
        parser.add_argument(flag, type=type(default), default=default, help=shown)
    return parser


def _learner(args: argparse.Namespace) -> TextLearner | TowerLearner:
    folder = Path(args.checkpoints) / "tokenizer"
    tokenizer = _tokenizer(args.seed)
    if args.what == "clip":
        end = ends_texts(tokenizer)
        return TowerLearner(build_tower(len(tokenizer), end), tokenizer, args.seed)
    tokenizer.save_pretrained(folder)
    family, width, template, languages = DECODERS[args.what]
    model = build_decoder(family, width, len(tokenizer))
    return TextLearner(model, str(folder), template, languages, args.seed)


def _tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """Train the tokenizer that all three share, on every text of the training split."""
    scenes = [generate(seed, index, "train") for index in range(TOKENIZER_SCENES)]
    pictures = [b""] * len(scenes)
    texts = {
        turn.text: None
        for kind in BUILDERS
        for wording in LANGUAGES
        for sample in samples(kind, wording, scenes, pictures, seed)
        for turn in sample.turns
    }
    return train_tokenizer(texts)


def _save(learner: TextLearner | TowerLearner, folder: Path, card: Card) -> None:
    """Write the folder as a whole, so that an interruption leaves none by half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        if isinstance(learner, TowerLearner):
            clip = learner.clip.cpu()
            scenes = [generate(learner.seed, index, "train") for index in range(MEASURED_ON)]
            rescale_features(clip, learner.pixels(scenes))
            clip.save_pretrained(built)
            image_processor().save_pretrained(built)
            learner.tokenizer.save_pretrained(built)
        else:
            learner.model.cpu().save_pretrained(built)
            learner.encoders[0].tokenizer.save_pretrained(built)
        write_card(built / "README.md", card)
        if folder.exists():
            folder.rename(Path(scratch) / "old")
        built.rename(folder)


if __name__ == "__main__":
    sys.exit(main())
