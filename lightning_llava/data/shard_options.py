"""Options that the commands on finished shards share: which, by whom, counted with what."""

import re
from argparse import ArgumentParser, Namespace
from dataclasses import replace

from lightning_llava.data.cores import usable_cores
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_geometry
from lightning_llava.specs import LanguageSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder


def add_shard_options(parser: ArgumentParser) -> None:
    """Add SHARDS, and how they are read."""
    add = parser.add_argument
    add("shards", nargs="+", metavar="SHARDS", help="tar files, globs, brace ranges or URLs")
    add(
        "--processes",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="shards indexed side by side (default: %(default)s, the cores that may be used)",
    )
    add(
        "--cache-dir",
        metavar="FOLDER",
        help="keeps indexes and parts of remote shards, as data.cache_dir does (default:"
        " lightning_llava in the user's cache folder)",
    )


def add_encoder_options(parser: ArgumentParser) -> None:
    """Add what counts tokens."""
    add = parser.add_argument
    add(
        "--tokenizer",
        metavar="NAME",
        help="folder or hub name of the LLM: count tokens, too (default: count none)",
    )
    add(
        "--template",
        metavar="NAME",
        help="conversation template (model.language.template); plain for the align stage; required"
        " with --tokenizer (default: none)",
    )
    add("--system", metavar="TEXT", help='system text; "" for none (default: the template\'s own)')
    add(
        "--max-length",
        type=int,
        default=LanguageSpec.max_length,
        metavar="N",
        help="longest conversation in tokens, images expanded (default: %(default)s)",
    )
    add(
        "--any-resolution",
        action="store_true",
        help="count overview and tiles of every image, as model.vision.any_resolution does; takes "
        "--vision (default: one square an image)",
    )
    add(
        "--grids",
        metavar="LIST",
        help="model.vision.grids as rows x columns, e.g. 1x2,2x1,2x2; takes --any-resolution "
        "(default: LLaVA-1.6's)",
    )
    features = parser.add_mutually_exclusive_group()
    features.add_argument(
        "--vision",
        metavar="NAME",
        help="folder or hub name of the vision tower that says how many features an image has"
        " (default: none, --image-tokens counts)",
    )
    features.add_argument(
        "--image-tokens",
        type=int,
        default=576,
        metavar="N",
        help="features per image (default: %(default)s, CLIP ViT-L/14-336)",
    )


def encoder_of(options: Namespace) -> ConversationEncoder | None:
    """Make what the options of `add_encoder_options` describe; None without a tokenizer.

    Raises:
        SettingError: options that count tokens but no tokenizer, or no template for it.
    """
    if not options.tokenizer:
        if options.template or options.vision or options.any_resolution:
            raise SettingError(
                "--template, --vision and --any-resolution count tokens, which takes a tokenizer; "
                "add --tokenizer"
            )
        return None
    if not options.template:
        raise SettingError("--tokenizer needs --template (model.language.template)")
    image_tokens, tiling = options.image_tokens, None
    if options.vision:
        geometry = load_geometry(_vision(options))
        image_tokens, tiling = geometry.image_tokens, geometry.tiling
    elif options.any_resolution:
        raise SettingError("--any-resolution depends on the tower's image size; add --vision")
    spec = LanguageSpec(
        name=options.tokenizer,
        template=options.template,
        system=options.system,
        max_length=options.max_length,
        allow_foreign_template=options.template == "plain",  # as data.prompt: plain
    )
    return ConversationEncoder(spec, image_tokens, tiling=tiling)


def _vision(options: Namespace) -> VisionSpec:
    spec = VisionSpec(name=options.vision, any_resolution=options.any_resolution)
    if options.grids is None:
        return spec
    if not options.any_resolution:
        raise SettingError("--grids are those of --any-resolution; add that")
    if not re.fullmatch(r"\d+x\d+(,\d+x\d+)*", options.grids):
        raise SettingError(f"--grids is {options.grids!r}; expected rows x columns, as in 1x2,2x2")
    grids = [[int(count) for count in grid.split("x")] for grid in options.grids.split(",")]
    return replace(spec, grids=grids)
