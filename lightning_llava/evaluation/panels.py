"""An answered question as one image, for TensorBoard: picture above, texts and verdict below."""

from PIL import Image, ImageDraw

from lightning_llava.lettering import font, wrap

MIN_WIDTH = 256
"""Pixels: below this the text would wrap after every other word."""
MAX_SIDE = 512
"""Pixels: larger pictures would only fill the event file."""

_FONT_SIZE = 14
_MARGIN = 8
_MAX_LINES = 6
_BACKGROUND = (255, 255, 255)
_TEXT = (30, 30, 30)
_VERDICTS = {
    True: ("right", (20, 125, 50)),
    False: ("wrong", (185, 30, 30)),
    None: ("not scored", (95, 95, 95)),
}


def draw_panel(
    image: Image.Image, question: str, prediction: str, reference: str | None, verdict: bool | None
) -> Image.Image:
    """Draw one answered question.

    Args:
        image: any size and mode. Pictures narrower than 256 px are enlarged by a whole factor
            without smoothing, as far as 512 px in height allow; larger ones shrink to 512 px.
        question: wrapped; each text is cut after six lines.
        prediction: the model's answer.
        reference: the label; None leaves its line out.
        verdict: right, wrong, or None for not scored. It is written as a word, too, not by colour
            alone.

    Returns:
        An RGB image, at least 256 px wide.
    """
    picture = _resize(image.convert("RGB"))
    width = max(MIN_WIDTH, picture.width)
    word, colour = _VERDICTS[verdict]
    texts = [("question", question, _TEXT), (f"prediction, {word}", prediction, colour)]
    if reference is not None:
        texts.append(("reference", reference, _TEXT))
    lettering, text_width = font(_FONT_SIZE), width - 2 * _MARGIN
    lines = [
        (line, text_colour)
        for name, text, text_colour in texts
        for line in wrap(f"{name}: {text.strip() or '(empty)'}", lettering, text_width, _MAX_LINES)
    ]
    line_height = sum(lettering.getmetrics()) + 2
    panel = Image.new(
        "RGB", (width, picture.height + 2 * _MARGIN + line_height * len(lines)), _BACKGROUND
    )
    panel.paste(picture, ((width - picture.width) // 2, 0))
    draw = ImageDraw.Draw(panel)
    draw.rectangle((0, picture.height, 3, panel.height), fill=colour)
    for row, (line, text_colour) in enumerate(lines):
        top = picture.height + _MARGIN + row * line_height
        draw.text((_MARGIN, top), line, fill=text_colour, font=lettering)
    return panel


def _resize(picture: Image.Image) -> Image.Image:
    factor = min(-(-MIN_WIDTH // picture.width), MAX_SIDE // picture.height)
    if factor > 1:
        return picture.resize(
            (picture.width * factor, picture.height * factor), Image.Resampling.NEAREST
        )
    shrunk = picture.copy()
    shrunk.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    return shrunk
