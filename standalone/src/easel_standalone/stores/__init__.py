"""The two stores that the platform starts itself: NATS and PostgreSQL."""
