"""The monitor: one-second metrics, events for outsiders."""
