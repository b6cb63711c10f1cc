"""The mini CLIP itself: its sizes, its pictures, its texts, and its features' size."""

from typing import Any

import torch
from mini_map import GRID
from tokenizers.processors import TemplateProcessing
from transformers import CLIPConfig, CLIPImageProcessorPil, CLIPModel, PreTrainedTokenizerFast

from lightning_llava.demo import drawing
from lightning_llava.demo.tokens import BOS_ID, END_OF_TEXT, UNK_ID

PATCH = drawing.IMAGE_SIZE // GRID
WIDTH, LAYERS, HEADS = 192, 5, 6
TEXT_WIDTH, TEXT_LAYERS, TEXT_HEADS, TEXT_LENGTH = 128, 2, 4, 80


def build_tower(vocabulary: int, end: int) -> CLIPModel:
    """Build a mini CLIP with random weights.

    Args:
        vocabulary: size of the tokenizer.
        end: id of the token that ends a text, where the text's embedding is read.
    """
    config = CLIPConfig(
        vision_config={
            "image_size": drawing.IMAGE_SIZE,
            "patch_size": PATCH,
            "hidden_size": WIDTH,
            "intermediate_size": 4 * WIDTH,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
        },
        text_config={
            "vocab_size": vocabulary,
            "hidden_size": TEXT_WIDTH,
            "intermediate_size": 3 * TEXT_WIDTH,
            "num_hidden_layers": TEXT_LAYERS,
            "num_attention_heads": TEXT_HEADS,
            "max_position_embeddings": TEXT_LENGTH,
            # CLIPTextModel takes 2 for a mistake of old configs, and the largest id for the end.
            "eos_token_id": end,
            "bos_token_id": BOS_ID,
            "pad_token_id": UNK_ID,
        },
        projection_dim=TEXT_WIDTH,
    )
    model = CLIPModel(config)
    model.set_attn_implementation("eager")  # on 65 patches on a CPU the fastest
    return model


def image_processor() -> CLIPImageProcessorPil:
    """Make the processor that the tower's pictures go through."""
    side = drawing.IMAGE_SIZE
    return CLIPImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"height": side, "width": side}
    )


def ends_texts(tokenizer: PreTrainedTokenizerFast) -> int:
    """Let a tokenizer end texts as CLIP's does; return the id of the token that it does it with."""
    end: Any = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"<s> $A {END_OF_TEXT}",
        special_tokens=[("<s>", BOS_ID), (END_OF_TEXT, end)],
    )
    return end


@torch.no_grad()
def rescale_features(clip: CLIPModel, pixels: torch.Tensor) -> None:
    """Give the patch features that LLaVA takes a root mean square of 1.

    Nothing else keeps the residual stream from growing, to 41 here, and a projector that starts
    from torch's weights would drown the words of a prompt. All that writes into the stream is
    divided by the same number; what reads from it does so behind a layer norm, and stays as it was.

    Args:
        clip: changed in place.
        pixels: pictures that the size is measured on.
    """
    vision = clip.vision_model
    size = vision(pixels, output_hidden_states=True).hidden_states[-2][:, 1:].pow(2).mean().sqrt()
    writers: list[Any] = [vision.pre_layrnorm]
    layers: Any = vision.encoder.layers
    for layer in layers:
        writers += [layer.self_attn.out_proj, layer.mlp.fc2]
    for writer in writers:
        writer.weight /= size
        writer.bias /= size
