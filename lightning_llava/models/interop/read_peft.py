"""Read PEFT folders: adapters on an LLM alone, and those that `export --format adapter` wrote."""

from dataclasses import replace
from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.models.interop.names import NEWLINE
from lightning_llava.models.interop.peft_adapter import read_adapters
from lightning_llava.models.interop.read_original import merge_into, name_base, tokenizer_of
from lightning_llava.models.interop.source import (
    OUR_PROJECTOR,
    OUR_SETTINGS,
    SETTING,
    Request,
    Source,
)
from lightning_llava.models.interop.template_file import find_template
from lightning_llava.models.interop.weight_files import read_file, read_json
from lightning_llava.specs import LanguageSpec, VisionSpec


def read_language_adapter(folder: Path, request: Request) -> Source:
    """Read an adapter of an LLM and fold it in: a run's own adapters go on top of the result."""
    adapters = read_adapters(folder, SETTING)
    source = Source("peft", language=LanguageSpec(name="", template=request.template or ""))
    name_base(source.language, adapters, request)
    merge_into(source, adapters)
    # An adapter's own tokenizer may have tokens that its LLM lacked.
    source.tokenizer = tokenizer_of(folder, replace(source.language))
    return source


def read_exported_adapter(folder: Path, request: Request) -> Source:
    """Read what `tools/export.py --format adapter` wrote."""
    settings = read_json(folder / OUR_SETTINGS, SETTING)
    try:
        vision = VisionSpec(**settings["vision"])
        language = LanguageSpec(**settings["language"])
        declared, image_mode = settings["projector"], settings["image_mode"]
    except (KeyError, TypeError) as error:
        raise SettingError(
            f"{SETTING}: {OUR_SETTINGS} is not what tools/export.py writes ({error!r})"
        ) from error
    if request.vision:
        vision.name, vision.revision = request.vision, None
    if request.base:
        language.name, language.revision = request.base, None
    language.template = request.template or find_template(language.template, folder)
    projector = read_file(folder / OUR_PROJECTOR, SETTING)
    source = Source(
        "adapter",
        vision=vision,
        newline=projector.pop(NEWLINE, None),
        projector=projector,
        projector_type=declared,
        language=language,
        image_mode=request.image_mode or image_mode,
    )
    adapters = read_adapters(folder, SETTING)
    if request.merge:
        merge_into(source, adapters)
    else:
        source.adapters = adapters
    return source
