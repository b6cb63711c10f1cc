"""`python -m lightning_llava`."""

import os

# Before torch is imported. Packs differ in length: without segments that grow, the allocator's
# fragments fill a GPU before the packs do.
if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # the older name
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")

from lightning_llava.cli import main

if __name__ == "__main__":
    main()
