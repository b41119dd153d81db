"""Pure functions that measure a network on images; each works on a bare ``nn.Module`` and changes nothing of it."""
