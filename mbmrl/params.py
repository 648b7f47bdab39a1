"""Adapted layers of several robots: picked, put together, beside the prior's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import no_type_check

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from mbmrl.dynamics import Affine, Params


def take(params: Params, robots: Int[Tensor, " k"]) -> Params:
    """The layers of some of the robots; what all share stays shared."""

    def own(x: Tensor) -> Tensor:
        return x[robots] if x.dim() == 3 else x

    return [
        Affine(own(a.weight), own(a.bias))
        if a.keys is None or a.values is None
        else Affine(own(a.weight), own(a.bias), own(a.keys), own(a.values))
        for a in params
    ]


@no_type_check  # at run time, where one call has but one number of robots and one rank
def together(parts: Sequence[tuple[Int[Tensor, " k"], Params]]) -> Params:
    """The layers of all robots, from those of groups that were adapted apart.

    Additions of another rank get further keys and values of nought, which change nothing.
    """
    order = torch.cat([robots for robots, _ in parts]).argsort()
    sizes = [len(robots) for robots, _ in parts]
    return [
        _layer(layers, sizes, order)
        for layers in zip(*(params for _, params in parts), strict=True)
    ]


def _layer(layers: Sequence[Affine], sizes: Sequence[int], order: Tensor) -> Affine:
    def all_of(tensors: Sequence[Tensor]) -> Tensor:
        if all(x is tensors[0] for x in tensors) and tensors[0].dim() < 3:
            return tensors[0]
        each = [
            x if x.dim() == 3 else x.reshape(1, -1, x.shape[-1]).expand(size, -1, -1)
            for x, size in zip(tensors, sizes, strict=True)
        ]
        return torch.cat(each)[order]

    weight, bias = all_of([a.weight for a in layers]), all_of([a.bias for a in layers])
    rank = max(0 if a.keys is None else a.keys.shape[-2] for a in layers)
    if not rank:
        return Affine(weight, bias)
    pairs = list(zip(layers, sizes, strict=True))
    keys = torch.cat([_padded(a.keys, rank, a.weight.shape[-2], n) for a, n in pairs])
    values = torch.cat([_padded(a.values, rank, a.weight.shape[-1], n) for a, n in pairs])
    return Affine(weight, bias, keys[order], values[order])


def _padded(rows: Tensor | None, rank: int, width: int, size: int) -> Tensor:
    if rows is None:
        return torch.zeros(size, rank, width)
    return torch.nn.functional.pad(rows, (0, 0, 0, rank - rows.shape[-2]))


def and_prior(adapted: Params, prior: Params) -> Params:
    """θ′ of every robot, then θ* for each: one unroll of twice as many takes half as long."""

    def both(after: Tensor, before: Tensor) -> Tensor:
        return before if after is before else torch.cat([after, before.expand_as(after)])

    def one(after: Affine, before: Affine) -> Affine:
        weight, bias = both(after.weight, before.weight), both(after.bias, before.bias)
        if after.keys is None or after.values is None:
            return Affine(weight, bias)
        added = (torch.cat([x, torch.zeros_like(x)]) for x in (after.keys, after.values))
        return Affine(weight, bias, *added)

    return [one(a, b) for a, b in zip(adapted, prior, strict=True)]


def gated(prior: Params, adapted: Params, gate: Bool[Tensor, " r"]) -> Params:
    """θ′ for the robots whose gate is open, θ* for the others."""
    open_ = gate[:, None, None]

    def pick(before: Tensor, after: Tensor) -> Tensor:
        # never a product with 0: where the gate is shut, θ′ may be no number at all
        return before if after is before else torch.where(open_, after, before)

    def one(before: Affine, after: Affine) -> Affine:
        weight, bias = pick(before.weight, after.weight), pick(before.bias, after.bias)
        if after.keys is None or after.values is None:
            return Affine(weight, bias)
        keys, values = (torch.where(open_, x, 0.0) for x in (after.keys, after.values))
        return Affine(weight, bias, keys, values)

    return [one(b, a) for b, a in zip(prior, adapted, strict=True)]
