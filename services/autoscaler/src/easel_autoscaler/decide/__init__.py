"""How many replicas, and why: pure functions of frozen data, time an argument. No I/O."""
