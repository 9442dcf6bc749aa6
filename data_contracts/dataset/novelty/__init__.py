"""Whether a set of synthetic records is different enough from a silo's own: figures, and rules over
them. Everything here is computed in the silo, from texts, and nothing of it is a text."""
