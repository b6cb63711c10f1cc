"""Which answerer `--model` means."""

from pathlib import Path

import torch
from transformers import AutoConfig
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.answerers.answer_file import AnswerFile
from lightning_llava.evaluation.answerers.hugging_face import HuggingFaceModel
from lightning_llava.evaluation.answerers.language_model import LanguageModel
from lightning_llava.evaluation.answerers.own import OwnCheckpoint, find_checkpoint
from lightning_llava.evaluation.answerers.protocol import Answerer
from lightning_llava.evaluation.answerers.question_only import QuestionOnly, read_short_answers
from lightning_llava.hub import explain_loading, nearest_folder, resolve

KINDS = ("auto", "llava", "hf", "llm", "question_only", "file")


def choose_kind(model: str, checkpoint: Path | None, revision: str | None) -> str:
    """Tell what kind of model a folder, a file or a hub name is.

    Raises:
        SettingError: none that can answer.
    """
    path = Path(model).expanduser()
    if path.suffix == ".tar":
        return "question_only"
    if path.is_file():
        return "llava" if path.suffix == ".ckpt" else "file"
    if checkpoint is not None or (path / "checkpoints").is_dir():
        return "llava"
    if any(path.parent.glob("*/checkpoints")) and not path.exists() and "/" in model:
        # The hub would be asked for "runs/version_9", for half a minute where there is no network.
        raise SettingError(
            f"--model: {model!r} does not exist, and beside it are run folders; "
            f"{nearest_folder(model)}give one of them, or a model's folder or hub name"
        )
    name = resolve(model, "--model")
    with explain_loading(model, "--model"):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    kind = config.model_type
    if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        return "hf"
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "llm"
    raise SettingError(
        f"--model: {model!r} is of the type {kind!r}, which neither answers about pictures nor is "
        "a causal LLM; give a run folder, such a model, or a file of answers"
    )


def load_answerer(
    model: str,
    kind: str,
    device: torch.device,
    checkpoint: Path | None = None,
    max_new_tokens: int | None = None,
    at_once: int = 32,
    template: str | None = None,
    revision: str | None = None,
) -> Answerer:
    """Make the answerer that a command line asks for.

    Args:
        model: folder, file or hub name.
        kind: one of `KINDS`.
        device: where it computes.
        checkpoint: of this project, where it is not the run's last.
        max_new_tokens: longest answer; None takes the answerer's own.
        at_once: most questions in a pass.
        template: text around a question (`hf`), conversation template (`llm`).
        revision: of the hub.

    Raises:
        SettingError: an argument that this answerer does not take, or as its class.
    """
    kind = choose_kind(model, checkpoint, revision) if kind == "auto" else kind
    _refuse_foreign(kind, checkpoint, template, revision)
    path = Path(model).expanduser()
    if kind == "file":
        return AnswerFile(path)
    if kind == "question_only":
        return QuestionOnly(read_short_answers(model), f"question only, {model}")
    if kind == "llava":
        return OwnCheckpoint(find_checkpoint(path, checkpoint), device, max_new_tokens, at_once)
    if kind == "hf":
        return HuggingFaceModel(model, device, max_new_tokens, at_once, template, revision)
    return LanguageModel(model, device, max_new_tokens, template or "auto", revision)


def _refuse_foreign(
    kind: str, checkpoint: Path | None, template: str | None, revision: str | None
) -> None:
    """Refuse what would be ignored."""
    takes = {"--checkpoint": ("llava",), "--prompt": ("hf", "llm"), "--revision": ("hf", "llm")}
    given = {"--checkpoint": checkpoint, "--prompt": template, "--revision": revision}
    for option, value in given.items():
        if value is not None and kind not in takes[option]:
            raise SettingError(
                f"{option}: --answerer {kind} does not take it, only {' and '.join(takes[option])}"
            )
