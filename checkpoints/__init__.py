"""Trained optimizers that come with metaopt: a folder each, as `metaopt export` writes it."""
