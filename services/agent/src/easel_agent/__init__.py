"""The agent: forks, limits, probes, logs and measures replicas on one node."""
