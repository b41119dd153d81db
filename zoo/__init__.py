"""What is measured: downsampling operators, architectures, data sets, training, and outside checkpoints.

Importing this package does not import torch; its modules do.
"""
