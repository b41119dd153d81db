"""The tables as they were measured, and the frames that everything else reads.

``load`` reads a folder; ``checkpoints`` says what a checkpoint is, for every frame; ``joined`` has a row per
checkpoint, data set and shift plan; ``frames`` has every frame by name, each made once; ``plans`` knows the columns
of a shift plan and the shift kinds; ``published`` reads the tables of papers.
"""
