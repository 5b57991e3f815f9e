"""What a line of progress says."""

from metaopt.training.loop import Progress
from metaopt.training.progress import _line


def test_a_step_without_a_usable_estimate_is_marked():
    row = {"step": 2, "loss": float("nan"), "seconds": 1.0, "skipped": 1}
    shown = lambda row: _line(Progress(row=row, outer_steps=4, rate=10.0, test=""))
    assert "outer step 2/4" in shown(row) and shown(row).endswith("theta stays)")
    assert shown(row | {"skipped": 0}).endswith(" 1 s")
