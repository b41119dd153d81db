"""How parts of tables lie on disk: written whole, read, compacted."""
