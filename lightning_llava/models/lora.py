"""LoRA on the decoder's linear layers, through peft."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from lightning_llava.specs import LoraSpec


def lora_targets(language: PreTrainedModel) -> list[str]:
    """List the full paths of the decoder's linear layers.

    Full paths, because a suffix such as `q_proj` would hit the vision tower too; never the output
    head, whose adapter would have to cover every position's logits.
    """
    head = language.get_output_embeddings()
    return [
        name
        for name, module in language.named_modules()
        if isinstance(module, nn.Linear) and module is not head
    ]


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


def lora_parameters(language: nn.Module) -> list[nn.Parameter]:
    """Return the adapters' parameters."""
    return [p for name, p in language.named_parameters() if is_lora(name)]


def is_lora(name: str) -> bool:
    """Tell whether a parameter name is an adapter's."""
    return ".lora_" in name


def merge_lora(language: nn.Module) -> None:
    """Fold the adapters into the base weights, in place."""
    for module in language.modules():
        if isinstance(module, LoraLayer):
            module.merge()  # pyright: ignore[reportCallIssue]
