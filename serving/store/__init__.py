"""What the service remembers: history, decisions, audit, identifiers (SQLAlchemy Core)."""
