"""Trained optimizers as files: written, described, checked, found and loaded."""
