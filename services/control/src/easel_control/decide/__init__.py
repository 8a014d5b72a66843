"""What control decides, as pure functions of frozen data: no I/O, no clock, no chance."""
