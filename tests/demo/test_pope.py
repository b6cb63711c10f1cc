import json
from collections import Counter

import pytest
import understanding

from lightning_llava.demo import english, pope, russian
from lightning_llava.demo.scenes import HELD_OUT_KINDS, KINDS, generate
from lightning_llava.evaluation.benchmarks import load_benchmark
from lightning_llava.specs import BenchmarkSpec


@pytest.fixture(scope="module")
def popularity(spoken):
    """In how many pictures each kind is, counted in the captions of the training records."""
    counted = Counter()
    for sample in spoken["train", "captions", "en"]:
        things, _ = understanding.caption(sample.turns[1].text, "en")
        counted.update({(colour, shape) for _, colour, shape, _ in things})
    return counted


@pytest.fixture(scope="module")
def asked(scenes, popularity):
    return {
        split: pope.questions(split, scenes["validation"], popularity, seed=0)
        for split in pope.POPE_SPLITS
    }


def rows(folder, language, split):
    file = folder / "pope" / language / f"demo_pope_{split}.json"
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def by_scene(pairs):
    """Gather, per picture, the kinds asked about: (present, absent)."""
    gathered = {}
    for scene, question in pairs:
        yes, no = gathered.setdefault(scene, ([], []))
        (yes if question.answer else no).append((question.colour, question.shape))
    return gathered


def test_frequencies_count_pictures(scenes, popularity):
    assert pope.frequencies(scenes["train"]) == popularity


def test_every_picture_is_balanced_and_every_label_right(asked, scenes):
    for pairs in asked.values():
        gathered = by_scene(pairs)
        assert list(gathered) == scenes["validation"]
        for scene, (present, absent) in gathered.items():
            there = {tuple(thing.kind) for thing in scene.objects}
            assert len(present) == len(absent) == min(3, len(there))
            assert set(present) <= there
            assert there.isdisjoint(absent)
            assert len({*present, *absent}) == len(present) + len(absent)


def test_present_objects_are_the_same_in_all_splits(asked):
    first, *others = (
        {scene: present for scene, (present, _) in by_scene(pairs).items()}
        for pairs in asked.values()
    )
    assert all(other == first for other in others)


def test_popular_asks_for_the_most_frequent_absent_kinds(asked, popularity):
    for scene, (_, absent) in by_scene(asked["popular"]).items():
        others = set(KINDS) - set(scene.kinds) - set(absent)
        assert min(popularity[k] for k in absent) >= max(popularity[k] for k in others)


def test_adversarial_asks_for_kinds_that_share_a_colour_or_a_shape(asked):
    chances, taken = Counter(), Counter()
    for scene, (_, absent) in by_scene(asked["adversarial"]).items():
        overlap = {
            kind: sum(bool(set(kind) & set(present)) for present in scene.kinds) for kind in KINDS
        }
        assert all(overlap[kind] for kind in absent)
        chances.update(n for kind, n in overlap.items() if kind not in scene.kinds)
        taken.update(overlap[kind] for kind in absent)
    # A kind that looks like two of the objects comes with two tickets.
    assert taken[2] / chances[2] > 1.5 * taken[1] / chances[1]


def test_random_asks_for_any_absent_kind(asked):
    absent = [kind for _, no in by_scene(asked["random"]).values() for kind in no]
    assert set(absent) == set(KINDS) > HELD_OUT_KINDS
    apart = sum(
        not any(set(kind) & set(present) for present in scene.kinds)
        for scene, (_, no) in by_scene(asked["random"]).items()
        for kind in no
    )
    assert apart > len(absent) / 4


def test_another_seed_asks_otherwise(asked, scenes, popularity):
    again = pope.questions("random", scenes["validation"], popularity, seed=0)
    assert again == asked["random"]
    assert pope.questions("random", scenes["validation"], popularity, seed=1) != again


@pytest.mark.parametrize("split", pope.POPE_SPLITS)
@pytest.mark.parametrize("language", ["en", "ru"])
def test_files_have_the_published_format(folder, split, language):
    published = rows(folder, language, split)
    half = len(published) / 2
    assert [row["question_id"] for row in published] == list(range(1, len(published) + 1))
    assert Counter(row["label"] for row in published) == {"yes": half, "no": half}
    for row in published:
        assert list(row) == ["question_id", "image", "text", "label"]
        meant = understanding.understand(row["text"], language)
        assert meant.topic == "exists"
        scene = generate(5, int(row["image"].removesuffix(".png").split("_")[-1]), "validation")
        assert understanding.truth(scene, meant) == (row["label"] == "yes")
    assert len({row["image"] for row in published}) == 12


def test_both_languages_ask_the_same(folder):
    for split in pope.POPE_SPLITS:
        english_rows, russian_rows = (
            [
                (row["image"], row["label"], understanding.understand(row["text"], language))
                for row in rows(folder, language, split)
            ]
            for language in ("en", "ru")
        )
        assert english_rows == russian_rows


@pytest.mark.parametrize("language", ["en", "ru"])
def test_the_evaluation_reads_them(folder, language):
    files = {
        split: str(folder / "pope" / language / f"demo_pope_{split}.json")
        for split in pope.POPE_SPLITS
    }
    spec = BenchmarkSpec(files=files, images=str(folder / "images"), language=language)
    loaded = load_benchmark("pope", spec)
    assert {question.split for question in loaded} == set(pope.POPE_SPLITS)
    assert all(question.image.is_file() for question in loaded)
    assert {question.label for question in loaded} == {"yes", "no"}


def test_lines_end_as_published(tmp_path, scenes, popularity):
    some = scenes["validation"][:1]
    questions = pope.questions("random", some, popularity, seed=0)
    for wording in (english, russian):
        pope.write(tmp_path / "new" / wording.CODE, questions, wording)
        written = (tmp_path / "new" / wording.CODE).read_bytes()
        assert written.count(b"\n") == len(questions)
        assert b"\r" not in written
        assert b"\\u" not in written
