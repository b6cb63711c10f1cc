import re

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete, explain_loading, resolve


@pytest.mark.parametrize("name", ["openai/clip-vit-large-patch14-336", "gpt2"])
def test_hub_names_stay(name):
    assert resolve(name, "model.language.name") == name


def test_folders_are_found(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(str(tmp_path / "models"), "x") == str(tmp_path / "models")
    assert resolve("models/mine", "x") == "models/mine"
    assert resolve("~/models/mine", "x") == str(tmp_path / "models/mine")


@pytest.mark.parametrize("name", ["/models/min", "./models/min", "~/models/min", "a/b/min"])
def test_what_is_spelt_like_a_folder_must_be_one(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = re.escape(f"model.vision.name: the folder '{name}' does not exist; give an existing")
    with pytest.raises(SettingError, match=expected):
        resolve(name, "model.vision.name")


def test_a_misspelt_folder_brings_the_nearest_folder(tmp_path):
    (tmp_path / "mini_saiga").mkdir()
    (tmp_path / "mini_saigal.txt").touch()
    expected = re.escape(f"did you mean {tmp_path / 'mini_saiga'}? If not, give")
    with pytest.raises(SettingError, match=expected):
        resolve(str(tmp_path / "mini_saigal"), "model.language.name")


def load(name, error):
    with explain_loading(name, "model.language.name"):
        raise error


@pytest.mark.parametrize("kind", [OSError, ValueError, KeyError, ImportError])
def test_the_first_line_of_a_long_error_is_kept(kind):
    with pytest.raises(SettingError) as raised:
        load("no/model", kind("\n  nothing there\nlong explanation"))
    text = str(raised.value)
    assert text.startswith("model.language.name: could not load 'no/model' (")
    assert "nothing there" in text
    assert text.endswith("check the spelling, or give a folder that holds the files")
    if kind is not KeyError:  # its text is the repr of its argument
        assert "long explanation" not in text


def test_a_line_that_announces_others_is_kept_with_them():
    with pytest.raises(SettingError, match=r"\(There is none of: \(1\) this, \(2\) that\)"):
        load("no/model", ValueError("There is none of:\n (1) this,\n (2) that\n"))


def test_an_error_without_text_is_named_by_its_class():
    with pytest.raises(SettingError, match=re.escape("(OSError)")):
        load("no/model", OSError())


def test_a_one_slash_name_may_have_meant_a_folder(tmp_path, monkeypatch):
    (tmp_path / "models" / "mine").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=re.escape("did you mean models/mine? If not, check")):
        load("models/mime", OSError("offline"))


def test_sentences_pass_and_bugs_keep_their_class():
    with pytest.raises(SettingError, match=r"^the sentence$"):
        load("x", SettingError("the sentence"))
    with pytest.raises(TypeError, match=r"^ours$"):
        load("x", TypeError("ours"))


@pytest.mark.parametrize(
    ("missing", "mismatched", "said"),
    [
        (["b", "a"], [], "'m' lacks 2 weights of its own architecture (first: a)"),
        ([], [("w", 1, 2)], "'m' lacks 1 weights of its own architecture (first: ('w', 1, 2))"),
    ],
)
def test_weights_that_would_stay_random_are_refused(missing, mismatched, said):
    info = {"missing_keys": missing, "mismatched_keys": mismatched}
    with pytest.raises(SettingError, match=re.escape(f"model.vision.name: {said}")):
        check_complete(info, "m", "model.vision.name")


def test_complete_weights_pass():
    check_complete({"missing_keys": [], "mismatched_keys": []}, "m", "model.vision.name")
