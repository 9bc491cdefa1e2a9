"""Why a decision was made, what would change it, and what surrounds it: as values and as a page."""
