"""Meta-training: from a configuration to a run that ends with the same bits."""
