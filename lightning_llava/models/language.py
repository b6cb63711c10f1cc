"""Load the decoder: any Hugging Face causal LLM."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
)

from lightning_llava.errors import SettingError
from lightning_llava.hub import check_complete, explain_loading, resolve
from lightning_llava.models.attention import caps_scores
from lightning_llava.models.quantization import keep_as_loaded, loading_arguments
from lightning_llava.models.rotations import rotation_limit
from lightning_llava.specs import LanguageSpec

CPU = torch.device("cpu")
TEXT_HALF = {
    r"^language_model\.lm_head\.": "lm_head.",
    r"^(model\.)?language_model\.(model\.)?(?!lm_head\.)": "model.",
}
"""Where checkpoints of pictures and text (Gemma 3 from 4B on, llava-hf) keep their LLM, and where
the LLM alone has it."""


def load_language_config(
    spec: LanguageSpec, setting: str = "model.language.name"
) -> PretrainedConfig:
    """Load the config of the LLM; of a checkpoint of pictures and text, its text half's."""
    return _load_config(spec, setting)[0]


def _load_config(spec: LanguageSpec, setting: str) -> tuple[PretrainedConfig, bool]:
    """Load the config, and tell whether it is half of a larger one."""
    name = resolve(spec.name, setting)
    with explain_loading(spec.name, setting):
        config = AutoConfig.from_pretrained(name, revision=spec.revision, trust_remote_code=False)
    half = getattr(config, "text_config", None)
    return half or config, half is not None


def load_language_model(
    spec: LanguageSpec,
    dtype: torch.dtype,
    attention: str | None = None,
    compute: torch.dtype | None = None,
    device: torch.device = CPU,
) -> PreTrainedModel:
    """Load the LLM; of a checkpoint of pictures and text (Gemma 3 from 4B on), its text half.

    Args:
        spec: name, revision and quantization.
        dtype: type of the weights that are not quantized.
        attention: implementation name as transformers knows it; None: SDPA where the LLM can have
            it, else `eager`.
        compute: type that quantized weights are multiplied in; None for `dtype`.
        device: where a quantized LLM will be; any other is loaded on the CPU.

    Raises:
        SettingError: nothing loadable under `model.language.name`, conversations for which its
            rotations change, or bitsandbytes is missing.
    """
    more = loading_arguments(spec.quantization, compute or dtype, device)
    config, is_half = _load_config(spec, "model.language.name")
    _check_length(config, spec)
    name = resolve(spec.name, "model.language.name")
    with explain_loading(spec.name, "model.language.name"):
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            config=config,
            key_mapping=TEXT_HALF if is_half else None,
            revision=spec.revision,
            dtype=dtype,
            attn_implementation=attention,
            trust_remote_code=False,
            output_loading_info=True,
            **more,
        )
    language, info = loaded
    if is_half:
        language._weight_conversions = None  # or saved on its own, it would be renamed back
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


def _check_length(config: PretrainedConfig, spec: LanguageSpec) -> None:
    """Refuse samples that would change what the others of their pack mean."""
    limit = rotation_limit(config)
    if limit is not None and spec.max_length > limit[0]:
        raise SettingError(
            f"model.language.max_length is {spec.max_length}, but the rotations of {spec.name!r} "
            f"({limit[1]}) change beyond {limit[0]} tokens, for all samples of a pack as soon as "
            f"one is longer; set model.language.max_length: {limit[0]} or less"
        )
