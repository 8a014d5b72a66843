"""The control process: services, revisions, tokens, access keys, audit."""
