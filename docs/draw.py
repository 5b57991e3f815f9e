"""Draws the picture of the two loops: ``python docs/draw.py`` writes ``docs/images/loops.svg``."""

from pathlib import Path

from matplotlib.figure import Figure

from metaopt.plotting import INK, LEARNED, to_svg

PARTICLES, WINDOWS, UPDATES = 4, 4, 8
SUBSCRIPTS = "₀₁₂₃₄₅₆₇₈"
COLORS = (LEARNED, "#d9730d", "#6b3fa0", "#448361", "#9f6b53", "#c14c8a", "#5b7f95", "#8a8782")


def loops() -> Figure:
    """Particles over outer steps; a colour is one noise, kept for a whole episode."""
    figure = Figure(figsize=(8.4, 3.6), layout="constrained")
    axes = figure.add_subplot()
    episode = 0
    for particle in range(PARTICLES):
        left = WINDOWS - particle % WINDOWS
        for update in range(UPDATES):
            if left == 0:
                left, episode = WINDOWS, episode + 1
            color = COLORS[(particle * 3 + episode) % len(COLORS)]
            axes.barh(-particle, 0.94, left=update + 0.03, height=0.62, color=color, alpha=0.85)
            first = left == WINDOWS or update == 0
            text = f"noise {particle + 1}{chr(ord('a') + episode)}" if first else ""
            axes.text(update + 0.5, -particle, text, ha="center", va="center", color="white")
            left -= 1
        episode = 0
    for update in range(1, UPDATES + 1):
        axes.axvline(update, color=INK, lw=1, ls=":", ymax=0.86)
        axes.text(
            update,
            0.62,
            f"θ{SUBSCRIPTS[update]}",
            ha="center",
            va="bottom",
            color=INK,
            backgroundcolor="white",
        )
    axes.set_yticks([-p for p in range(PARTICLES)], [f"particle {p + 1}" for p in range(PARTICLES)])
    axes.set_xticks([u + 0.5 for u in range(UPDATES)], ["W steps"] * UPDATES, fontsize=8)
    axes.set(xlim=(0, UPDATES + 0.1), ylim=(-PARTICLES + 0.5, 1.05))
    axes.set_xlabel(
        "Each box is a window of W inner steps of a pair. A colour is one noise ε: it lasts for an "
        "episode\nof T = 4W steps. After every window θ is updated (dotted).",
        fontsize=9,
    )
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.tick_params(length=0)
    return figure


if __name__ == "__main__":
    folder = Path(__file__).parent / "images"
    folder.mkdir(exist_ok=True)
    (folder / "loops.svg").write_text(to_svg(loops()))
