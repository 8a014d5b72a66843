"""The scheduler: which node, when to start, drain and replace a replica."""
