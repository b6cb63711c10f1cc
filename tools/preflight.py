"""Show and check what an LLM would be taught: `python tools/preflight.py --help`."""

import json
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console

from lightning_llava.data.converters.language import spoken_language
from lightning_llava.data.converters.llava import conversation, read_records
from lightning_llava.errors import SettingError, explains_wrong_input
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder, Encoded
from lightning_llava.text.preflight import (
    Summary,
    check_conversation,
    check_encoder,
    coloured,
    summary_table,
)
from lightning_llava.text.template import template_names
from lightning_llava.text.turns import Turn


@explains_wrong_input
def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 when all is well, 2 on a wrong input, 1 without --json on a refused record."""
    options = _parser().parse_args(arguments)
    spec = LanguageSpec(
        name=options.tokenizer,
        template=options.template,
        system=options.system,
        max_length=options.max_length,
        allow_foreign_template=True,  # both are named here, so neither is left from before
    )
    encoder = ConversationEncoder(spec, options.image_tokens)
    check_encoder(encoder)
    records = read_records(options.conversations)
    return (_print_json if options.json else _print_for_people)(encoder, records)


Checked = tuple[list[Turn], Encoded]


def _checked(encoder: ConversationEncoder, records: list) -> Iterator[Checked | SettingError]:
    for record in records:
        try:
            turns, num_images = conversation(record)
            yield turns, check_conversation(encoder, turns, num_images)
        except SettingError as error:
            yield error


def _print_json(encoder: ConversationEncoder, records: list) -> int:
    for result in _checked(encoder, records):
        if isinstance(result, SettingError):
            row = {"error": str(result)}
        else:
            encoded = result[1]
            row = {
                "input_ids": encoded.input_ids.tolist(),
                "labels": encoded.labels.tolist(),
                "dropped_turns": encoded.dropped_turns,
            }
        print(json.dumps(row, ensure_ascii=False))
    return 0


def _print_for_people(encoder: ConversationEncoder, records: list) -> int:
    console, summaries, refused = Console(), {}, 0
    for number, result in enumerate(_checked(encoder, records)):
        console.rule(f"record {number}", align="left", style="dim")
        if isinstance(result, SettingError):
            refused += 1
            console.print(f"refused: {result}", style="red", markup=False)
            continue
        turns, encoded = result
        summary = summaries.setdefault(("records", spoken_language(turns)), Summary())
        summary.add(encoder, turns, encoded)
        console.print(coloured(encoder, encoded, brackets=not console.is_terminal), soft_wrap=True)
    console.print(summary_table(summaries))
    marked = "green" if console.is_terminal else "in ⟦⟧"
    console.print(f"{marked}: what is learnt; the rest is only read", markup=False)
    if refused:
        console.print(f"{refused} of {len(records)} records are refused", style="red")
    return 1 if refused else 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="python tools/preflight.py",
        description="Show, record by record, what an LLM reads and what it is taught, and refuse "
        "what would teach it nonsense.",
    )
    add = parser.add_argument
    add("--tokenizer", required=True, metavar="NAME", help="folder or hub name (required)")
    add(
        "--template",
        required=True,
        metavar="NAME",
        help=f"{', '.join(template_names())}, auto (the tokenizer's own chat template), or the path"
        " of a YAML file (required)",
    )
    add(
        "--conversations",
        type=Path,
        required=True,
        metavar="FILE",
        help="LLaVA's JSON: an array, or one record a line (required)",
    )
    add("--system", metavar="TEXT", help='system text; "" for none (default: the template\'s own)')
    add(
        "--max-length",
        type=int,
        default=2048,
        metavar="N",
        help="longest conversation in tokens, images expanded (default: %(default)s)",
    )
    add(
        "--image-tokens",
        type=int,
        default=576,
        metavar="N",
        help="features per image (default: %(default)s, CLIP ViT-L/14-336; with any resolution, "
        "which goes by sizes, 2928 at most)",
    )
    add("--json", action="store_true", help="one JSON object a record (default: a table)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
