"""What the preflight refuses, each case made by breaking one thing; and its tool."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from transformers import LlamaTokenizer

import lightning_llava.text
from lightning_llava.demo.tokens import train_tokenizer
from lightning_llava.errors import SettingError
from lightning_llava.specs import LanguageSpec
from lightning_llava.text.conversation import ConversationEncoder
from lightning_llava.text.preflight import (
    Example,
    check_conversation,
    check_encoder,
    preflight,
    summary_table,
)
from lightning_llava.text.template import load_template, template_names
from lightning_llava.text.tokenizer import load_tokenizer
from lightning_llava.text.turns import Turn
from runs import make_data, make_module, make_trainer

TEMPLATES = Path(lightning_llava.text.__file__).parent / "templates"
TOOL = Path(__file__).parents[2] / "tools" / "preflight.py"
COLOUR = [Turn("user", "<image>\nWhat color is it?"), Turn("assistant", "Red")]
HOW_MANY = [Turn("user", "Сколько чашек?"), Turn("assistant", "Две чашки")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A byte-level tokenizer that every template accepts."""
    path = tmp_path_factory.mktemp("byte_level")
    texts = ["What color is it? Red. A cat Yes No", "Сколько чашек? Две чашки"]
    tokenizer = train_tokenizer(texts)
    required = {token for name in template_names() for token in load_template(name).requires}
    tokenizer.add_tokens(sorted(required - set(tokenizer.get_vocab())), special_tokens=True)
    tokenizer.save_pretrained(path)
    return path


def encoder(folder, **settings):
    return ConversationEncoder(LanguageSpec(name=str(folder), **settings), image_tokens=4)


def changed(base, folder, tmp_path, **values):
    """Write a built-in template with other values, and load an encoder with it."""
    content = yaml.safe_load((TEMPLATES / f"{base}.yaml").read_text(encoding="utf-8"))
    text = yaml.safe_dump(content | values, allow_unicode=True)
    (tmp_path / "mine.yaml").write_text(text, encoding="utf-8")
    return encoder(folder, template=str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize("name", template_names())
def test_every_template_passes_and_is_summed_up(folder, name):
    turns = COLOUR if name == "plain" else [*COLOUR, *HOW_MANY]
    examples = [Example(f"s{i}", "vqa", "en", turns, 1) for i in range(3)]
    summaries = preflight(encoder(folder, template=name), examples)
    (summary,) = summaries.values()
    assert summary.samples == 3
    assert summary.words == 3 * (4 + 1 + (0 if name == "plain" else 2 + 2))
    assert summary.truncated == 0
    assert summary.learnt.strip().startswith("Red")
    assert summary_table(summaries).row_count == 1


def test_conversations_that_lose_turns_are_counted(folder):
    turns = [*COLOUR, Turn("user", "Again"), Turn("assistant", "Red " * 90)]
    examples = [Example("s", "vqa", "en", turns, 1), Example("t", "vqa", "en", COLOUR, 1)]
    short = encoder(folder, template="mistral_instruct", max_length=90)
    (summary,) = preflight(short, examples).values()
    assert (summary.samples, summary.truncated) == (2, 1)


def test_a_template_without_bos_is_refused(folder, tmp_path):
    with pytest.raises(SettingError, match=r"begins with the ids .* texts with one BOS \(1\)"):
        check_encoder(changed("mistral_instruct", folder, tmp_path, begin=""))


def test_a_template_with_two_bos_is_refused(folder, tmp_path):
    with pytest.raises(SettingError, match=r"begins with the ids \[1, 1\]"):
        check_encoder(changed("mistral_instruct", folder, tmp_path, begin="{bos}{bos}"))


def test_a_terminator_at_which_nothing_stops_is_refused(folder, tmp_path):
    with pytest.raises(SettingError, match=r"ends answers with the id \d+, but generation stops"):
        check_encoder(changed("chatml", folder, tmp_path, stop=["{eos}"]))


def test_other_ids_than_the_family_has_are_refused(folder, tmp_path):
    golden = {"any": [[1, 2, 3]]}
    with pytest.raises(SettingError, match=r"expected \[1, 2, 3\] among them, as in every any"):
        check_encoder(changed("mistral_instruct", folder, tmp_path, golden=golden))


def test_letters_that_the_tokenizer_lacks_are_refused(folder, tmp_path):
    state = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    # Byte-level tokenizers write the bytes of ASCII as themselves, and a space as Ġ.
    kept = {t: i for t, i in state["model"]["vocab"].items() if t.replace("Ġ", "").isascii()}
    state["model"] |= {"vocab": kept, "merges": []}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state), encoding="utf-8")
    config = (folder / "tokenizer_config.json").read_text(encoding="utf-8")
    (tmp_path / "tokenizer_config.json").write_text(config, encoding="utf-8")
    english = encoder(tmp_path, template="saiga_mistral", system="")
    with pytest.raises(SettingError, match="the tokenizer has no tokens for an answer"):
        check_conversation(english, HOW_MANY, 0)


@pytest.mark.parametrize("legacy", [True, False])
def test_auto_is_refused_where_the_tokenizer_itself_writes_other_ids(
    tokenizer_folder, tmp_path, legacy
):
    """Without `legacy`, SentencePiece's "▁" stands at the front of the text alone."""
    chat = (
        "{{ bos_token }}{% for m in messages %}"
        "{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
        "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    if legacy:
        tokenizer = load_tokenizer(LanguageSpec(name=str(tokenizer_folder)))
    else:
        tokenizer = LlamaTokenizer.from_pretrained(tokenizer_folder, legacy=False)
    tokenizer.chat_template = chat
    tokenizer.save_pretrained(tmp_path)
    auto = encoder(tmp_path, template="auto")
    if legacy:
        check_encoder(auto)
    else:
        with pytest.raises(SettingError, match="this tokenizer encodes its own chat template as"):
            check_encoder(auto)


class Broken:
    """An encoder whose labels are spoilt on the way out."""

    def __init__(self, inner, spoil):
        self.inner, self.spoil = inner, spoil

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def encode(self, turns, num_images):
        encoded = self.inner.encode(turns, num_images)
        ids, labels = encoded.input_ids.copy(), encoded.labels.copy()
        self.spoil(ids, labels)
        return replace(encoded, input_ids=ids, labels=labels)


def teach_the_prompt(ids, labels):
    labels[:] = ids
    labels[ids == -200] = -100


def teach_one_token_of_the_prompt(ids, labels):
    first = np.flatnonzero(labels != -100)[0]
    labels[first - 1] = ids[first - 1]


def forget_the_end(ids, labels):
    labels[-1] = -100


def forget_all(ids, labels):
    labels[:] = -100


def teach_something_else(ids, labels):
    labels[-2] += 1


def lose_the_image(ids, labels):
    ids[ids == -200] = 5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (teach_the_prompt, "2 supervised spans for 1 answers"),
        (teach_one_token_of_the_prompt, r"supervised is '.+ Red </s>', expected ' Red </s>'"),
        (forget_the_end, r"supervised is ' Red ', expected ' Red </s>'"),
        (forget_all, "0 supervised spans for 1 answers"),
        (teach_something_else, "labels differ from the ids"),
        (lose_the_image, "0 image placeholders in the ids, expected 1"),
    ],
)
def test_spoilt_labels_are_found(folder, spoil, said):
    broken = Broken(encoder(folder, template="mistral_instruct"), spoil)
    with pytest.raises(SettingError, match=said):
        check_conversation(broken, COLOUR, 1)


def test_the_first_bad_sample_is_shown(folder):
    examples = [
        Example("shard a.tar, sample 0", "vqa", "en", COLOUR, 1),
        Example("shard a.tar, sample 1", "vqa", "en", COLOUR, 2),
    ]
    with pytest.raises(SettingError, match=r"preflight, shard a\.tar, sample 1: 1 <image> .*What"):
        preflight(encoder(folder, template="mistral_instruct"), examples)


def test_fit_stops_before_the_first_step(demo_world, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "lightning_llava.text.preflight.decode_spans", lambda encoder, encoded: ["nonsense"]
    )
    trainer = make_trainer(tmp_path, max_steps=1)
    with pytest.raises(SettingError, match=r"preflight, shard .*captions-en-000000\.tar, sample 0"):
        trainer.fit(make_module(demo_world), make_data(demo_world, "train/captions-*.tar"))
    assert trainer.global_step == 0


def run_tool(folder, tmp_path, *flags):
    question = {"from": "human", "value": "<image>\nWhat color is it?"}
    talk, empty = [[question, {"from": "gpt", "value": answer}] for answer in ("Red", " ")]
    records = [
        {"id": "a", "image": "a.jpg", "conversations": talk},
        {"id": "b", "image": "a.jpg", "conversations": empty},
        {"id": "c", "conversations": talk},
        {"id": "d"},
    ]
    file = tmp_path / "records.json"
    file.write_text(json.dumps(records), encoding="utf-8")
    command = [sys.executable, TOOL, "--tokenizer", folder, "--conversations", file, *flags]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_tool_writes_one_object_per_record(folder, tmp_path):
    done = run_tool(folder, tmp_path, "--template", "vicuna_v1", "--json")
    assert done.returncode == 0
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    expected = encoder(folder, template="vicuna_v1").encode(COLOUR, 1)
    assert rows[0]["input_ids"] == expected.input_ids.tolist()
    assert rows[0]["input_ids"].count(-200) == 1
    assert rows[0]["labels"] == expected.labels.tolist()
    assert [row["error"].split(";")[0] for row in rows[1:]] == [
        "conversation: an answer is empty",
        "1 <image> placeholders in the user turns but 0 images",
        "record: no list of `conversations`",
    ]


def test_the_tool_shows_people_what_is_learnt(folder, tmp_path):
    done = run_tool(folder, tmp_path, "--template", "saiga_mistral", "--system", "")
    assert done.returncode == 1
    assert "<s>user\n[image]\nWhat color is it?</s><s>bot\n⟦Red</s>⟧" in done.stdout
    assert "refused: conversation: an answer is empty" in done.stdout
    assert "3 of 4 records are refused" in done.stdout


def test_the_tool_says_what_is_wrong_with_its_input(folder, tmp_path):
    done = run_tool(folder, tmp_path, "--template", "vicuna")
    assert done.returncode == 2
    assert done.stderr.startswith("error: model.language.template: no template 'vicuna'")
