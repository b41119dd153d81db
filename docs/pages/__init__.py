"""The generated pages of the documentation site: command line, recipes, tables, and pages from outside of ``docs``."""
