"""Pure decisions of the agent: frozen data in, plan or sentence out. Nothing here reads a file, a clock or a socket."""
