"""One file per table: its columns, its options, the settings of its tasks, its rows; importable without torch."""
