"""Options that the commands on finished shards share: which, by whom, counted with what."""

from argparse import ArgumentParser, Namespace

from lightning_llava.data.cores import usable_cores
from lightning_llava.errors import SettingError
from lightning_llava.geometry import load_vision_config, vision_geometry
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
        if options.template or options.vision:
            raise SettingError(
                "--template and --vision count tokens, which takes a tokenizer; add --tokenizer"
            )
        return None
    if not options.template:
        raise SettingError("--tokenizer needs --template (model.language.template)")
    image_tokens = options.image_tokens
    if options.vision:
        vision = VisionSpec(name=options.vision)
        image_tokens = vision_geometry(load_vision_config(vision), vision).image_tokens
    spec = LanguageSpec(
        name=options.tokenizer,
        template=options.template,
        system=options.system,
        max_length=options.max_length,
        allow_foreign_template=options.template == "plain",  # as data.prompt: plain
    )
    return ConversationEncoder(spec, image_tokens)
