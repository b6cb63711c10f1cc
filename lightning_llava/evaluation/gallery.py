"""A page of wrong answers beside their pictures, in one HTML file that needs no network."""

import base64
import io
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment
from PIL import Image

from lightning_llava.data.image_decode import decode
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.ledger import LedgerRow
from lightning_llava.evaluation.measures import by_benchmark, scored_rows
from lightning_llava.evaluation.row_scores import RIGHT, row_score

MOST = 50
SIDE = 320
_QUALITY = 80
_TEMPLATE = Path(__file__).with_suffix(".html.jinja")


@dataclass
class _Picture:
    """Rows about one image; `name` is empty where there is none."""

    name: str
    rows: list[LedgerRow] = field(default_factory=list)
    data: str = ""
    fault: str = ""


@dataclass(frozen=True)
class _Part:
    name: str
    asked: int
    wrong: int
    shown: int
    images: list[_Picture]


@dataclass(frozen=True)
class Gallery:
    """The page, and what went into it."""

    html: str
    wrong: int
    shown: int
    pictures: int
    unreadable: int
    """Pictures that are missing or damaged; the page says so in their place."""


def build_gallery(
    rows: Sequence[LedgerRow],
    title: str = "Wrong answers",
    most: int = MOST,
    seed: int | None = None,
    side: int = SIDE,
    folder: Path | None = None,
) -> Gallery:
    """Show wrong answers, image by image.

    Args:
        rows: a scored ledger.
        title: of the page.
        most: wrong answers per benchmark.
        seed: of the choice; None takes the first.
        side: longest side of the pictures, in pixels; they are embedded as JPEG.
        folder: where the pictures are, by file name; None takes the ledger's paths.

    Raises:
        SettingError: rows that cannot be scored, as in `scored_rows`, or numbers below 1.
    """
    for name, value in (("--most", most), ("--side", side)):
        if value < 1:
            raise SettingError(f"{name} is {value}, expected 1 or more")
    parts = [
        _part(name, part, most, seed) for name, part in by_benchmark(scored_rows(rows)).items()
    ]
    pictures = [image for part in parts for image in part.images if image.name]
    for picture in pictures:
        _load(picture, side, folder)
    unreadable = sum(bool(picture.fault) for picture in pictures)
    how = "the first" if seed is None else f"chosen with seed {seed}"
    html = _environment().from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return Gallery(
        html.render(
            title=title,
            parts=parts,
            side=side,
            choice=f"At most {most:,} per benchmark are shown, {how}.",
            pictures=len(pictures),
            unreadable=unreadable,
        ),
        sum(part.wrong for part in parts),
        sum(part.shown for part in parts),
        len(pictures),
        unreadable,
    )


def _part(name: str, rows: Sequence[LedgerRow], most: int, seed: int | None) -> _Part:
    wrong = [row for row in rows if row_score(row) < RIGHT]
    chosen = wrong[:most]
    if seed is not None and len(wrong) > most:
        places = sorted(random.Random(seed).sample(range(len(wrong)), most))
        chosen = [wrong[place] for place in places]
    images: dict[str, _Picture] = {}
    for row in chosen:
        images.setdefault(row.image or "", _Picture(row.image or "")).rows.append(row)
    return _Part(name, len(rows), len(wrong), len(chosen), list(images.values()))


def _load(picture: _Picture, side: int, folder: Path | None) -> None:
    path = Path(picture.name) if folder is None else folder / Path(picture.name).name
    try:
        image = decode(path.read_bytes())
    except OSError as error:
        picture.fault = f"not found: {error.strerror or error}"
        return
    except SettingError as error:
        picture.fault = str(error)
        return
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=_QUALITY)
    picture.data = f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode('ascii')}"


def _environment() -> Environment:
    # Answers are a model's: whatever they hold must stay text.
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"expected": _expected, "score": row_score}
    return environment


def _expected(row: LedgerRow) -> str:
    counts = Counter(row.answers)
    if len(row.answers) < 2:
        return row.label or "–"
    return ", ".join(
        f"{answer} ×{times}" if times > 1 else answer for answer, times in counts.most_common()
    )
