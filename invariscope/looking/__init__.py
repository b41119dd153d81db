"""One network, some images: how stable it is, which layer is to blame, and what another operator there would change."""
