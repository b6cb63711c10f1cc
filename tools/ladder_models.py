"""The models of the rungs, with the same random weights: Hugging Face's LLaVA, and ours."""

from dataclasses import dataclass
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, cast

import torch
from ladder_stream import FULL, Sizes
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlavaConfig,
    MistralConfig,
    MistralForCausalLM,
)

from lightning_llava.batch import IGNORE_INDEX, IMAGE_TOKEN_INDEX, Batch
from lightning_llava.models.activation_memory import measured_policy
from lightning_llava.models.activations import apply_policy
from lightning_llava.models.compilation import compile_layers
from lightning_llava.models.flops import FlopCoefficients, flop_coefficients
from lightning_llava.models.kernels import apply_kernels
from lightning_llava.models.llava import Llava, LossSum
from lightning_llava.models.lora import add_lora, is_lora
from lightning_llava.models.loss import shifted_targets
from lightning_llava.models.precision import drop_adapter_casts
from lightning_llava.models.probe import settle_attention
from lightning_llava.models.projector import build_projector
from lightning_llava.models.vision import VisionTower
from lightning_llava.specs import LoraSpec, VisionSpec

MEAN, STD = [0.481, 0.458, 0.408], [0.269, 0.261, 0.276]
"""CLIP's, of pixels in 0 … 1."""
LINEARS = r".*language_model\..*\.(q|k|v|o|gate|up|down)_proj"


@dataclass(frozen=True)
class Rung:
    """One step of the ladder. Each but the last has what those before it have."""

    title: str
    ours: bool = True
    checkpointing: str = "full"
    """`auto`: chosen from measured memory."""
    drop_casts: bool = False
    compile: bool = False
    """No dropout in adapters either: compiled layers that are recomputed must have none."""
    rest: bool = False
    """Fused AdamW, Liger's kernels where they are installed."""
    by_length: bool = False
    """Padded batches of samples of like length."""


RUNGS = {
    "baseline": Rung("HF LLaVA, PEFT, padded", ours=False),
    "no-recompute": Rung("baseline, no checkpointing", ours=False, checkpointing="none"),
    "packed": Rung("ours: packed, full checkpointing"),
    "casts": Rung("+ casts dropped", drop_casts=True),
    "policy": Rung("+ checkpointing by memory", drop_casts=True, checkpointing="auto"),
    "compile": Rung(
        "+ no dropout, torch.compile per layer",
        drop_casts=True,
        checkpointing="auto",
        compile=True,
    ),
    "rest": Rung(
        "+ fused AdamW, Liger",
        drop_casts=True,
        checkpointing="auto",
        compile=True,
        rest=True,
    ),
    "by-length": Rung("baseline, batches by length", ours=False, by_length=True),
}
"""The last one is a second baseline, to tell what packing gains over LLaVA's own sampler."""


class Baseline(nn.Module):
    """`LlavaForConditionalGeneration` behind the interface of ours.

    Args:
        model: with adapters.
        image_id: its placeholder.
    """

    def __init__(self, model: nn.Module, image_id: int) -> None:
        super().__init__()
        self.model = model
        self.image_id = image_id
        for name, values in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> LossSum:
        """Compute the logits of all positions, padding too, and Hugging Face's own loss of them.

        It divides by `num_items_in_batch`: by 1 for a sum.
        """
        is_image = batch.input_ids == IMAGE_TOKEN_INDEX
        pixels: Tensor | None = None
        if len(batch.pixel_values):
            mean, std = cast(Tensor, self.mean), cast(Tensor, self.std)
            pixels = (batch.pixel_values.float() / 255 - mean) / std
        output = self.model(
            input_ids=batch.input_ids.masked_fill(is_image, self.image_id),
            pixel_values=pixels,
            attention_mask=batch.attention_mask,
            labels=batch.labels,
            use_cache=False,
            num_items_in_batch=1,
        )
        return LossSum(output.loss, (shifted_targets(batch.labels) != IGNORE_INDEX).sum())


def build(
    rung: Rung, sizes: Sizes, device: torch.device, compute: torch.dtype
) -> tuple[nn.Module, dict[str, str]]:
    """Make a rung's model in train mode on its device, and say what was chosen for it.

    Nothing is read: weights are drawn there, the same for all rungs.
    """
    torch.manual_seed(0)
    with torch.device(device):
        whole: Any = AutoModelForImageTextToText.from_config(llava_config(sizes), dtype=compute)
    whole.requires_grad_(False)
    make = _compose if rung.ours else _baseline
    model, facts = make(rung, whole, sizes, device, compute)
    for name, parameter in model.named_parameters():
        if is_lora(name) or "projector." in name:
            parameter.requires_grad_(True)
            parameter.data = parameter.data.float()
    _draw_adapters(model, device)
    if rung.ours:
        facts |= _prepare(rung, cast(Llava, model), sizes, device, compute)
    return model, facts


def llava_config(sizes: Sizes) -> LlavaConfig:
    """Return the config of LLaVA 1.5 with Mistral for Vicuna."""
    return LlavaConfig(
        vision_config=CLIPVisionConfig(**sizes.vision),
        text_config=MistralConfig(**sizes.text),
        image_token_index=sizes.image_id,
        image_seq_length=sizes.image_tokens,
    )


def coefficients(sizes: Sizes) -> FlopCoefficients:
    """Count what training needs, from shapes alone: the same for all rungs."""
    with torch.device("meta"):
        tower = VisionTower(
            CLIPVisionModel(CLIPVisionConfig(**sizes.vision)), VisionSpec(), MEAN, STD
        )
        language = MistralForCausalLM(MistralConfig(**sizes.text))
        add_lora(language, LoraSpec(sizes.rank, 2 * sizes.rank))
        projector = build_projector(
            "mlp2x_gelu", sizes.vision["hidden_size"], sizes.text["hidden_size"]
        )
    tower.requires_grad_(False)
    for name, parameter in language.named_parameters():
        parameter.requires_grad_(is_lora(name))
    parts = SimpleNamespace(vision_tower=tower, projector=projector, language=language)
    return flop_coefficients(cast(Llava, parts))


def _baseline(
    rung: Rung, whole: Any, sizes: Sizes, device: torch.device, compute: torch.dtype
) -> tuple[nn.Module, dict[str, str]]:
    """Do as a user of Hugging Face would: PEFT's defaults on the LLM's linear layers."""
    attention = "sdpa"
    if device.type == "cuda" and compute != torch.float32 and find_spec("flash_attn"):
        attention = "flash_attention_2"
    whole.set_attn_implementation(attention)
    settings = LoraConfig(
        r=sizes.rank, lora_alpha=2 * sizes.rank, lora_dropout=0.05, target_modules=LINEARS
    )
    with device:
        peft = get_peft_model(whole, settings)
    if rung.checkpointing == "full":
        old = whole.gradient_checkpointing_enable  # the name until transformers 5.2x
        getattr(whole, "activation_checkpointing_enable", old)({"use_reentrant": False})
    facts = {"attention": attention, "checkpointing": rung.checkpointing}
    return Baseline(peft, sizes.image_id).to(device).train(), facts


def _compose(
    rung: Rung, whole: Any, sizes: Sizes, device: torch.device, compute: torch.dtype
) -> tuple[nn.Module, dict[str, str]]:
    """Take the parts of Hugging Face's model for ours."""
    decoder, source = whole.model.language_model, whole.model.multi_modal_projector
    with torch.device("meta"):
        language = MistralForCausalLM(decoder.config)
    language.model, language.lm_head = decoder, whole.lm_head
    facts = {}
    if rung.rest:
        facts["liger"] = _apply_liger(language, device)
    with device:
        add_lora(language, LoraSpec(sizes.rank, 2 * sizes.rank, 0.0 if rung.compile else 0.05))
    projector = build_projector(
        "mlp2x_gelu", sizes.vision["hidden_size"], sizes.text["hidden_size"]
    )
    assert isinstance(projector, nn.Sequential)
    projector[0], projector[2] = source.linear_1, source.linear_2
    tower = VisionTower(whole.model.vision_tower, VisionSpec(), MEAN, STD)
    model = Llava(tower, projector, language).to(device).train()
    model.vision_tower.eval()
    return model, facts


def _draw_adapters(model: nn.Module, device: torch.device) -> None:
    """Draw A the same for all rungs, and a B that is not zero, so that A learns from step 1."""
    generator = torch.Generator(device).manual_seed(1)
    for name, parameter in model.named_parameters():
        if is_lora(name):
            nn.init.normal_(parameter, std=0.02 if "lora_A" in name else 1e-3, generator=generator)


def _prepare(
    rung: Rung, model: Llava, sizes: Sizes, device: torch.device, compute: torch.dtype
) -> dict[str, str]:
    """Apply what the product offers, in its order."""
    facts = {}
    if rung.drop_casts:
        drop_adapter_casts(model.language)
    # A CPU would take segments, which cannot be compiled.
    attention = "sdpa" if rung.compile and device.type != "cuda" else "auto"
    facts["attention"] = settle_attention(model.language, attention, device, compute)
    policy: Any = rung.checkpointing
    if policy == "auto":
        policy, facts["reason"] = measured_policy(
            model, model.language, sizes.pack_tokens, device, compute
        )
    apply_policy(model.language, policy)
    facts["checkpointing"] = policy
    if rung.compile:
        backend = "inductor" if sizes is FULL else "eager"
        compile_layers(model.language, device, compute, backend)
        facts["compile"] = f"{backend}, per decoder layer"
    return facts


def _apply_liger(language: MistralForCausalLM, device: torch.device) -> str:
    """Take Liger's kernels, where the package is there and the device a GPU."""
    if device.type != "cuda":
        return f"not used: the device is {device.type}"
    if find_spec("liger_kernel") is None:
        return "not used: liger-kernel is not installed"
    apply_kernels(language, "liger", device)
    return "RMSNorm, RoPE, SwiGLU"
