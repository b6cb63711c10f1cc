import json
import pickle

import pyarrow as arrow
import pytest
from pyarrow import parquet
from reader_results import divide, reasons, save, spoken

from lightning_llava.data.converters.refcoco import read_refcoco
from lightning_llava.data.converters.refusal import Unusable
from lightning_llava.data.converters.regions import Picture, place_region
from lightning_llava.data.converters.visual_genome import read_vg
from lightning_llava.errors import SettingError

PHRASE_OF = "Please provide a short description for this region: {}."
BOX_OF = "Please provide the bounding box coordinate of the region this sentence describes: {}"


@pytest.mark.parametrize(
    ("size", "corners", "padded", "image", "fractions"),
    [
        # 640 x 480: 80 pixels are padded above and below.
        (
            (640, 480),
            (64, 48, 320, 240),
            "[0.1, 0.2, 0.5, 0.5]",
            "[0.1, 0.1, 0.5, 0.5]",
            (0.1, 0.1, 0.5, 0.5),
        ),
        # 427 x 640: 106 pixels to the left, 107 to the right.
        (
            (427, 640),
            (0, 0, 427, 640),
            "[0.17, 0.0, 0.83, 1.0]",
            "[0.0, 0.0, 1.0, 1.0]",
            (0, 0, 1, 1),
        ),
        # Clipped on all sides.
        (
            (100, 100),
            (-5, 20.5, 130, 300),
            "[0.0, 0.2, 1.0, 1.0]",
            "[0.0, 0.2, 1.0, 1.0]",
            (0, 0.205, 1, 1),
        ),
    ],
)
def test_boxes_are_fractions_of_the_padded_square(size, corners, padded, image, fractions):
    picture = Picture("1", "1.jpg", *size)
    region = place_region("r", corners, "a cup", picture, "padded")
    assert region.written == padded
    assert place_region("r", corners, "a cup", picture, "image").written == image
    assert region.box.xyxy == pytest.approx(fractions)
    assert region.box.phrase == "a cup"


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ((700, 10, 800, 20), "is empty within 640 x 480"),
        ((10, 10, 10, 20), "is empty within 640 x 480"),
        ((20, 10, 10, 20), "is empty within 640 x 480"),
        ((10, 100, 11, 200), r"is \[0.02, 0.28, 0.02, 0.44\] in two decimals"),
    ],
)
def test_boxes_that_say_nothing(corners, message):
    with pytest.raises(Unusable, match=message):
        place_region("r", corners, "a cup", Picture("1", "1.jpg", 640, 480), "padded")


def region(region_id, phrase, x=64, y=48, width=256, height=192, image_id=1):
    box = {"x": x, "y": y, "width": width, "height": height}
    return {"region_id": region_id, "image_id": image_id, "phrase": phrase} | box


def entry(image_id, width=640, height=480, folder="VG_100K_2"):
    return {
        "image_id": image_id,
        "width": width,
        "height": height,
        "url": f"https://cs.stanford.edu/people/rak248/{folder}/{image_id}.jpg",
        "coco_id": None,
        "flickr_id": None,
    }


@pytest.fixture
def vg(tmp_path):
    def make(regions, pictures):
        return {
            "regions": save(tmp_path / "region_descriptions.json", regions),
            "image_data": save(tmp_path / "image_data.json", pictures),
        }

    return make


def check_pairs(draft, expected):
    """Compare with what each region must give, asked either way; count the ways."""
    texts = spoken(draft)
    texts[0] = texts[0].removeprefix("<image>\n")
    pairs = list(zip(texts[::2], texts[1::2], strict=True))
    forward = [
        pair == (PHRASE_OF.format(box), large)
        for pair, (_, large, box) in zip(pairs, expected, strict=True)
    ]
    backward = [
        pair == (BOX_OF.format(small), box)
        for pair, (small, _, box) in zip(pairs, expected, strict=True)
    ]
    assert all(a != b for a, b in zip(forward, backward, strict=True)), pairs
    return sum(forward), sum(backward)


def test_vg_asks_for_regions_in_their_order(vg):
    regions = [
        {"id": 1, "regions": [region(1382, "the clock is green "), region(1383, "Is it?", y=80)]},
        {"id": 2, "regions": [region(7, "{box} of a man.", image_id=2)]},
    ]
    files = vg(regions, [entry(1), entry(2, 480, 480, "VG_100K")])
    drafts, left_out = divide(read_vg(**files))
    assert not left_out
    assert [(draft.id, draft.images, draft.ids) for draft in drafts] == [
        ("1", ["VG_100K_2/1.jpg"], ["1382", "1383"]),
        ("2", ["VG_100K/2.jpg"], ["7"]),
    ]
    first = ("the clock is green.", "The clock is green.", "[0.1, 0.2, 0.5, 0.5]")
    check_pairs(drafts[0], [first, ("Is it?", "Is it?", "[0.1, 0.25, 0.5, 0.55]")])
    check_pairs(drafts[1], [("{box} of a man.", "{box} of a man.", "[0.13, 0.1, 0.67, 0.5]")])
    assert [box.phrase for box in drafts[0].boxes] == ["the clock is green", "Is it?"]
    assert drafts[0].boxes[0].xyxy == pytest.approx((0.1, 0.1, 0.5, 0.5))
    russian, _ = divide(read_vg(**files, prompt="ru", coordinates="image"))
    assert any("области" in text or "область" in text for text in spoken(russian[0]))
    assert "[0.1, 0.1, 0.5, 0.5]" in "".join(spoken(russian[0]))


def test_vg_asks_both_ways_and_takes_ten_regions_by_their_ids(vg):
    many = [region(n, f"cup {n}") for n in range(500)]
    files = vg([{"id": 1, "regions": many}], [entry(1)])
    parts, _ = divide(read_vg(**files, per_image="all"))
    assert [draft.id for draft in parts] == [f"1-{n}" for n in range(50)]
    assert [name for draft in parts for name in draft.ids] == [str(n) for n in range(500)]
    ways = [
        check_pairs(draft, [(f"cup {n}.", f"Cup {n}.", "[0.1, 0.2, 0.5, 0.5]") for n in draft.ids])
        for draft in parts
    ]
    assert 200 < sum(forward for forward, _ in ways) < 300
    (ten,), left_out = divide(read_vg(**files))
    assert not left_out
    assert ten.id == "1"
    assert len(ten.ids) == 10
    assert ten.ids == sorted(ten.ids, key=int) != [str(n) for n in range(10)]
    (again,), _ = divide(read_vg(**vg([{"id": 1, "regions": many[::-1]}], [entry(1)])))
    assert again.ids == ten.ids[::-1]
    assert set(spoken(again)[1::2]) == set(spoken(ten)[1::2])


def test_vg_names_what_is_left_out(vg):
    nan = region(5, "nowhere") | {"x": float("nan")}
    regions = [
        {"id": 1, "regions": [region(1, "cup"), region(2, " "), region(3, "far", x=640), nan]},
        {"id": 2, "regions": [region(4, "cup")]},
        {"id": 3, "regions": []},
        [],
        {"id": 4, "regions": [region(6, "cup") | {"width": "wide"}]},
    ]
    files = vg(regions, [entry(1), entry(2) | {"url": ""}, entry(3), entry(4)])
    (draft,), left_out = divide(read_vg(**files))
    assert draft.ids == ["1"]
    assert reasons(left_out) == [
        ("1, region 2", "conversation"),
        ("1, region 3", "record"),
        ("1, region 5", "record"),
        ("2", "record"),
        ("3", "record"),
        ("record 3", "record"),
        ("4, region 6", "record"),
    ]
    with pytest.raises(SettingError, match=r"object with id, regions; expected .*image_"):
        list(read_vg(files["regions"], files["regions"]))
    with pytest.raises(SettingError, match=r"expected Visual Genome's region_descriptions"):
        list(read_vg(files["image_data"], files["image_data"]))


def mdetr(*phrases):
    """COCO's form: one `images` entry a phrase."""
    images = [
        {
            "file_name": f"COCO_train2014_{image_id:012d}.jpg",
            "height": 480,
            "width": 640,
            "id": n,
            "original_id": image_id,
            "caption": caption,
            "dataset_name": "refcoco",
            "tokens_negative": [[0, 5]],
        }
        for n, (image_id, caption, _) in enumerate(phrases)
    ]
    annotations = [
        {
            "area": 1.0,
            "iscrowd": 0,
            "image_id": n,
            "category_id": 1,
            "id": n,
            "bbox": box,
            "original_id": 1719310,
            "tokens_positive": [[0, 5]],
        }
        for n, (_, _, boxes) in enumerate(phrases)
        for box in boxes
    ]
    return {"info": "", "licenses": [], "images": images, "annotations": annotations}


CUP = [64, 48, 256, 192]


def test_refcoco_merges_the_phrases_of_an_image(tmp_path):
    path = save(
        tmp_path / "finetune_refcoco_train.json",
        mdetr(
            (581857, "the lady with the blue shirt", [CUP]),
            (9, "cup", [[0, 0, 640, 480]]),
            (581857, "lady", [CUP]),
            (581857, "two boxes", [CUP, CUP]),
            (581857, "no box", []),
            (581857, "outside", [[640, 0, 5, 5]]),
            (581857, " ", [CUP]),
            *[(25, f"cup {n}", [CUP]) for n in range(11)],
        ),
    )
    drafts, left_out = divide(read_refcoco(path))
    assert [(draft.id, len(draft.boxes)) for draft in drafts] == [
        ("581857", 2),
        ("9", 1),
        ("25-0", 9),
        ("25-1", 2),
    ]
    assert drafts[0].images == ["COCO_train2014_000000581857.jpg"]
    assert drafts[0].ids == ["0", "2"]
    lady = "the lady with the blue shirt."
    large = "The lady with the blue shirt."
    box = "[0.1, 0.2, 0.5, 0.5]"
    check_pairs(drafts[0], [(lady, large, box), ("lady.", "Lady.", box)])
    check_pairs(drafts[1], [("cup.", "Cup.", "[0.0, 0.12, 1.0, 0.88]")])
    assert reasons(left_out) == [
        ("3", "record"),
        ("4", "record"),
        ("5", "record"),
        ("6", "conversation"),
    ]
    bare, _ = divide(read_refcoco(path, names="bare"))
    assert bare[0].images == ["000000581857.jpg"]


def test_refcoco_from_the_hub_has_corners_and_several_sentences(tmp_path):
    def sentence(sent_id, sent):
        return {"raw": sent.title(), "sent": sent, "sent_id": sent_id, "tokens": sent.split()}

    image = {
        "file_name": "COCO_train2014_000000581857.jpg",
        "width": 640,
        "height": 480,
        "id": 581857,
    }
    row = {
        "ref_id": 0,
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "sentences": [sentence(0, "the lady"), sentence(1, ""), sentence(2, "woman")],
        "raw_image_info": json.dumps(image),
        "bbox": [64.0, 48.0, 320.0, 240.0],
        "image_path": "coco/train2014/COCO_train2014_000000581857.jpg",
        "split": "train",
    }
    renamed = json.dumps(image | {"file_name": "saiapr_tc-12_1.jpg"})
    rows = [
        row,
        row | {"ref_id": 1, "raw_image_info": "{"},
        row | {"ref_id": 2, "sentences": []},
        row | {"ref_id": 3, "bbox": [1.0, 2.0]},
        row | {"ref_id": 4, "raw_image_info": renamed},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "train-00000.parquet")
    (draft,), left_out = divide(read_refcoco(tmp_path))
    assert (draft.id, draft.ids) == ("581857", ["0", "2"])
    assert draft.images == ["COCO_train2014_000000581857.jpg"]
    box = "[0.1, 0.2, 0.5, 0.5]"
    check_pairs(draft, [("the lady.", "The lady.", box), ("woman.", "Woman.", box)])
    assert reasons(left_out) == [
        ("1", "conversation"),
        *((str(n), "record") for n in range(1, 5)),
    ]


def test_refcoco_never_reads_the_original_pickle(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("unpickled",))

    for protocol in (0, 4):
        path = tmp_path / "refs(unc).p"
        path.write_bytes(pickle.dumps([Bomb()], protocol=protocol))
        with pytest.raises(SettingError, match=r"finetune_refcoco.*refs\(\*\)\.p is a pickle"):
            list(read_refcoco(path))
