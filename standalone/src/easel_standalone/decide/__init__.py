"""Pure decisions of the supervisor."""
