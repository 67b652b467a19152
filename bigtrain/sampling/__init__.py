"""Sampling: from latents and labels, addressed by index, to pictures and files."""
