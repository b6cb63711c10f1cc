"""The push: only on request, private unless said otherwise. No hub is reached."""

from types import SimpleNamespace

import pytest
from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError

from lightning_llava.errors import SettingError
from lightning_llava.export import command, push
from lightning_llava.geometry import VisionGeometry
from lightning_llava.specs import VisionSpec


class Hub:
    """Stands in for HfApi."""

    def __init__(self, error=None):
        self.error, self.calls = error, []

    def create_repo(self, name, **options):
        self.calls.append(("create", name, options))
        if self.error:
            raise self.error

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        self.calls.append(("upload", repo_id, sorted(path.name for path in folder_path.iterdir())))
        return SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")


@pytest.fixture
def hub(monkeypatch):
    hub = Hub()
    monkeypatch.setattr(push, "HfApi", lambda: hub)
    return hub


@pytest.fixture
def exported(monkeypatch, tmp_path):
    """The command, with a format that writes one file."""
    trained = SimpleNamespace(vision=VisionSpec(), language=None)
    monkeypatch.setattr(command, "read_trained", lambda *_: trained)
    monkeypatch.setattr(command, "load_geometry", lambda *_: VisionGeometry(32, 8, 16))
    for name in ("ConversationEncoder", "write_card", "verify"):
        monkeypatch.setattr(command, name, lambda *_, **__: None)

    def writer(trained, encoder, folder, dtype, **_):
        (folder / "model.safetensors").write_text("weights")

    monkeypatch.setitem(command.FORMATS, "hf", writer)
    return ["--checkpoint", "x.ckpt", "--output", str(tmp_path / "out")]


def test_nothing_is_pushed_unasked(hub, exported, tmp_path):
    assert command.run(exported) == 0
    assert hub.calls == []
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model.safetensors"]


@pytest.mark.parametrize(("options", "private"), [([], True), (["--no-private"], False)])
def test_the_finished_folder_is_pushed(hub, exported, capsys, options, private):
    command.run([*exported, "--push-to-hub", "me/llava-saiga", *options])
    assert hub.calls == [
        ("create", "me/llava-saiga", {"private": private, "exist_ok": True}),
        ("upload", "me/llava-saiga", ["model.safetensors"]),
    ]
    assert "pushed: https://hub/me/llava-saiga/commit/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "error",
    [
        LocalTokenNotFoundError("Token is required, but no token found."),
        HTTPError("Connection refused: no token found."),
    ],
    ids=repr,
)
def test_a_push_that_fails_leaves_the_folder(hub, exported, tmp_path, error):
    hub.error = error
    with pytest.raises(SettingError, match=r"no token found.*hf auth login.*hf upload me/x "):
        command.run([*exported, "--push-to-hub", "me/x"])
    assert (tmp_path / "out" / "model.safetensors").exists()
