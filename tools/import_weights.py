"""Take the weights of others over: `python tools/import_weights.py --help`."""

import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import transformers

from lightning_llava.errors import SettingError
from lightning_llava.export.command import whole_or_absent
from lightning_llava.models.interop.importing import Imported, import_weights
from lightning_llava.models.interop.source import ImageMode, Kind, Request


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0, or 2 on a wrong input."""
    options = _parser().parse_args(arguments)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    asked = {name: getattr(options, name) for name in Request.__dataclass_fields__}
    output = Path(options.output).expanduser().absolute()
    try:
        with whole_or_absent(output) as folder:
            imported = import_weights(Request(**asked), folder, output)
    except (SettingError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(report(imported, output)))
    return 0


def report(imported: Imported, output: Path) -> list[str]:
    """Say what was written, and with which lines to go on."""
    config, weights = shlex.quote(str(output / "model.yaml")), str(output / "weights.ckpt")
    lines = [f"written: {output} (from {imported.kind})"]
    lines += [f"note: {note}" for note in imported.notes]
    run = "python -m lightning_llava"
    if imported.vision is None:
        stage = f"{run} fit -c configs/stage/align.yaml -c DATA.yaml -c HARDWARE.yaml"
        return [*lines, f"train:    {stage} -c {config}"]
    start, lora = f"--model.init_from {shlex.quote(weights)}", imported.lora
    adapters = f" --model.lora.r {lora.r} --model.lora.alpha {lora.alpha}" if lora else ""
    start += f" --data.image_mode {imported.image_mode}"
    if bits := imported.language.quantization:
        start += f" --model.language.quantization {bits}"
    return [
        *lines,
        f"train:    {run} fit -c configs/stage/lora.yaml -c DATA.yaml -c HARDWARE.yaml "
        f"-c {config} {start}{adapters}",
        f"validate: {run} validate -c configs/eval/pope.yaml -c {config} {start}"
        f"{adapters or ' --model.learning_rate.lora null'}",
        "measure:  python tools/evaluate.py -c configs/eval/pope.yaml "
        f"--model {shlex.quote(weights)} --output runs/eval/imported",
    ]


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python tools/import_weights.py",
        description="Write weights in a format of others as a folder that fit, validate and "
        "tools/evaluate.py read (docs/import.md).",
    )
    add = parser.add_argument
    add("--source", required=True, metavar="NAME", help="folder, file or hub name")
    add("--output", required=True, metavar="FOLDER", help="new folder")
    add("--kind", choices=get_args(Kind), help="what the source is; told from its files")
    add("--revision", metavar="NAME", help="hub revision of the source")
    add(
        "--base",
        metavar="NAME",
        help="LLM of a projector or of adapters, instead of the one that the source names",
    )
    add("--vision", metavar="NAME", help="vision tower, instead of the one that the source names")
    add("--template", metavar="NAME", help="conversation template that the LLM was trained with")
    add(
        "--image-mode",
        choices=get_args(ImageMode),
        help="how pictures become square, instead of what the source says",
    )
    add(
        "--merge",
        action="store_true",
        help="fold the source's adapters into its LLM, instead of keeping them as adapters",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
