"""The simulator's own test: deliberate mistakes in the production code, which lives must notice."""
