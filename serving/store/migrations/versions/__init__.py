"""A module per version of the schema, in the order of their numbers."""
