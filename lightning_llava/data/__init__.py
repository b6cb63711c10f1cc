"""Records, shards, plans and batches. Never imports `models`."""
