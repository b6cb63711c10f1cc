"""The Russian protocol: questions into Russian, answers back, scored in English."""
