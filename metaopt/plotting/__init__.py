"""How pictures here look: a style for matplotlib, its colours, axes of losses, files."""

from metaopt.plotting.style import (
    BASELINE,
    COLORS,
    INK,
    LEARNED,
    PALE,
    STYLE,
    log_losses,
    to_png,
    to_svg,
)

__all__ = [
    "BASELINE",
    "COLORS",
    "INK",
    "LEARNED",
    "PALE",
    "STYLE",
    "log_losses",
    "to_png",
    "to_svg",
]
