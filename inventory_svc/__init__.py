"""Stock levels and reservations: what there is, what is held for whom, and why."""
