"""tools/mini_*.py: what the mini backbones start from, learn from, and resume to."""

import re
import sys
from random import Random

import numpy as np
import pytest
import torch
from PIL import ImageDraw
from understanding import caption, exchanges, said, truth, understand

from lightning_llava.batch import IMAGE_TOKEN_INDEX
from lightning_llava.data.schema import Sample
from lightning_llava.demo import drawing, english, russian
from lightning_llava.demo.backbones import BACKBONES, PRETRAINED
from lightning_llava.demo.scenes import HELD_OUT_KINDS, SceneObject, generate, kinds_of
from lightning_llava.demo.words import HELD_OUT_WORDS, SHARED_SHAPES, WORDS
from lightning_llava.errors import SettingError
from lightning_llava.text.template import SHORT_ANSWER
from lightning_llava.text.turns import Turn
from tool_files import TOOLS

sys.path.insert(0, str(TOOLS))
import mini_clip
import mini_decoder
import mini_map
import mini_start
import mini_texts
import mini_tower
import mini_training


def attention(model, ids):
    with torch.no_grad():
        return model(input_ids=ids, output_attentions=True).attentions


@pytest.fixture
def learner():
    """Of two languages, with a decoder that has learned nothing."""
    torch.manual_seed(0)
    return mini_decoder.TextLearner(
        mini_start.build_decoder("mistral", 160, 1400),
        str(PRETRAINED / "mini_saiga"),
        "saiga_mistral",
        mini_decoder.BILINGUAL,
        1,
    )


@pytest.mark.parametrize(("family", "width"), [("llama", 135), ("mistral", 160)])
def test_the_first_layer_starts_by_looking_its_offsets_back(family, width):
    torch.manual_seed(0)
    model = mini_start.build_decoder(family, width, 500)
    first = attention(model, torch.randint(500, (16, 40)))[0]
    for head, offset in enumerate((1, 2, 3, 4, 5)):
        looked = torch.stack([first[:, head, at, :].roll(39 - at, -1) for at in range(10, 40)])
        assert 39 - int(looked.mean((0, 1)).argmax()) == offset


def test_the_other_layers_start_by_looking_for_the_same_words():
    torch.manual_seed(0)
    model = mini_start.build_decoder("mistral", 160, 500)
    ids = torch.stack([torch.randperm(500)[:40] for _ in range(64)])
    others = attention(model, ids)[1:]
    ids[:, 30:36] = ids[:, 15:21]
    for alike, other in zip(attention(model, ids)[1:], others, strict=True):
        assert alike[:, :, 35, 20].mean() > 2 * other[:, :, 35, 20].mean()


@pytest.mark.parametrize("wording", [english, russian], ids=lambda w: w.CODE)
def test_what_is_said_of_a_described_scene_is_so(wording):
    """Read back by the tests' own reader, which shares nothing with the package."""
    for index in range(60):
        scene = generate(3, index, "train")
        turns = mini_texts.conversation(scene, wording, wording, Random(index), 6)
        described, _, question = turns[0].text.partition("\n")
        assert described.startswith(wording.IN_WORDS.format(caption=""))
        turns[0] = Turn("user", question)
        sample = Sample(id="1", turns=turns, images=[], source="test", language=wording.CODE)
        for question, answer in exchanges(sample):
            if question != wording.DESCRIBE:
                asked = understand(question, wording.CODE)
                assert said(asked.topic, answer, wording.CODE) == truth(scene, asked)


@pytest.mark.parametrize("wording", [english, russian], ids=lambda w: w.CODE)
def test_a_map_says_what_lies_where(wording):
    for index in range(40):
        scene = generate(3, index, "train")
        cells = mini_map.map_of(scene, wording)
        named = {cell: text for cell, text in enumerate(cells) if text != mini_map.EMPTY}
        spelt = [text for text in named.values() if len(text) == 1]
        assert "".join(spelt) == (scene.word.text if scene.word else "")
        marked = {text: cell for cell, text in named.items() if text.startswith("1 ")}
        assert len(marked) == len(scene.objects)
        words = {cell: text.removeprefix("1 ") for cell, text in named.items() if len(text) > 1}
        things = {text: [] for text in words.values()}
        for cell, text in words.items():
            things[text].append(((cell % 8 + 0.5) / 8, (cell // 8 + 0.5) / 8))
        said = {caption(f"{text}.", wording.CODE)[0][0] for text in things}
        assert said == {(o.size, *o.kind, o.cell) for o in scene.objects}
        for thing in scene.objects:
            left, top, right, bottom = drawing.object_extent(thing)
            text = f"{wording.describe(thing)} {wording.place(thing.cell)}"
            across, down = zip(*things[text], strict=True)
            row, column = divmod(marked[f"1 {text}"], 8)
            assert column / 8 <= (left + right) / 2 < (column + 1) / 8
            assert row / 8 <= (top + bottom) / 2 < (row + 1) / 8
            # The middle of what is named is the middle of the thing, to a place's width.
            assert abs(sum(across) / len(across) - (left + right) / 2) < 1 / 8
            assert abs(sum(down) / len(down) - (top + bottom) / 2) < 1 / 8


def test_letters_in_any_order_are_the_words_letters_and_no_held_out_word():
    scenes = [generate(1, index, "train") for index in range(400)]
    spelt = [scene for scene in scenes if scene.word is not None]
    shuffled = [mini_map.respelt(scene, Random(scene.index)) for scene in spelt]
    for before, after in zip(spelt, shuffled, strict=True):
        assert sorted(before.word.text) == sorted(after.word.text)
        assert after.word.text not in HELD_OUT_WORDS
        assert (after.objects, after.word.row) == (before.objects, before.word.row)
    different = sum(a.word.text != b.word.text for a, b in zip(spelt, shuffled, strict=True))
    assert different > 0.8 * len(spelt)
    wordless = next(scene for scene in scenes if scene.word is None)
    assert mini_map.respelt(wordless, Random(0)) == wordless


def test_words_spelt_at_random_are_of_their_script_and_no_words_of_the_world():
    scenes = [generate(1, index, "train") for index in range(400)]
    printed = [scene for scene in scenes if scene.word is not None]
    anew = [mini_map.spelt_at_random(scene, Random(scene.index)) for scene in printed]
    known = {word: script for script, words in WORDS.items() for word in words}
    letters = {script: set("".join(words)) for script, words in WORDS.items()}
    for before, after in zip(printed, anew, strict=True):
        script, text = known[before.word.text], after.word.text
        assert set(text) <= letters[script]
        assert not set(text) <= set(SHARED_SHAPES[script])
        assert text not in HELD_OUT_WORDS
        assert len(text) == len(before.word.text)
        assert (after.objects, after.word.row) == (before.objects, before.word.row)
    used = {letter for scene in anew for letter in scene.word.text}
    assert used == letters["latin"] | letters["cyrillic"]
    wordless = next(scene for scene in scenes if scene.word is None)
    assert mini_map.spelt_at_random(wordless, Random(0)) == wordless


def test_the_parts_of_a_picture_say_which_patch_is_in_the_middle():
    """Of an object, and which letter's, as the maps that the decoders read."""
    for index in range(40):
        scene = generate(3, index, "train")
        cells = mini_map.map_of(scene, english)
        seen = {"middle": 0, "letter": 0}
        patches = {thing.cell: set() for thing in scene.objects}
        for part in mini_tower.parts_of(scene):
            if "middle" in part.phrases:
                (thing,) = (
                    o for o in scene.objects if english.PLACES[o.cell] == part.phrases["place"]
                )
                said = (part.phrases["size"], part.phrases["colour"], part.phrases["shape"])
                assert said == (thing.size, *thing.kind)
                patches[thing.cell].add(int(part.patches.argmax()))
            for kind in seen.keys() & part.phrases.keys():
                assert sorted(part.patches)[-2:] == [0, 1]
                text, phrase = cells[int(part.patches.argmax())], part.phrases[kind]
                seen[kind] += phrase != mini_map.EMPTY
                if kind == "letter":
                    assert phrase == text
                else:
                    assert (phrase == "1") == text.startswith("1 ")
        for thing in scene.objects:
            extent = drawing.object_extent(thing)
            covered = set(np.flatnonzero(mini_map.coverage(extent) >= mini_map.COVERED))
            assert patches[thing.cell] == covered | {mini_map.middle(extent)}
        assert seen["middle"] == len(scene.objects)
        assert seen["letter"] == (len(scene.word.text) if scene.word else 0)


def test_a_map_is_where_a_picture_would_be(learner):
    """And its embeddings are sums of those of its words."""
    first = 2 * mini_decoder.LESSON
    talk = next(
        talk for number in range(first, first + 50) if (talk := learner.example(number)).cells
    )
    assert len(talk.cells) == 64
    ids, labels, places = mini_decoder.padded([talk], mini_decoder.MAP_LENGTH)
    before = list(talk.encoded.input_ids).index(IMAGE_TOKEN_INDEX)
    assert places == [(0, before + i) for i in range(64)]
    assert list(ids[0, :before]) == list(talk.encoded.input_ids[:before])
    after = talk.encoded.input_ids[before + 1 :]
    assert list(ids[0, before + 64 : before + 64 + len(after)]) == list(after)
    assert list(labels[labels >= 0]) == [label for label in talk.encoded.labels if label >= 0]
    table = learner.model.get_input_embeddings().weight
    expected = torch.stack([sum(table[word] for word in cell) for cell in talk.cells])
    assert torch.allclose(learner._sums(talk.cells), expected, atol=1e-6)


def test_lessons_come_one_language_after_the_other(learner):
    decode = learner.encoders[0].tokenizer.decode
    for lesson, wording in enumerate((english, russian)):
        talks = [learner.example(lesson * mini_decoder.LESSON + i) for i in range(20)]
        opening = wording.IN_WORDS.partition(" {")[0]
        assert all(opening in decode(talk.encoded.input_ids) for talk in talks)


def test_maps_are_asked_about_as_pictures_are(learner):
    """Behind the system text and for short answers, most of them; descriptions seldom."""
    decode = learner.encoders[0].tokenizer.decode
    first = 2 * mini_decoder.LESSON
    talks = [learner.example(first + i) for i in range(3 * mini_decoder.BATCH)]
    shares = {}
    for kind, chosen in (
        ("maps", [talk for talk in talks if talk.cells]),
        ("text", [talk for talk in talks if not talk.cells]),
    ):
        written = [decode(talk.encoded.input_ids.clip(0)) for talk in chosen]
        asked = [SHORT_ANSWER[code].strip() for code in ("en", "ru")]
        shares[kind] = (
            len(chosen) / len(talks),
            sum("Сайга" in text for text in written) / len(written),
            sum(any(prompt in text for prompt in asked) for text in written) / len(written),
        )
    assert shares["maps"][0] == 5 / 8
    # What does not fit behind the system text goes without.
    assert shares["maps"][1] > 0.6 > 0.3 > shares["text"][1]
    assert shares["maps"][2] > 0.4 > 0.3 > shares["text"][2]


def test_nothing_held_out_is_said_in_training(learner):
    """In a lesson or behind them, in sentences or in maps, in either language."""
    decode = learner.encoders[0].tokenizer.decode
    first = 2 * mini_decoder.LESSON
    talks = [learner.example(number) for number in (*range(100), *range(first, first + 400))]
    said = [decode(talk.encoded.input_ids.clip(0)) for talk in talks]
    said += [decode(cell) for talk in talks for cell in talk.cells or []]
    everything = " ".join(said)

    def named(kinds):
        things = [SceneObject(kind, size, 0) for kind in kinds for size in ("small", "large")]
        phrases = {w.describe(thing) for w in (english, russian) for thing in things}
        return {phrase for phrase in phrases if phrase in everything}

    assert len(named(kinds_of("train"))) > 100
    assert not named(HELD_OUT_KINDS)
    written = set(re.findall(r'["«](\w+)["»]', everything))
    assert len(written & set(WORDS["cyrillic"])) > 20 < len(written & set(WORDS["latin"]))
    assert not written & HELD_OUT_WORDS


def test_letters_are_where_their_ink_is():
    """Each letter's box holds the ink that the letter adds to the word's beginning."""
    scenes = (generate(0, i, "validation") for i in range(60))
    for scene in [scene for scene in scenes if scene.word is not None]:
        side = drawing.IMAGE_SIZE
        boxes = list(mini_map.letters_of(scene.word))
        assert "".join(letter for letter, _ in boxes) == scene.word.text
        picture = drawing.draw(scene)
        left, top, right, bottom = (edge * side for edge in drawing.word_extent(scene.word))
        assert abs(boxes[0][1][0] * side - left) < 3
        assert abs(boxes[-1][1][2] * side - right) < 3
        for _, box in boxes:
            inside = np.asarray(
                picture.crop(tuple(round(edge * side) for edge in box)).convert("L")
            )
            assert inside.min() < 80  # ink; all backgrounds are light
        pen = ImageDraw.Draw(picture)
        for _, box in boxes:
            pen.rectangle(
                [box[0] * side - 1, box[1] * side - 1, box[2] * side + 1, box[3] * side + 1],
                "white",
            )
        rest = np.asarray(picture.convert("L"))[round(top) : round(bottom)]
        assert rest[:, round(left) : round(right)].min() > 80  # nothing of the word is outside


def test_shares_of_a_box_by_hand():
    # A box of 16 x 32 pixels from (8, 0): half of its width in each of the first two columns.
    shares = mini_map.shares((8 / 128, 0.0, 24 / 128, 32 / 128)).reshape(8, 8)
    expected = np.zeros((8, 8), np.float32)
    expected[:2, :2] = 0.25
    np.testing.assert_allclose(shares, expected, atol=1e-6)


def test_rescaled_features_are_of_size_one_and_say_the_same():
    torch.manual_seed(0)
    clip = mini_clip.build_tower(1400, 5).eval()
    with torch.no_grad():
        clip.vision_model.pre_layrnorm.weight.mul_(30)
    pixels = torch.randn(4, 3, 128, 128)

    def see():
        with torch.no_grad():
            seen = clip.vision_model(pixels, output_hidden_states=True)
            return seen.hidden_states[-2][:, 1:], clip.visual_projection(seen.pooler_output)

    features, pictures = see()
    mini_clip.rescale_features(clip, pixels)
    rescaled, same = see()
    assert rescaled.pow(2).mean().sqrt().item() == pytest.approx(1, abs=1e-3)
    assert torch.allclose(rescaled * features.pow(2).mean().sqrt(), features, rtol=1e-3, atol=1e-2)
    assert torch.allclose(same, pictures, atol=1e-3)


class Line:
    """A learner that is a line: what `train` needs and no more."""

    def __init__(self):
        torch.manual_seed(0)
        self.module = torch.nn.Sequential()
        self.module.add_module("layers", torch.nn.Sequential(torch.nn.Linear(3, 3)))
        self.module = torch.nn.Sequential(self.module, torch.nn.Linear(3, 1))
        self.seed, self.stop_at = 0, None

    def learn(self, step):
        if step == self.stop_at:
            raise KeyboardInterrupt
        draw = torch.Generator().manual_seed(step)
        x = torch.randn(8, 3, generator=draw)
        loss = (self.module(x) - x.sum(1, keepdim=True)).pow(2).mean()
        loss.backward()
        return loss.item()

    def scores(self):
        return {}


def test_a_training_that_was_interrupted_ends_as_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.setattr(mini_training, "SAVE_EVERY", 5)
    rates = mini_training.Rates()
    whole, broken, resumed = Line(), Line(), Line()
    mini_training.train(whole, 20, rates, tmp_path / "whole.ckpt", 100)
    broken.stop_at = 12
    with pytest.raises(KeyboardInterrupt):
        mini_training.train(broken, 20, rates, tmp_path / "broken.ckpt", 100)
    mini_training.train(resumed, 20, rates, tmp_path / "broken.ckpt", 100)
    for one, other in zip(whole.module.parameters(), resumed.module.parameters(), strict=True):
        assert torch.equal(one, other)
    for steps, other_rates in ((19, rates), (20, mini_training.Rates(others=1e-3))):
        with pytest.raises(SettingError, match=r"broken.ckpt is of a training with .*'steps': 20"):
            mini_training.train(Line(), steps, other_rates, tmp_path / "broken.ckpt", 100)


def test_the_rate_goes_up_stays_and_comes_down_to_nothing():
    factors = [mini_training.factor(step, 1000) for step in range(1000)]
    assert factors[0] == 1 / 50
    assert factors[49:700] == [1.0] * 651
    assert factors[850] == pytest.approx(0.5)
    assert factors[999] == pytest.approx(1 / 300)


def test_what_ships_is_small_and_no_pickle():
    files = [path for path in PRETRAINED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 25e6
    assert {path.suffix for path in files} == {".json", ".md", ".safetensors"}
    assert sorted(path.name for path in PRETRAINED.iterdir()) == sorted(BACKBONES)
    for name in BACKBONES:
        assert "python tools/mini_backbones.py" in (PRETRAINED / name / "README.md").read_text()
