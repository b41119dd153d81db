"""Shift invariance and maximum-sampling bias of trained networks: measured, correlated, drawn."""
