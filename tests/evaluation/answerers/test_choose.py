import re

import pytest

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.choose import choose_kind


def test_a_misspelt_run_folder_is_not_looked_for_on_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs" / "version_0" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    asked = "transformers.AutoConfig.from_pretrained"
    monkeypatch.setattr(asked, lambda *_, **__: pytest.fail("the hub was asked"))
    with pytest.raises(SettingError, match=re.escape("did you mean runs/version_0?")):
        choose_kind("runs/version_9", None, None)


def test_a_hub_name_is_still_one_beside_run_folders(tmp_path, monkeypatch):
    (tmp_path / "version_0" / "checkpoints").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match="could not load 'llava-hf/none'"):
        choose_kind("llava-hf/none", None, None)
