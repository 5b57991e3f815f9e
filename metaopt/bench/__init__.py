"""How fast it is here: outer steps, one update, and how both scale."""
