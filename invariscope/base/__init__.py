"""What the three packages stand on: errors, files, names, registries. Imports nothing of theirs, and no torch."""
