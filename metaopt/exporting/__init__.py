"""A finished run becomes a trained optimizer that describes itself."""
