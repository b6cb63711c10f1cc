"""From what the user wrote to a translator."""

from pathlib import Path

from lightning_llava.errors import SettingError
from lightning_llava.evaluation.translation.chat import ChatTranslator
from lightning_llava.evaluation.translation.model_source import ModelSource
from lightning_llava.evaluation.translation.seq2seq import Seq2SeqTranslator
from lightning_llava.evaluation.translation.translator import (
    OracleTranslator,
    TableTranslator,
    Translator,
    read_table,
)

ORACLE = "oracle"
NONE = "none"
BEAMS = 4
BATCH_SIZE = 32


def load_translator(
    written: str,
    setting: str,
    beams: int = BEAMS,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
) -> Translator:
    """Load a translator.

    Args:
        written: a folder or hub name, `@REVISION` behind it perhaps, of a sequence-to-sequence or
            chat model; a file `.tsv` or `.json` of translations; `oracle`; or `none`, which
            translates nothing.
        setting: what the user wrote it under, for errors.
        beams: of a sequence-to-sequence model.
        batch_size: texts at once.
        device: as torch names it; None or `auto` takes the first GPU, or without one the CPU.

    Raises:
        SettingError: it cannot be loaded.
    """
    if min(beams, batch_size) < 1:
        raise SettingError(f"{beams} beams, {batch_size} texts at once; expected 1 or more of each")
    if written == ORACLE:
        return OracleTranslator()
    if written == NONE:
        return TableTranslator({}, NONE)
    path = Path(written).expanduser()
    if path.suffix in (".tsv", ".json"):
        return TableTranslator(read_table(path, setting), path.name)
    source = ModelSource(written, setting, device)
    if source.config.is_encoder_decoder:
        return Seq2SeqTranslator(source, beams, batch_size)
    return ChatTranslator(source, batch_size)
