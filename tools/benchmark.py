"""Measure parts of the pipeline: `python tools/benchmark.py --help`."""

import platform
import shutil
import sys
import tempfile
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmark_eval import add_eval_command
from benchmark_gpu import add_gpu_command
from benchmark_loss import add_loss_command
from benchmark_train import add_train_command
from rich.console import Console
from rich.table import Table

from lightning_llava.errors import SettingError, explains_wrong_input
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.turns import Turn

IMAGE_TOKENS = 576
ROUNDS = 5
SHORT = {
    "English": ("What color is the cup?", "Red"),
    "Russian": ("Какого цвета чашка?", "Красная"),
}


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Run a benchmark; return 0, or 2 on a wrong input."""
    parser = ArgumentParser(prog="python tools/benchmark.py", description="Measure the pipeline.")
    commands = parser.add_subparsers(title="benchmarks", required=True, dest="command")
    text = commands.add_parser(
        "conversations", help="conversations to ids and labels, per second on one core"
    )
    text.add_argument(
        "--tokenizer",
        metavar="NAME",
        help="folder or hub name (default: Mistral-7B-v0.1's, out of the mistral-common package)",
    )
    text.add_argument(
        "--template", default="saiga_mistral", metavar="NAME", help="(default: %(default)s)"
    )
    text.add_argument(
        "--number", type=int, default=5000, metavar="N", help="a round (default: %(default)s)"
    )
    text.set_defaults(run=run_conversations)
    add_data(commands)
    add_eval_command(commands)
    add_gpu_command(commands)
    add_loss_command(commands)
    add_train_command(commands)
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        options.run(options, Path(scratch))
    return 0


def add_data(commands: Any) -> None:
    """Add `data`, or where a package for shards is missing, a command that says which."""
    try:
        from benchmark_data import add_data_command
    except ModuleNotFoundError as error:
        reason = f"data needs the package {error.name}, which is not installed"

        def refuse(options: Namespace, scratch: Path) -> None:
            raise SettingError(reason)

        commands.add_parser("data", help=reason).set_defaults(run=refuse)
    else:
        add_data_command(commands)


def run_conversations(options: Namespace, scratch: Path) -> None:
    """Print the table of conversations."""
    name = options.tokenizer or packaged_tokenizer(scratch)
    Console().print(conversations(name, options.template, options.number))


def conversations(tokenizer: str, template: str, number: int) -> Table:
    """Time one question and answer about one image; the best of five rounds of processor time."""
    spec = LanguageSpec(name=tokenizer, template=template, allow_foreign_template=True)
    encoder = ConversationEncoder(spec, IMAGE_TOKENS)
    libraries = ", ".join(f"{name} {version(name)}" for name in ("transformers", "tokenizers"))
    table = Table(title=f"{template}, Python {platform.python_version()}, {libraries}")
    for name in ("conversation", "tokens", "a second, one core"):
        table.add_column(name, justify="right")
    for language, (question, answer) in SHORT.items():
        ask = encoder.template.short_answer["ru" if language == "Russian" else "en"]
        turns = [Turn("user", f"<image>\n{question}{ask}"), Turn("assistant", answer)]
        tokens, rounds = len(encoder.encode(turns, 1).input_ids), []
        for _ in range(ROUNDS):
            start = time.process_time()
            for _ in range(number):
                encoder.encode(turns, 1)
            rounds.append(time.process_time() - start)
        table.add_row(language, str(tokens), f"{number / min(rounds):,.0f}")
    return table


def packaged_tokenizer(folder: Path) -> str:
    """Lay the SentencePiece model that mistral-common ships into a folder of its own.

    Raises:
        SettingError: the package is not installed.
    """
    package = find_spec("mistral_common")
    if package is None or package.origin is None:
        raise SettingError("--tokenizer is not given and mistral-common is not installed")
    model = Path(package.origin).parent / "data" / "tokenizer.model.v1"
    shutil.copy(model, folder / "tokenizer.model")
    return str(folder)


if __name__ == "__main__":
    sys.exit(main())
