"""Draw a scene, and say where everything in it is."""

from collections.abc import Callable
from io import BytesIO
from math import cos, pi, radians, sin

from PIL import Image, ImageDraw

from lightning_llava.demo.scenes import Colour, PrintedWord, Scene, SceneObject, Shape, Size
from lightning_llava.lettering import font, ink

IMAGE_SIZE = 128
"""Pixels per side."""
SUPERSAMPLING = 4
FONT_SIZE = 29
"""Pixels per em: capitals are 10 px high where a tower sees the picture at 64 px."""

Point = tuple[float, float]
Extent = tuple[float, float, float, float]
"""Left, top, right, bottom as fractions of the picture."""

RGB: dict[Colour, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "blue": (40, 90, 215),
    "green": (38, 155, 65),
    "yellow": (240, 210, 28),
    "purple": (140, 55, 175),
    "orange": (240, 130, 20),
    "black": (32, 32, 32),
}
BACKGROUNDS = ((250, 250, 250), (228, 232, 238), (244, 234, 220), (222, 238, 226))
INK = (24, 24, 30)
RADII: dict[Size, float] = {"small": 11 / IMAGE_SIZE, "large": 18 / IMAGE_SIZE}


def _ring(corners: int, radius: Callable[[int], float], start: float = -pi / 2) -> list[Point]:
    angles = [start + 2 * pi * i / corners for i in range(corners)]
    return [(radius(i) * cos(a), radius(i) * sin(a)) for i, a in enumerate(angles)]


def _heart() -> list[Point]:
    # The familiar curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, to unit size.
    turns = [2 * pi * i / 48 for i in range(48)]
    return [
        (sin(t) ** 3, -(13 * cos(t) - 5 * cos(2 * t) - 2 * cos(3 * t) - cos(4 * t) + 2.5) / 14.5)
        for t in turns
    ]


_ARM = 0.34
OUTLINES: dict[Shape, list[Point]] = {
    "circle": _ring(48, lambda _: 0.96),
    "square": _ring(4, lambda _: 1.18, start=-pi / 4),
    "triangle": [(x, y + 0.2) for x, y in _ring(3, lambda _: 1.16)],
    "star": _ring(10, lambda i: 0.46 if i % 2 else 1.12),
    "heart": _heart(),
    "cross": [
        *((-_ARM, -1.0), (_ARM, -1.0), (_ARM, -_ARM), (1.0, -_ARM), (1.0, _ARM), (_ARM, _ARM)),
        *((_ARM, 1.0), (-_ARM, 1.0), (-_ARM, _ARM), (-1.0, _ARM), (-1.0, -_ARM), (-_ARM, -_ARM)),
    ],
}
"""Corners of each shape around its middle, about two units wide, y downwards."""


def draw(scene: Scene) -> Image.Image:
    """Draw a scene, 128 x 128 RGB, with smooth edges."""
    side = IMAGE_SIZE * SUPERSAMPLING
    canvas = Image.new("RGB", (side, side), BACKGROUNDS[scene.background])
    pen = ImageDraw.Draw(canvas)
    for thing in scene.objects:
        red, green, blue = (min(255, max(0, c + thing.shade)) for c in RGB[thing.kind.colour])
        corners = [(x * side, y * side) for x, y in outline(thing)]
        pen.polygon(corners, fill=(red, green, blue))
    if scene.word is not None:
        left, top = (edge * side for edge in word_extent(scene.word)[:2])
        lettering = font(FONT_SIZE * SUPERSAMPLING)
        # The extent is that of the ink, which starts away from the point that `text` wants.
        ink_left, ink_top, _, _ = ink(lettering, scene.word.text)
        pen.text((left - ink_left, top - ink_top), scene.word.text, fill=INK, font=lettering)
    return canvas.reduce(SUPERSAMPLING)


def encode(scene: Scene) -> bytes:
    """Draw a scene as PNG."""
    buffer = BytesIO()
    draw(scene).save(buffer, format="PNG")
    return buffer.getvalue()


def outline(thing: SceneObject) -> list[Point]:
    """Return the corners of an object as fractions of the picture."""
    radius = RADII[thing.size]
    # No outline reaches 1.18 radii to any side, tilted as little as scenes tilt them.
    room = 1 / 6 - 1.18 * radius
    middle_x = (thing.cell % 3 + 0.5) / 3 + thing.shift[0] * room
    middle_y = (thing.cell // 3 + 0.5) / 3 + thing.shift[1] * room
    c, s = cos(radians(thing.tilt)), sin(radians(thing.tilt))
    return [
        (middle_x + radius * (x * c - y * s), middle_y + radius * (x * s + y * c))
        for x, y in OUTLINES[thing.kind.shape]
    ]


def object_extent(thing: SceneObject) -> Extent:
    """Return the tightest box around an object."""
    xs, ys = zip(*outline(thing), strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def word_extent(word: PrintedWord) -> Extent:
    """Return the tightest box around a word's ink."""
    side = IMAGE_SIZE * SUPERSAMPLING
    left, top, right, bottom = ink(font(FONT_SIZE * SUPERSAMPLING), word.text)
    width, height = (right - left) / side, (bottom - top) / side
    middle_x = 0.5 + word.shift * (1 - width) / 2 * 0.9
    middle_y = (word.row + 0.5) / 3
    return middle_x - width / 2, middle_y - height / 2, middle_x + width / 2, middle_y + height / 2
