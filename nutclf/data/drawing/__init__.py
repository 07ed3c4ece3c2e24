"""Pictures from code: solids under one light, on a backdrop with clutter, seen by a poor camera."""
