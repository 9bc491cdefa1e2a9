"""Facts to numbers: events, tables, features and the one engine. Pure: no clock, no I/O at import."""
