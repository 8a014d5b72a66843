"""Easel's words: ids, specs, states, facts and errors. Data only, no I/O."""
