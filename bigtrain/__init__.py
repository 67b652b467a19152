"""bigtrain: train generative adversarial networks at any scale, and never lose the place."""

__version__ = "0.1.0"
