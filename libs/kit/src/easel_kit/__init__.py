"""Easel's plumbing: bus, outbox, database, leases, reconcile loop, gRPC, settings, telemetry. No product words."""
