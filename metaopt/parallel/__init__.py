"""Particles over devices, chunks and processes."""
