"""Published data sets to samples: one reader a format, one machinery for all of them."""
