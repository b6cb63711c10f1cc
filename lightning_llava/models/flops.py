"""How many FLOPs training takes: counted from a model's parts, whatever its name.

A multiplication and an addition are two. Matrix products and attention count; norms, activations,
rotations and Adam do not. What a run computes but does not need gets no credit: padding, layers
that are computed again in the backward pass, logits of unsupervised positions, blank images.

A matrix of W weights takes, per token, 2 W forward, 2 W backward for the gradient of its input, and
another 2 W for its own gradient where it trains: 4 W in a frozen LLM, 6 W for its adapters or where
it trains as a whole. Attention takes, per layer,

    2 products x 2 FLOPs x heads x head size x pairs

forward and twice that backward. Of a sample of n tokens n² / 2 pairs see each other; n w - w² / 2
where a token sees the last w < n alone; n² in the vision tower. Samples of a pack do not see each
other. A frozen tower has no backward pass, and what is above it passes no gradient down to it.

For Mistral-7B with LoRA of rank 128 on all linear layers, CLIP ViT-L/14-336 and a sample of 791
tokens, 576 of them its image's and 100 supervised, that is 24.6 TFLOP, 31 GFLOP a token: 11.04
forward, as much backward, 1.59 adapters, 0.49 attention, 0.37 tower, 0.07 projector, 0.05 output
head. (The counting is that of Kaplan et al., arXiv:2001.08361, section 2.1, and of Chowdhery et
al., arXiv:2204.02311, appendix B, with causal attention and with frozen parts.)
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from lightning_llava.geometry import num_front_tokens
from lightning_llava.models.llava import Llava
from lightning_llava.models.lora import is_lora

Matrix = tuple[str, int, bool]
"""Name of the parameter, weights that a token is multiplied with, whether they train."""


@dataclass(frozen=True)
class FlopCoefficients:
    """FLOPs of a training step's parts, forward and backward, for `micro_batch_flops`."""

    forward: float
    """Matrices of the LLM, adapters and output head apart, per token."""
    backward: float
    """Gradients of their inputs, per token."""
    weights: float
    """Gradients of those of them that train, per token."""
    lora: float
    """Adapters, forward and backward, per token."""
    pair: float
    """Attention of the LLM, forward and backward, per layer and pair of tokens."""
    windows: tuple[int | None, ...]
    """For each layer with attention, how many tokens a token sees; None: all up to itself."""
    tower: float
    """Matrices of the vision tower, per image; with any resolution per tile, overviews too."""
    tower_attention: float
    """Attention of the vision tower, likewise."""
    projector: float
    """Projector, per image."""
    head: float
    """Output head, per supervised position."""


def flop_coefficients(model: Llava) -> FlopCoefficients:
    """Count a model as it was built: adapters in place, frozen what is to be frozen."""
    language: Any = model.language
    config = language.config.get_text_config()
    head = language.get_output_embeddings()
    matrices = list(_matrices(language, config, leave_out=head))
    base = [matrix for matrix in matrices if not is_lora(matrix[0])]
    lora = [matrix for matrix in matrices if is_lora(matrix[0])]
    heads = getattr(config, "num_attention_heads", 0)
    head_size = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
    tower, tower_attention = _tower_flops(model)
    return FlopCoefficients(
        forward=2 * _total(base),
        backward=2 * _total(base),
        weights=2 * _total(base, trained=True),
        lora=4 * _total(lora) + 2 * _total(lora, trained=True),
        pair=3 * 4 * heads * head_size,
        windows=_windows(config) if heads else (),
        tower=tower,
        tower_attention=tower_attention,
        projector=_projector_flops(model),
        head=head.in_features * head.out_features * (4 + 2 * head.weight.requires_grad),
    )


def flop_parts(
    coefficients: FlopCoefficients,
    lengths: Sequence[int],
    images: int,
    supervised: int,
    projected: float | None = None,
) -> dict[str, float]:
    """Return the FLOPs of a micro-batch by part, named as the coefficients are.

    Args:
        coefficients: of the model.
        lengths: tokens of every sample, image features among them; no padding, no blank samples.
        images: number of images; with any resolution of overviews and tiles.
        supervised: positions whose next token is learnt.
        projected: how many images the features would make that reach the projector; None: all.
    """
    tokens = sum(lengths)
    pairs = sum(_pairs(n, window) for window in coefficients.windows for n in lengths)
    return {
        "forward": coefficients.forward * tokens,
        "backward": coefficients.backward * tokens,
        "weights": coefficients.weights * tokens,
        "lora": coefficients.lora * tokens,
        "attention": coefficients.pair * pairs,
        "tower": coefficients.tower * images,
        "tower_attention": coefficients.tower_attention * images,
        "projector": coefficients.projector * (images if projected is None else projected),
        "head": coefficients.head * supervised,
    }


def micro_batch_flops(
    coefficients: FlopCoefficients,
    lengths: Sequence[int],
    images: int,
    supervised: int,
    projected: float | None = None,
) -> float:
    """Add up the FLOPs of a micro-batch, forward and backward; arguments as of `flop_parts`."""
    return sum(flop_parts(coefficients, lengths, images, supervised, projected).values())


def _pairs(length: int, window: int | None) -> float:
    if window is None or length <= window:
        return length**2 / 2
    return length * window - window**2 / 2


def _matrices(language: nn.Module, config: Any, leave_out: nn.Module) -> Iterator[Matrix]:
    """Yield what every token is multiplied with: all parameters with two dimensions or more.

    Of experts that lie in one parameter, as many as the router chooses. Embeddings are looked up.
    """
    experts = getattr(config, "num_local_experts", None) or getattr(config, "num_experts", None)
    for prefix, module in language.named_modules():
        if module is leave_out or isinstance(module, nn.Embedding):
            continue
        if isinstance(module, nn.Linear):  # by its sizes: NF4 packs weights, ZeRO-3 empties them
            weight = module.weight
            yield f"{prefix}.weight", module.in_features * module.out_features, weight.requires_grad
            continue
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if parameter.ndim < 2:
                continue
            size = parameter.numel()
            if experts and parameter.ndim == 3 and parameter.shape[0] == experts:
                size = size // experts * config.num_experts_per_tok
            yield name, size, parameter.requires_grad


def _total(matrices: Sequence[Matrix], trained: bool = False) -> int:
    return sum(size for _, size, trains in matrices if trains or not trained)


def _windows(config: Any) -> tuple[int | None, ...]:
    """Tell for every layer how far its attention reaches; layers of another kind are left out."""
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:  # transformers then gives the window, if any, to all layers
        return (window,) * config.num_hidden_layers
    reach = {"full_attention": None, "sliding_attention": window}
    return tuple(reach[kind] for kind in kinds if kind in reach)


def _tower_flops(model: Llava) -> tuple[float, float]:
    """Count the matrices and the attention of the tower, which ends at the selected layer."""
    encoder, geometry = model.vision_tower.encoder, model.vision_tower.geometry
    trains = any(p.requires_grad for p in encoder.parameters())
    patches = (geometry.image_size // geometry.patch_size) ** 2
    tokens = patches + num_front_tokens(encoder.config)
    total = 0.0
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            trained = module.weight.requires_grad
            size = module.in_features * module.out_features
            total += 2 * size * tokens * (1 + trains + trained)
        elif isinstance(module, nn.Conv2d):  # patches; pixels need no gradient
            height, width = module.kernel_size
            size = module.in_channels * module.out_channels * height * width
            total += 2 * size * patches * (1 + module.weight.requires_grad)
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList)]
    layers = max(len(stack) for stack in stacks)
    attention = 4 * encoder.config.hidden_size * tokens**2 * layers
    return total, attention * (3 if trains else 1)


def _projector_flops(model: Llava) -> float:
    needs_gradient = any(p.requires_grad for p in model.vision_tower.parameters())
    total = 0
    for module in model.projector.modules():
        if isinstance(module, nn.Linear):
            trained = module.weight.requires_grad
            total += 2 * module.in_features * module.out_features * (1 + needs_gradient + trained)
            needs_gradient = needs_gradient or trained
    return total * model.vision_tower.geometry.image_tokens
