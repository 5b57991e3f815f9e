"""For other people's training loops."""
