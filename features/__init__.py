"""Facts to numbers: events, tables, features, one engine. Pure: no clock, no I/O at import."""
