"""Load the decoder: any Hugging Face causal LLM."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete, explain_loading, resolve
from lightning_llava.specs import LanguageSpec


def load_language_model(spec: LanguageSpec, dtype: torch.dtype, attention: str) -> PreTrainedModel:
    """Load the LLM.

    Args:
        spec: name and revision.
        dtype: type of the weights.
        attention: implementation name as transformers knows it.

    Raises:
        SettingError: nothing loadable under `model.language.name`.
    """
    name = resolve(spec.name, "model.language.name")
    with explain_loading(spec.name, "model.language.name"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            revision=spec.revision,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=False,
            output_loading_info=True,
        )
    language, info = loaded
    check_complete(info, spec.name, "model.language.name")
    if language.get_output_embeddings() is None:
        raise SettingError(
            f"model.language.name: {type(language).__name__} has no output head; expected a "
            "causal LLM"
        )
    # `generate` fills what it is not told from here: Qwen's repetition penalty would change answers
    # that are meant to be greedy.
    language.generation_config = GenerationConfig()
    return language
