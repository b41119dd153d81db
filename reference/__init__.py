"""The reference study: its data, its text from its tables, and runs trained again."""
