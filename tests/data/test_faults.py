"""Everything that can be wrong with shards at once: a run, and exactly the samples left."""

import io
import json
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from handmade import picture, record, says, write_tar
from lightning import Callback
from lightning.pytorch.loggers import TensorBoardLogger
from PIL import Image

from lightning_llava.callbacks import Faults, SampleLog
from lightning_llava.data.storage import ShardStorage
from lightning_llava.errors import SettingError
from runs import make_data, make_module, make_trainer


def pair(key: str, image: bytes | None = None, kind: str = "png", name: str | None = None):
    """Return a record and its picture, as two members."""
    turns = says(f"<image>\nWhat is {key}?", f"It is {key}.")
    image = picture(len(key)) if image is None else image
    return (f"{key}.json", record(name or key, turns, 1)), (f"{key}.{kind}", image)


def encode(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def odd_pictures():
    """Pictures of unusual kinds that are none the worse for it."""
    colours = Image.fromarray(
        np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    )
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    frames = {"save_all": True, "append_images": [colours.rotate(90, expand=False)]}
    yield "cmyk", "jpg", encode(colours.convert("CMYK"), "JPEG")
    yield "palette", "png", encode(colours.quantize(16), "PNG")
    yield "sixteen_bits", "png", encode(Image.fromarray(np.full((9, 9), 40_000, np.uint16)), "PNG")
    yield "animated", "webp", encode(colours, "WEBP", **frames)
    yield "turned", "jpg", encode(colours, "JPEG", exif=exif)
    yield "one_pixel", "png", encode(Image.new("RGB", (1, 1), "red"), "PNG")
    yield "very_long", "png", encode(Image.new("RGB", (3000, 1), "red"), "PNG")


def cut(path: Path, where: int) -> None:
    path.write_bytes(path.read_bytes()[:where])


@pytest.fixture
def shards(tmp_path):
    """Shards by name, and the ids of all that a run has, the last five of them as blanks."""
    folder = tmp_path / "shards"
    folder.mkdir()
    good = [f"good{i}" for i in range(6)]
    write_tar(folder / "good.tar", *[m for key in good for m in pair(key)])
    odd = list(odd_pictures())
    write_tar(folder / "odd.tar", *[m for key, kind, image in odd for m in pair(key, image, kind)])
    # Cut in the picture of the third pair: header, record, header are before it.
    path = write_tar(folder / "cut.tar", *[m for key in ("c0", "c1", "c2") for m in pair(key)])
    cut(path, path.read_bytes().index(b"c2.png") + 512 + 100)
    # Cut between members: the record is there, its picture is not, and no end either.
    path = write_tar(folder / "boundary.tar", *[m for key in ("b0", "b1") for m in pair(key)])
    cut(path, path.read_bytes().index(b"b1.png"))
    path = write_tar(folder / "garbage.tar", *[m for key in ("g0", "g1") for m in pair(key)])
    content = bytearray(path.read_bytes())
    at = content.index(b"g1.json")
    content[at : at + 512] = b"\x07" * 512
    path.write_bytes(bytes(content))
    apart = pair("apart")
    write_tar(
        folder / "mixed.tar",
        apart[0],
        *pair("twice"),
        *pair("fine"),
        ("broken.json", b'{"version": 1, '),
        ("broken.png", picture(1)),
        ("name\udcff.json", b"{}"),  # no UTF-8
        ("half.json", record("half", says("Why?", "So."), version="\ud800")),
        *pair("img.v1"),
        pair("no_picture")[0],
        *pair("empty", b""),
        *pair("text", b"no picture at all"),
        ("code.pyd", b"\x80\x04."),
        *pair("twice"),
        apart[1],
    )
    half = picture(5, (60, 60))
    write_tar(folder / "undecodable.tar", *pair("u0"), *pair("u1", half[: len(half) // 2]))
    write_tar(folder / "vanishing.tar", *pair("v0"), *pair("v1"))
    write_tar(folder / "changing.tar", *pair("h0"), *pair("h1"))
    usable = [*good, *[key for key, *_ in odd], "c0", "c1", "b0", "g0", "apart", "fine", "u0"]
    substituted = ["undecodable.tar/u1"]
    substituted += [
        f"{s}.tar/{k}{i}" for s, k in (("vanishing", "v"), ("changing", "h")) for i in (0, 1)
    ]
    return folder, [f"faulty/{name}" for name in (*usable, *substituted)]


class Trouble(Callback):
    """One shard goes, one is written anew, when everything has been planned."""

    def __init__(self, folder):
        self.folder = folder

    def on_train_start(self, trainer, pl_module):
        (self.folder / "vanishing.tar").unlink()
        write_tar(self.folder / "changing.tar", *pair("h0", picture(77)), *pair("h1"))


@pytest.fixture
def flaky(monkeypatch):
    """Every third read fails, and so does the next: two in five, never four in a row."""
    read, calls = ShardStorage.read_parts, Counter()

    def unsteady(self, shard, extents, stamp=None):
        calls["all"] += 1
        if calls["all"] % 5 in (3, 4):
            calls["failed"] += 1
            raise OSError("the network went away")
        return read(self, shard, extents, stamp)

    monkeypatch.setattr(ShardStorage, "read_parts", unsteady)
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    return calls


def run(world, folder, root, **settings):
    sources = {"faulty": type(make_data(world).sources["demo"])(shards=str(folder / "*.tar"))}
    settings = {"sources": sources, "preflight": 0, "sample_log": True, "num_workers": 0} | settings
    trainer = make_trainer(
        root,
        max_steps=-1,
        callbacks=[Faults(), SampleLog(), Trouble(folder)],
        logger=TensorBoardLogger(root, name="", version=0),
    )
    data = make_data(world, **settings)
    trainer.fit(make_module(world), data)
    return data


def lines(root, name):
    text = (root / "version_0" / name).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_all_faults_together_leave_exactly_the_good_samples(demo_world, shards, flaky, tmp_path):
    folder, expected = shards
    data = run(demo_world, folder, tmp_path)
    assert flaky["failed"] > 5
    trained = lines(tmp_path, "samples.rank0.jsonl")
    packs = data.dataset.plan.num_packs(0)
    assert [line["micro_batch"] for line in trained] == list(range(packs))
    assert sorted(i for line in trained for i in line["sample_ids"]) == sorted(expected)
    found = Counter(
        Path(line["problem"].split(",")[0]).name for line in lines(tmp_path, "faults.rank0.jsonl")
    )
    assert found == {"undecodable.tar": 1, "vanishing.tar": 2, "changing.tar": 2}
    left_out = {(Path(one["shard"]).name, one["key"]) for one in lines(tmp_path, "left_out.jsonl")}
    assert left_out == {
        ("cut.tar", "c2"),
        ("cut.tar", ""),
        ("boundary.tar", "b1"),
        ("boundary.tar", ""),
        ("garbage.tar", ""),
        ("mixed.tar", "twice"),
        ("mixed.tar", "broken"),
        ("mixed.tar", "name\udcff"),
        ("mixed.tar", "half"),
        ("mixed.tar", "img"),  # of img.v1.png, by webdataset's rule
        ("mixed.tar", "no_picture"),
        ("mixed.tar", "empty"),
        ("mixed.tar", "text"),
    }


def test_too_much_that_cannot_be_read_stops_the_run(demo_world, shards, flaky, tmp_path):
    """One in a thousand, of a thousand at least: the second one is too many."""
    message = (
        r"2 of \d+ samples could not be read, more than data\.max_bad_fraction \(0\.001\) allows.*"
        r"faults\.\*\.jsonl; mend the shards.*--ckpt_path"
    )
    with pytest.raises(SettingError, match=message):
        run(demo_world, shards[0], tmp_path, max_bad_fraction=0.001, pack_tokens=100)
