"""Real photographs as JPEG files of several sizes and shapes, out of two libraries' wheels.

Astronaut (NASA), coffee, Chelsea the cat and rocket (SpaceX) come from scikit-image; china and
flower from scikit-learn.
"""

from collections.abc import Callable
from pathlib import Path

from PIL import Image
from skimage import data
from sklearn.datasets import load_sample_image

EXIF_ORIENTATION = 0x0112
TURN_CLOCKWISE_TO_SHOW = 6


def write_photographs(folder: Path) -> list[Path]:
    """Write nine photographs; `cat_rotated.jpg` lies on its side and says so in its EXIF data.

    Widths and heights: astronaut 512 x 512, coffee 600 x 400, rocket 640 x 427, china_wide
    640 x 160, flower_tall 120 x 427, cat_tiny 24 x 16, moon_grey 256 x 256 (one channel),
    coffee_cmyk 300 x 200 (four channels), cat_rotated 300 x 451 as stored and 451 x 300 as meant.
    """
    folder.mkdir(parents=True, exist_ok=True)
    astronaut, coffee, cat = (_image(load) for load in (data.astronaut, data.coffee, data.chelsea))
    china, flower = (
        Image.fromarray(load_sample_image(f"{name}.jpg")) for name in ("china", "flower")
    )
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = TURN_CLOCKWISE_TO_SHOW
    images = {
        "astronaut": astronaut,
        "coffee": coffee,
        "rocket": _image(data.rocket),
        "china_wide": china.crop((0, 120, 640, 280)),
        "flower_tall": flower.crop((260, 0, 380, 427)),
        "cat_tiny": cat.resize((24, 16)),
        "moon_grey": _image(data.moon).resize((256, 256)),
        "coffee_cmyk": coffee.resize((300, 200)).convert("CMYK"),
        "cat_rotated": cat.transpose(Image.Transpose.ROTATE_90),
    }
    paths = []
    for name, image in images.items():
        path = folder / f"{name}.jpg"
        image.save(path, quality=90, exif=exif if name == "cat_rotated" else Image.Exif())
        paths.append(path)
    return paths


def _image(load: Callable) -> Image.Image:
    return Image.fromarray(load())
