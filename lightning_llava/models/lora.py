"""LoRA on the decoder's linear layers, through peft."""

from peft import LoraConfig, inject_adapter_in_model
from torch import nn
from transformers import PreTrainedModel

from lightning_llava.errors import SettingError
from lightning_llava.specs import LoraSpec


def lora_targets(language: PreTrainedModel) -> list[str]:
    """List the full paths of the decoder's linear layers.

    Full paths, because a suffix such as `q_proj` would hit the vision tower too; never the output
    head, whose adapter would have to cover every position's logits.

    Raises:
        SettingError: there are none (GPT-2 is built of other modules).
    """
    head = language.get_output_embeddings()
    targets = [
        name
        for name, module in language.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]
    if not targets:
        raise SettingError(
            f"model.lora: {type(language).__name__} has no linear layers for adapters to go to; "
            "set model.lora: null and train model.learning_rate.language, or choose another LLM"
        )
    return targets


def add_lora(language: PreTrainedModel, spec: LoraSpec) -> None:
    """Put adapters into the decoder, in place (the update starts at zero: B = 0)."""
    config = LoraConfig(
        r=spec.r,
        lora_alpha=spec.alpha,
        lora_dropout=spec.dropout,
        bias="none",
        target_modules=lora_targets(language),
    )
    inject_adapter_in_model(config, language)


def is_lora(name: str) -> bool:
    """Tell whether a parameter name is an adapter's."""
    return ".lora_" in name
