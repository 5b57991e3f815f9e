"""Learned optimizers against tuned baselines: runs, measures, statistics, pictures, a page."""
