"""The models and stages of `paper_in_miniature.py`, and what its ablations change."""

import json
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from lightning_llava.demo.world import DemoWorld
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.configured import read_benchmarks

CONFIGS = Path("configs")
WORLD = CONFIGS / "demo.yaml"
BENCHMARKS = [CONFIGS / "demo" / f"{name}.yaml" for name in ("benchmarks", "translated")]
"""All that are asked in the end; `fit` asks those of the first file."""
MODELS = {"mini-vicuna": ("vicuna", "en"), "mini-saiga": ("saiga", "en_ru")}
"""Model → the file of `configs/demo` that has its decoder, and the language of its training data:
LLaVA's own data are English, those of LLaVA-Saiga in both languages."""
STAGES = {"align": "captions", "lora": "instructions"}
"""Stage → what it is trained on."""
MAIN = "paper"


@dataclass(frozen=True)
class Variant:
    """What differs from the paper's recipe."""

    no_align: bool = False
    lora_rank: int | None = None
    linear_projector: bool = False
    no_image: bool = False
    permuted_images: bool = False
    text_replay: float | None = None

    @property
    def name(self) -> str:
        """What the folder is called."""
        parts = [
            "no-align" if self.no_align else "",
            "" if self.lora_rank is None else f"lora-rank-{self.lora_rank}",
            "linear-projector" if self.linear_projector else "",
            "no-image" if self.no_image else "",
            "permuted-images" if self.permuted_images else "",
            "" if self.text_replay is None else f"text-replay-{self.text_replay:g}",
        ]
        return "_".join(filter(None, parts)) or MAIN

    @property
    def stages(self) -> list[str]:
        """What is trained, in order."""
        return [stage for stage in STAGES if stage != "align" or not self.no_align]

    def trained_as(self, stage: str) -> "Variant":
        """Return the simplest variant that has the same weights after a stage."""
        if stage == "align":
            return Variant(linear_projector=self.linear_projector, no_image=self.no_image)
        return replace(self, permuted_images=False)

    def folder(self, output: Path) -> Path:
        """Return where it lies."""
        return output if self.name == MAIN else output / "ablations" / self.name


def add_variant(parser: ArgumentParser) -> None:
    """Add the ablations to the command line."""
    group = parser.add_argument_group(
        "ablations", "each in a folder of its own; what the main run has too is done once"
    )
    add = group.add_argument
    add("--no-align", action="store_true", help="LoRA stage from a random projector")
    add("--lora-rank", type=_rank, metavar="N", help="another rank; alpha is twice as much")
    add("--linear-projector", action="store_true", help="one layer instead of two and a GELU")
    add(
        "--no-image",
        action="store_true",
        help="all pictures blank (gray), in both stages of training and when asked",
    )
    add(
        "--permuted-images",
        action="store_true",
        help="trained as ever, but asked about another scene's picture",
    )
    add("--text-replay", type=_share, metavar="SHARE", help="weight of text records; 1 as they are")


def variant_of(options: Namespace) -> Variant:
    """Return what the command line asks for.

    Raises:
        SettingError: blank pictures that are to be permuted.
    """
    variant = Variant(**{name: getattr(options, name) for name in Variant.__dataclass_fields__})
    if variant.no_image and variant.permuted_images:
        raise SettingError(
            "--no-image and --permuted-images: blank pictures are all the same; give one of them"
        )
    return variant


def fit_arguments(
    stage: str, model: str, variant: Variant, output: Path, options: Namespace
) -> list[str]:
    """Write the command line of a stage, behind `python -m lightning_llava fit`.

    Args:
        stage: of `STAGES`.
        model: of `MODELS`.
        variant: see there.
        output: folder of the whole experiment.
        options: `steps`, `align_steps` and `fit_flags`.
    """
    decoder, language = MODELS[model]
    data = CONFIGS / "demo" / f"{STAGES[stage]}_{language}.yaml"
    files = [WORLD, CONFIGS / "demo" / f"{stage}.yaml", CONFIGS / "demo" / f"{decoder}.yaml", data]
    steps = options.align_steps if stage == "align" else options.steps
    flags: dict[str, Any] = {} if steps is None else {"trainer.max_steps": steps}
    if variant.linear_projector:
        flags["model.projector.type"] = "linear"
    if variant.no_image:
        flags["data.sources"] = json.dumps(blank_sources(data, output))
    if stage == "lora":
        files.append(BENCHMARKS[0])
        flags |= _lora_flags(model, variant, output)
    words = [word for file in files for word in ("-c", str(file))]
    words += [word for name, value in flags.items() for word in (f"--{name}", str(value))]
    return [*words, *options.fit_flags]


def _lora_flags(model: str, variant: Variant, output: Path) -> dict[str, Any]:
    flags: dict[str, Any] = {}
    if not variant.no_align:
        flags["model.init_from"] = checkpoint("align", model, variant, output)
    if variant.lora_rank is not None:
        flags |= {"model.lora.r": variant.lora_rank, "model.lora.alpha": 2 * variant.lora_rank}
    if variant.text_replay is not None:
        flags["data.sources.text.weight"] = variant.text_replay
    if variant.no_image:
        folder = pictures_folder(variant, output)
        names = read_benchmarks(BENCHMARKS[:1], "paper_in_miniature.py")
        flags |= {f"data.benchmarks.{name}.images": folder for name in names}
    return flags


def run_folder(stage: str, model: str, variant: Variant, output: Path) -> Path:
    """Return the folder of a stage's runs."""
    return variant.trained_as(stage).folder(output) / stage / model


def checkpoint(stage: str, model: str, variant: Variant, output: Path) -> Path:
    """Return what a stage ends with."""
    return run_folder(stage, model, variant, output) / "version_0" / "checkpoints" / "last.ckpt"


def blank_world(output: Path) -> Path:
    """Return the folder of the training records whose pictures are blank."""
    return output / "ablations" / "blank_world"


def pictures_folder(variant: Variant, output: Path) -> Path | None:
    """Return the folder of the pictures asked about; None for the world's own."""
    if not variant.no_image and not variant.permuted_images:
        return None
    return output / "ablations" / f"{'blank' if variant.no_image else 'permuted'}_pictures"


def blank_sources(data: Path, output: Path) -> dict[str, Any]:
    """Read a data config's sources, and name the blank records in their place."""
    sources = _read(data)["data"]["sources"]
    here = f"{read_world().folder}/"
    for source in sources.values():
        source["shards"] = source["shards"].replace(here, f"{blank_world(output)}/")
    return sources


def read_world() -> DemoWorld:
    """Return the world that the configs name.

    Raises:
        SettingError: there are no configs here.
    """
    return DemoWorld(**_read(WORLD)["data"]["preparation"]["init_args"])


def _read(file: Path) -> Any:
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise SettingError(
            f"{file} does not exist here; run this in the folder that holds configs/"
        ) from error


def _rank(text: str) -> int:
    if (number := int(text)) < 1:
        raise ArgumentTypeError(f"{number}, expected 1 or more")
    return number


def _share(text: str) -> float:
    if (number := float(text)) < 0:
        raise ArgumentTypeError(f"{number:g}, expected 0 or more")
    return number
