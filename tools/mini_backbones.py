"""Train the mini backbones that ship with the embedded miniature, from scratch.

    python tools/mini_backbones.py tokenizer     seconds; the others need it
    python tools/mini_backbones.py clip          a CLIP of 2.9 M weights
    python tools/mini_backbones.py vicuna        an English Llama
    python tools/mini_backbones.py saiga         a Russian and English Mistral

Each takes about half an hour on one core, leaves a checkpoint every 100 steps, and goes on from
there. The results lie in `lightning_llava/demo/pretrained`, in Hugging Face format, with a card.
"""

import argparse
import shlex
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from mini_cards import Card, write_card
from mini_decoder import BILINGUAL, ENGLISH, TextLearner, build_decoder
from mini_tower import TowerLearner, build_tower, ends_texts, image_processor
from mini_training import Rates, train
from transformers import AutoTokenizer

from lightning_llava.demo.backbones import PRETRAINED
from lightning_llava.demo.records import BUILDERS, samples
from lightning_llava.demo.scenes import generate
from lightning_llava.demo.tokens import train_tokenizer
from lightning_llava.demo.world import LANGUAGES

TOKENIZER_SCENES = 2000
STEPS = {"clip": 2400, "vicuna": 2000, "saiga": 2600}
DECODERS = {
    "vicuna": ("llama", 5, "vicuna_v1", ENGLISH),
    "saiga": ("mistral", 4, "saiga_mistral", BILINGUAL),
}


def main() -> None:
    """Run the command line."""
    args = _parser().parse_args()
    torch.manual_seed(args.seed)
    output = Path(args.output)
    if args.what == "tokenizer":
        _train_tokenizer(output / "tokenizer", args.seed)
        return
    steps = STEPS[args.what] if args.steps is None else args.steps
    checkpoint = Path(args.checkpoints) / f"{args.what}.ckpt"
    learner, folder = _learner(args, output)
    learner.module.to(args.device)
    rates = Rates(args.matrix_rate, args.other_rate)
    scores = train(learner, steps, rates, checkpoint, args.check_every)
    command = shlex.join(["python", "tools/mini_backbones.py", *sys.argv[1:]])
    _save(learner, folder, Card(args.what, command, args.seed, steps, scores))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("tokenizer", *STEPS))
    steps = ", ".join(f"{name} {number}" for name, number in STEPS.items())
    parser.add_argument("--steps", type=int, help=f"default: {steps}")
    parser.add_argument("--seed", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--matrix-rate", type=float, default=Rates.matrices, help="Muon's peak learning rate; default: %(default)s")
    parser.add_argument("--other-rate", type=float, default=Rates.others, help="AdamW's; default: %(default)s")
    parser.add_argument("--check-every", type=int, default=200, help="steps; default: %(default)s")
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parser.add_argument("--checkpoints", default="runs/mini_backbones", help="default: %(default)s")
    parser.add_argument("--output", default=str(PRETRAINED), help="default: %(default)s")
    return parser


def _train_tokenizer(folder: Path, seed: int) -> None:
    """Train the tokenizer that all three share on every text of the training split."""
    scenes = [generate(seed, index, "train") for index in range(TOKENIZER_SCENES)]
    pictures = [b""] * len(scenes)
    texts = {
        turn.text: None
        for kind in BUILDERS
        for wording in LANGUAGES
        for sample in samples(kind, wording, scenes, pictures, seed)
        for turn in sample.turns
    }
    train_tokenizer(texts).save_pretrained(folder)


def _learner(args: argparse.Namespace, output: Path) -> tuple[TextLearner | TowerLearner, Path]:
    tokenizer = AutoTokenizer.from_pretrained(output / "tokenizer")
    folder = output / f"mini_{args.what}"
    if args.what == "clip":
        end = ends_texts(tokenizer)
        return TowerLearner(build_tower(len(tokenizer), end), tokenizer, args.seed), folder
    family, heads, template, languages = DECODERS[args.what]
    model = build_decoder(family, heads, len(tokenizer))
    learner = TextLearner(model, str(output / "tokenizer"), template, languages, args.seed)
    return learner, folder


def _save(learner: TextLearner | TowerLearner, folder: Path, card: Card) -> None:
    """Write the folder as a whole, so that an interruption leaves none by half."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=folder.parent) as scratch:
        built = Path(scratch) / "built"
        if isinstance(learner, TowerLearner):
            learner.clip.cpu().save_pretrained(built)
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
    main()
