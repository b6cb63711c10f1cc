"""Score answers again, this project's or others', without a model."""
