"""What the monitor decides, without I/O: numbers from frozen data, time as an argument."""
