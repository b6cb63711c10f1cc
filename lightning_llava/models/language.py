"""Load the decoder: any Hugging Face causal LLM."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete, explain_loading, resolve
from lightning_llava.models.attention import caps_scores
from lightning_llava.models.quantization import keep_as_loaded, loading_arguments
from lightning_llava.specs import LanguageSpec

CPU = torch.device("cpu")


def load_language_model(
    spec: LanguageSpec,
    dtype: torch.dtype,
    attention: str | None = None,
    compute: torch.dtype | None = None,
    device: torch.device = CPU,
) -> PreTrainedModel:
    """Load the LLM.

    Args:
        spec: name, revision and quantization.
        dtype: type of the weights that are not quantized.
        attention: implementation name as transformers knows it; None: SDPA where the LLM can have
            it, else `eager`.
        compute: type that quantized weights are multiplied in; None for `dtype`.
        device: where a quantized LLM will be; any other is loaded on the CPU.

    Raises:
        SettingError: nothing loadable under `model.language.name`, or bitsandbytes is missing.
    """
    more = loading_arguments(spec.quantization, compute or dtype, device)
    name = resolve(spec.name, "model.language.name")
    with explain_loading(spec.name, "model.language.name"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            revision=spec.revision,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    language, info = loaded
    check_complete(info, spec.name, "model.language.name")
    if language.get_output_embeddings() is None:
        raise SettingError(
            f"model.language.name: {type(language).__name__} has no output head; expected a "
            "causal LLM"
        )
    if language.config._attn_implementation == "sdpa" and caps_scores(language):
        language.set_attn_implementation("eager")
    keep_as_loaded(language)
    # `generate` fills what it is not told from here: Qwen's repetition penalty would change answers
    # that are meant to be greedy.
    language.generation_config = GenerationConfig()
    return language
