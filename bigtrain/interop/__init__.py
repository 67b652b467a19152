"""Foreign weights, in and out: one explicit name map a format."""
