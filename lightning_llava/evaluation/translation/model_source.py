"""Which model, and which of its versions: what the cache knows its translations by."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig

from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete, explain_loading, resolve

_PARTS = ("*.safetensors", "*.json", "*.spm", "*.model", "*.jinja", "*.txt")


@dataclass(frozen=True)
class ModelSource:
    """A folder or hub repository, and the option that named it."""

    written: str
    """`NAME` or `NAME@REVISION`, as the user wrote it."""
    setting: str
    device: str | None = None

    @cached_property
    def _parts(self) -> tuple[str, str | None]:
        name, at, revision = self.written.rpartition("@")
        if not at or Path(self.written).is_dir():
            name, revision = self.written, ""
        return resolve(name, self.setting), revision or None

    @cached_property
    def config(self) -> Any:
        """The model's config.

        Raises:
            SettingError: nothing is found under the name.
        """
        return self.load(AutoConfig)

    def load(self, kind: Any, **settings: Any) -> Any:
        """Load a part: an Auto class' `from_pretrained`, by safetensors, without the model's code.

        Raises:
            SettingError: it cannot be loaded.
        """
        name, revision = self._parts
        with explain_loading(self.written, self.setting):
            return kind.from_pretrained(
                name, revision=revision, trust_remote_code=False, **settings
            )

    def load_model(self, kind: Any) -> Any:
        """Load the model whole, ready to translate, on its device.

        Raises:
            SettingError: it cannot be loaded, or weights are missing.
        """
        model, info = self.load(
            kind, use_safetensors=True, dtype=self.dtype, output_loading_info=True
        )
        check_complete(info, self.written, self.setting)
        return model.eval().to(self.torch_device)

    @cached_property
    def version(self) -> str:
        """Name and commit of a repository; name and content hash of a folder, whatever its path."""
        name, revision = self._parts
        if not Path(name).is_dir():
            return f"{name}@{getattr(self.config, '_commit_hash', None) or revision or 'main'}"
        digest = hashlib.sha256()
        for path in sorted(file for part in _PARTS for file in Path(name).glob(part)):
            with path.open("rb") as handle:
                digest.update(path.name.encode() + hashlib.file_digest(handle, "sha256").digest())
        return f"{Path(name).name}@{digest.hexdigest()[:16]}"

    @cached_property
    def torch_device(self) -> torch.device:
        """Where to translate: None and `auto` are the first GPU, or without one the CPU."""
        if self.device not in (None, "auto"):
            try:
                return torch.device(self.device)
            except RuntimeError as error:
                reason = str(error).split(":")[0]
                raise SettingError(f"--device {self.device}: {reason}; try cpu or cuda") from error
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")

    @property
    def dtype(self) -> Any:
        """The checkpoint's own on a GPU, full precision on a CPU."""
        return torch.float32 if self.torch_device.type == "cpu" else "auto"
