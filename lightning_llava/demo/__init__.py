"""The embedded miniature: a drawn world and mini backbones, for machines without data or hub."""
