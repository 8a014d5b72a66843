"""The autoscaler: how many replicas, and why."""
