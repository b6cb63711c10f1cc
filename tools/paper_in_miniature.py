"""The paper's experiment on the embedded world: `python tools/paper_in_miniature.py --help`."""

import json
import shlex
import sys
from argparse import ArgumentDefaultsHelpFormatter, ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import transformers
from paper_measure import MEASURED, Measured, device, measure
from paper_parts import blank_records, other_pictures, train, world_hash
from paper_pictures import draw_losses, draw_samples, draw_scores, draw_table
from paper_table import (
    BLIND,
    ablation_lines,
    document,
    folder_of,
    leaning_lines,
    markdown,
    score_lines,
    terminal,
)
from paper_variants import (
    BENCHMARKS,
    MAIN,
    MODELS,
    add_variant,
    checkpoint,
    fit_arguments,
    pictures_folder,
    read_world,
    run_folder,
    variant_of,
)
from rich.console import Console

from lightning_llava import cli
from lightning_llava.errors import explains_wrong_input
from lightning_llava.evaluation.answerers.choose import load_answerer
from lightning_llava.evaluation.configured import read_benchmarks
from lightning_llava.evaluation.json_lines import write_atomically
from lightning_llava.specs import BenchmarkSpec

PROG = "python tools/paper_in_miniature.py"
OUTPUT = Path("runs/paper_in_miniature")
SHORT_ANSWERS = "train/{vqa,ocr}-*.tar"
"""What `question only` knows, in the world's folder."""
SHORTEN = ("align_steps", "steps", "subset", "fit_flags")
"""Options by which runs differ that are no variants."""
PACKAGES = ("torch", "transformers", "lightning", "peft", "lightning-llava")


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    given = sys.argv[1:] if arguments is None else list(arguments)
    options = _parser().parse_args(given)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    cli.silence_misleading()
    Experiment(options, shlex.join([*PROG.split(), *given])).run()
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog=PROG,
        description="Train an English and a bilingual mini model as LLaVA 1.5 and LLaVA-Saiga are"
        " (align stage, LoRA stage), ask both VQAv2-, GQA-, POPE- and OCR-like questions in English"
        " and under the Russian protocol, and lay the scores out as the paper's table 3. Started"
        " again, it goes on where it stopped. To be run in the folder that holds configs/.",
        formatter_class=ArgumentDefaultsHelpFormatter,
        epilog=f"example: {PROG} --permuted-images -- --trainer.accelerator gpu",
    )
    add = parser.add_argument
    add("--output", type=Path, default=OUTPUT, metavar="FOLDER", help="gets all that is made")
    add(
        "--align-steps",
        type=int,
        metavar="N",
        help="optimizer steps of the align stage; None: as its config",
    )
    add("--steps", type=int, metavar="N", help="those of the LoRA stage; None: as its config")
    add("--subset", type=int, metavar="N", help="questions asked of each split; None: all")
    add("fit_flags", nargs="*", metavar="-- FLAG", help="further flags of fit, in both stages")
    add_variant(parser)
    return parser


class Experiment:
    """All parts of a variant, in order.

    Args:
        options: of the command line.
        command: the command line itself.
    """

    def __init__(self, options: Namespace, command: str) -> None:
        self.options, self.command = options, command
        self.variant, self.output = variant_of(options), options.output
        self.folder = self.variant.folder(self.output)
        self.console = Console(highlight=False)
        self.world = read_world()
        self.shortened = {name: getattr(options, name) for name in SHORTEN}
        self._done, self._parts = 0, 3 + (len(self.variant.stages) + 1) * len(MODELS)

    def run(self) -> None:
        """Train, ask, lay out."""
        self._say("the world, its benchmarks and backbones")
        self.world.prepare()
        if self.variant.no_image:
            blank_records(self.output, self.console)
        other_pictures(self.variant, self.output, self.console)
        for model in MODELS:
            for stage in self.variant.stages:
                self._train(stage, model)
        results = {model: self._measure(model) for model in MODELS}
        self._say(BLIND)
        shards = f"{self.world.folder}/{SHORT_ANSWERS}"
        results[BLIND] = self._ask(
            shards, self._specs(None), self.output / "scores" / folder_of(BLIND)
        )
        self._say("tables and pictures")
        self._lay_out(results)

    def _say(self, what: str) -> None:
        self._done += 1
        self.console.print(
            f"[{self._done}/{self._parts}] {self.variant.name}: {what}", style="bold", markup=False
        )

    def _train(self, stage: str, model: str) -> None:
        self._say(f"{model}, {stage} stage")
        variant = self.variant.trained_as(stage)
        arguments = fit_arguments(stage, model, variant, self.output, self.options)
        train(stage, model, variant, self.output, arguments, self.console)

    def _measure(self, model: str) -> Measured:
        self._say(f"{model}, benchmarks")
        trained = checkpoint("lora", model, self.variant, self.output)
        specs = self._specs(pictures_folder(self.variant, self.output))
        return self._ask(str(trained), specs, self.folder / "scores" / model)

    def _specs(self, pictures: Path | None) -> dict[str, BenchmarkSpec]:
        return {
            name: replace(spec, subset=self.options.subset, images=str(pictures or spec.images))
            for name, spec in read_benchmarks(BENCHMARKS, PROG).items()
        }

    def _ask(self, model: str, specs: dict[str, BenchmarkSpec], folder: Path) -> Measured:
        answerer = load_answerer(model, "auto", device())
        return measure(answerer, specs, self.world, folder, self.shortened, self.console)

    def _lay_out(self, results: dict[str, Measured]) -> None:
        content = {
            "command": self.command,
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": {package: version(package) for package in PACKAGES},
            "variant": {"name": self.variant.name, **asdict(self.variant)},
            "world": asdict(self.world),
            "results": results,
        }
        _write_json(self.folder / "table.json", content)
        facts = f"`{self.command}`, {content['date']}, " + ", ".join(
            f"{package} {number}" for package, number in content["versions"].items()
        )
        write_atomically(self.folder / "table.md", f"{document(results)}\n{facts}\n")
        draw_table(score_lines(results), self.folder / "table.png")
        draw_scores(results, self.folder / "scores.png")
        runs = {
            (stage, model): run_folder(stage, model, self.variant, self.output) / "version_0"
            for stage in self.variant.stages
            for model in MODELS
        }
        draw_losses(runs, self.folder / "losses.png")
        ledgers = {model: self.folder / "scores" / model / "ledger.jsonl" for model in MODELS}
        draw_samples(ledgers, self.folder / "samples.png")
        self.console.print(terminal(score_lines(results), f"{self.variant.name}: scores"))
        self.console.print(terminal(leaning_lines(results), "which way they lean"))
        self._compare()
        pictures = ("table.png", "scores.png", "losses.png", "samples.png")
        for name in ("table.md", "table.json", *pictures):
            self.console.print(f"{self.folder / name}", soft_wrap=True, markup=False)

    def _compare(self) -> None:
        """Lay variants side by side that were measured on this world, shortened as this one."""
        variants: dict[str, Any] = {}
        here = (world_hash(), self.shortened)
        for folder in [self.output, *sorted((self.output / "ablations").glob("*"))]:
            found = {
                model: json.loads(path.read_text(encoding="utf-8"))
                for model in [*MODELS, BLIND]
                if (path := folder / "scores" / folder_of(model) / MEASURED).is_file()
            }
            results = {
                name: part
                for name, part in found.items()
                if (part["of"]["world"], part["of"]["shortened"]) == here
            }
            if set(MODELS) <= results.keys():
                variants[MAIN if folder == self.output else folder.name] = results
            elif found:
                what = f"{folder}: left out of the comparison, as it is of another world, of other "
                self.console.print(f"{what}{', '.join(SHORTEN)}, or not finished", markup=False)
        if len(variants) > 1 or MAIN not in variants:
            lines = ablation_lines(variants)
            write_atomically(self.output / "ablations.md", f"# Ablations\n\n{markdown(lines)}\n")
            _write_json(self.output / "ablations.json", variants)
            self.console.print(terminal(lines, "ablations"))
            self.console.print(f"{self.output / 'ablations.md'}", soft_wrap=True, markup=False)


def _write_json(path: Path, content: Any) -> None:
    write_atomically(path, json.dumps(content, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
