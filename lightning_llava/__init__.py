"""Train and measure LLaVA-style models with any language model, in any language."""
