"""Replicas as containers of a Docker engine: see runtime.Runtime and docs/adr/0006-containers-by-the-agent.md."""
