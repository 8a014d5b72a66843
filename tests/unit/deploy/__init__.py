"""deploy/: what can be told without an engine."""
