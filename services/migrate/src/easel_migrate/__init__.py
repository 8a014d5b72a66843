"""One step before all: schemas, roles, streams, durable consumers."""
