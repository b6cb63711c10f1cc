"""Put image features where their placeholders stand. Pure tensor code."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lightning_llava.batch import IMAGE_TOKEN_INDEX


def scatter_image_features(
    token_embeds: Float[Tensor, "rows tokens width"],
    image_features: Float[Tensor, "features width"],
    is_image: Bool[Tensor, "rows tokens"],
) -> Float[Tensor, "rows tokens width"]:
    """Put each image's features where its placeholders stand, in reading order.

    Raises:
        ValueError: the number of placeholders is not that of the features.
    """
    placeholders, features = int(is_image.sum()), image_features.shape[0]
    if placeholders != features:
        raise ValueError(
            f"{placeholders} image placeholders in the batch, but its images have {features} "
            "features"
        )
    mask = is_image.unsqueeze(-1).expand_as(token_embeds)
    return token_embeds.masked_scatter(mask, image_features.to(token_embeds.dtype))


def split_placeholders(
    input_ids: Int[Tensor, "rows tokens"],
) -> tuple[Int[Tensor, "rows tokens"], Bool[Tensor, "rows tokens"]]:
    """Return ids an embedding table can look up (0 at placeholders), and the placeholders' mask."""
    is_image = input_ids == IMAGE_TOKEN_INDEX
    return torch.where(is_image, 0, input_ids), is_image
