"""Jobs that run verbs one after the other: the nightly refresh."""
