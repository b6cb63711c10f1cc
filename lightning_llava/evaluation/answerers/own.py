"""This project's checkpoints, without a trainer."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import yaml

from lightning_llava.data.images import ImageTransform
from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.fingerprints import (
    fingerprint,
    hash_files,
    hash_folder,
    local_folder,
)
from lightning_llava.evaluation.benchmarks import Question
from lightning_llava.evaluation.loader import QuestionDataset, question_turns
from lightning_llava.geometry import load_geometry
from lightning_llava.models.checkpoint import with_defaults
from lightning_llava.models.grouped import answer_group
from lightning_llava.models.llava import Llava
from lightning_llava.models.precision import drop_adapter_casts
from lightning_llava.models.trained import build_trained, read_trained
from lightning_llava.settings import flatten
from lightning_llava.specs import GenerationSpec, LanguageSpec, VisionSpec
from lightning_llava.text.conversation import ConversationEncoder

ARCHITECTURE = ("vision", "projector", "language", "lora")
IMAGES = ("image_mode", "image_backend")

Settings = dict[str, Any]


class OwnCheckpoint:
    """A checkpoint of `fit`; what it was trained with is read out of it.

    Args:
        checkpoint: a `.ckpt`.
        device: on a GPU it computes in bf16, as `validate` does in bf16-mixed.
        max_new_tokens: longest answer; None takes that of the run's config.yaml.
        at_once: most questions in a pass.

    Raises:
        SettingError: no checkpoint, or one of another run than the config.yaml beside it.
    """

    def __init__(
        self,
        checkpoint: Path,
        device: torch.device,
        max_new_tokens: int | None = None,
        at_once: int = 32,
    ) -> None:
        self.name, self.device, self.at_once = str(checkpoint), device, at_once
        self._trained = read_trained(checkpoint, "--checkpoint")
        images = {name: self._trained.data[f"data.{name}"] for name in IMAGES}
        config = _run_config(checkpoint)
        _check_same_run(config, self._trained.model, images)
        generation = config.get("model", {}).get("generation") or {}
        self.max_new_tokens = max_new_tokens or GenerationSpec(**generation).max_new_tokens
        self.vision, self.language = self._trained.vision, self._trained.language
        self._transform = ImageTransform(self.vision, *images.values())
        self._geometry = load_geometry(self.vision)
        image_tokens, tiling = self._geometry.image_tokens, self._geometry.tiling
        self._encoder = ConversationEncoder(self.language, image_tokens, tiling=tiling)
        self._compute = torch.bfloat16 if device.type == "cuda" else torch.float32
        self.fingerprint = fingerprint(
            checkpoint=hash_files({"checkpoint": checkpoint}),
            language=_hash_part(self.language, "model.language.name"),
            vision=_hash_part(self.vision, "model.vision.name"),
            max_new_tokens=self.max_new_tokens,
            dtype=str(self._compute),
            stop=self._encoder.stop_ids,
        )

    def prompt(self, question: Question) -> str:
        """Write the question in the LLM's template, with the short-answer prompt."""
        turns = question_turns(question, self._encoder, short_answer=True)
        return self._encoder.prompt(turns, int(question.image is not None))[1]

    def answer(self, image: Path | None, questions: Sequence[Question]) -> list[str]:
        """Encode the image once, and answer all in one pass."""
        groups = [[[question] for question in questions]]
        parts = (self._encoder, self._transform, self._geometry)
        batch = QuestionDataset(groups, *parts, short_answer=True, at_once=self.at_once)[0]
        with torch.autocast(self.device.type, torch.bfloat16, self._compute == torch.bfloat16):
            answers = answer_group(
                self._model,
                batch.pixel_values.to(self.device),
                batch.prompts,
                self.max_new_tokens,
                self._encoder.stop_ids,
                batch.at_once,
                batch.image_sizes,
            )
        return [self._encoder.decode(ids) for ids in answers]

    @cached_property
    def _model(self) -> Llava:
        """Load it when the first question is asked: all of them may have their answers."""
        model = build_trained(self._trained, self._encoder, self._compute, self.device)
        if self._compute == torch.bfloat16:
            drop_adapter_casts(model.language)
        return model.to(self.device).eval()


def find_checkpoint(model: Path, checkpoint: Path | None) -> Path:
    """Return the checkpoint that is meant by a run folder, or by a file.

    Raises:
        SettingError: the folder has none.
    """
    if checkpoint is not None or model.is_file():
        return checkpoint or model
    last = model / "checkpoints" / "last.ckpt"
    if not last.is_file():
        raise SettingError(
            f"--model: {str(model)!r} has no checkpoints/last.ckpt; name the file by --checkpoint"
        )
    return last


def _hash_part(spec: LanguageSpec | VisionSpec, setting: str) -> str:
    return hash_folder(local_folder(spec.name, spec.revision, setting, old_weights=True))


def _run_config(checkpoint: Path) -> Settings:
    """Read the settings of the run that a checkpoint lies in; nothing where it lies elsewhere."""
    # Not resolved: `last.ckpt` is a link, but to a file beside it.
    file = checkpoint.absolute().parent.parent / "config.yaml"
    if not file.is_file():
        return {}
    try:
        return yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise SettingError(f"{file}: not valid YAML: {' '.join(str(error).split())}") from error


def _check_same_run(config: Settings, model: Settings, data: Settings) -> None:
    """Refuse a config.yaml that says other things than the checkpoint: which is meant?"""
    sections = {"model": (model, ARCHITECTURE), "data": (data, IMAGES)}
    for section, (saved, names) in sections.items():
        said = {name: value for name, value in config.get(section, {}).items() if name in names}
        before, now = (
            flatten(with_defaults({f"{section}.{name}": values[name] for name in said}))
            for values in (saved, said)
        )
        for key in sorted(before.keys() | now.keys()):
            if before.get(key) != now.get(key):
                raise SettingError(
                    f"--model: the run's config.yaml has {key}: "
                    f"{now.get(key, 'absent')!r}, but the checkpoint was trained with "
                    f"{before.get(key, 'absent')!r}; give the checkpoint alone, in a folder without"
                    " a config.yaml, or mend that"
                )
