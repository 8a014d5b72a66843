"""The router: what Envoy is told."""
