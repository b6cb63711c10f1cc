"""Train and measure LLaVA-style models with any language model, in any language."""

import logging

# Where it is installed, bitsandbytes warns at import of a CPU kernel that is missing. It would
# round NF4 weights once more, and is kept off: models/quantization.py.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
