"""Tower, projector, decoder and their composition. Never imports `data`."""
