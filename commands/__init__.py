"""`recourse …`, a module per group of commands: thin over the packages."""
