"""Sums of samples' latents: "3 - 5 + 8" is the latent of sample 3, less that of sample 5, plus that of sample 8."""

from __future__ import annotations

import re
from typing import NamedTuple

import torch
from torch import Tensor

from bigtrain.sampling.generate import Sampler


class Term(NamedTuple):
    """A sample's latent that is added or subtracted."""

    sign: int  # 1 or -1
    sample: int


def parse(formula: str) -> list[Term]:
    """The terms of a formula of sample indices.

    Raises:
        ValueError: if it is none.
    """
    if not re.fullmatch(r"\s*[+-]?\s*\d+(\s*[+-]\s*\d+)*\s*", formula):
        raise ValueError(
            f"formula (={formula!r}) must be sample indices with + and - between them, such as '3 - 5 + 8'"
        )
    found = re.findall(r"([+-]?)\s*(\d+)", formula)
    return [Term(-1 if sign == "-" else 1, int(sample)) for sign, sample in found]


def operands_and_sum(sampler: Sampler, terms: list[Term]) -> Tensor:
    """The latents of the terms' samples and, last, their signed sum: float32 [terms + 1, latent_dim].

    The sum of n latents is about √n as long as each; generators that normalize latents do not see that.
    """
    latents = sampler.latents([term.sample for term in terms])
    signs = torch.tensor([[term.sign] for term in terms])
    return torch.cat((latents, (signs * latents).sum(dim=0, keepdim=True)))
