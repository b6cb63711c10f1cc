"""How an imported model is shown pictures: as squares, or in tiles of any resolution."""

from dataclasses import replace

from lightning_llava.errors import SettingError
from lightning_llava.geometry import vision_geometry
from lightning_llava.models.interop.names import NEWLINE
from lightning_llava.models.interop.pinpoints import grids_of
from lightning_llava.models.interop.read_original import load_tower_config
from lightning_llava.models.interop.source import SETTING, Request, Source
from lightning_llava.specs import VisionSpec

MAX_LENGTH = 4096
"""As configs/pictures/any_resolution.yaml has it: a picture alone may take 2928 tokens."""


def shown_pictures(source: Source, request: Request) -> VisionSpec:
    """Say how pictures are shown to the tower: with a newline in tiles, without as squares.

    Raises:
        SettingError: the source contradicts itself, or `--image-mode` would change nothing.
    """
    vision = source.vision
    assert vision is not None
    if source.pinpoints is not None:
        config = source.tower_config or load_tower_config(vision)
        grids = grids_of(source.pinpoints, vision_geometry(config, vision).image_size, SETTING)
        vision = replace(vision, any_resolution=True, grids=grids)
        vision_geometry(config, vision)  # refuses features and grids that ours cannot take
    if vision.any_resolution and source.kind != "adapter":  # which says its own
        source.language.max_length = MAX_LENGTH
    if vision.any_resolution != (source.newline is not None):
        found = "no" if vision.any_resolution else "an"
        raise SettingError(
            f"{SETTING}: its weights have {found} {NEWLINE}, and by its settings it was trained on "
            f"{'tiles' if vision.any_resolution else 'squares'}, not "
            f"{'squares' if vision.any_resolution else 'tiles'}; give the config.json of the "
            "training that the weights are from"
        )
    if vision.any_resolution and request.image_mode:
        raise SettingError(
            f"--image-mode: {request.source!r} is shown pictures in tiles of any resolution, of "
            "which it changes nothing; leave it out"
        )
    return vision
