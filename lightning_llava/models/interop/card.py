"""The model card: README.md of an exported folder, the same for every format."""

from collections.abc import Sequence
from pathlib import Path

from lightning_llava.models.trained import Trained
from lightning_llava.text.conversation import ConversationEncoder


def write_card(
    folder: Path,
    trained: Trained,
    encoder: ConversationEncoder,
    form: str,
    scores: Sequence[Path] = (),
    licence: str | None = None,
) -> None:
    """Write what the weights are, what they learnt from and how they are used.

    `tools/export.py` calls it after every format; the formats themselves do not.

    Args:
        folder: gets README.md.
        trained: the checkpoint.
        encoder: writes for its LLM.
        form: the format, as `--format` names it.
        scores: report.json files of `validate` or `tools/evaluate.py`, or what `tools/score.py
            --json` printed.
        licence: as the hub names it; None leaves it to be filled in.

    Raises:
        SettingError: a scores file of another kind.
    """
    raise NotImplementedError
