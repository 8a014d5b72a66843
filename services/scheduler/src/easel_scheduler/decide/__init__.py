"""Decisions as pure functions of frozen data; time is an argument. No I/O may be imported here."""
