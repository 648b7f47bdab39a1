"""Dynamics over the robot's links: a network that passes messages along the kinematic tree."""

from __future__ import annotations

from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.dynamics import Affine, Dynamics, Params
from mbmrl.spec import RobotSpec, SpecError

ROUNDS = 3
"""How often messages are passed: a base and its feet know of each other after that."""


class GraphDynamics(Dynamics):
    """A graph network: the base and every link is a node, every joint between two an edge.

    A node's fields are encoded to its own d features; then, a few rounds long, each node adds up a
    linear function of its own features and of its parent's and its children's, and an activation;
    a last linear function gives the change of its fields. The three functions of a round are shared
    by all links (the base has its own first one), and a bias a node tells links apart, as in
    Sanchez-Gonzalez et al. 2018 (arXiv 1806.01242) with messages that are linear in the sender.

    Such a round is a layer whose weights are Σ A ⊗ M over who hears whom: what adapts a network,
    and what rolls it out, need not know. Only training keeps the structure: see :meth:`dense`.

    Args:
        spec: of the robot, with its ``tree``.
        hidden: the first width is shared out among the nodes.
        activation: as for :class:`Dynamics`.

    Raises:
        SpecError: the spec has no tree.
    """

    kind: ClassVar[str] = "graph"

    def __init__(
        self, spec: RobotSpec, hidden: tuple[int, ...] = (256,), activation: str = "silu"
    ) -> None:
        if not spec.tree:
            raise SpecError(f"{spec.name} tells nothing of its links: its spec has no tree")
        self.nodes = ["", *spec.tree]
        width = max(1, round(hidden[0] / len(self.nodes)))
        super().__init__(spec, (width * len(self.nodes),) * (ROUNDS + 1), activation)

    def make_layers(self, sizes: list[int]) -> None:
        """See :class:`Dynamics`."""
        width, links = sizes[1] // len(self.nodes), range(1, len(self.nodes))
        heard = torch.zeros(4, len(self.nodes), len(self.nodes))
        heard[0, 0, 0] = 1.0
        for child in links:
            parent = self.nodes.index(self.spec.tree[self.nodes[child]])
            heard[1, child, child] = heard[2, child, parent] = heard[3, parent, child] = 1.0
        self.register_buffer("heard", heard, persistent=False)
        self.heard: Tensor
        inputs = [
            self.spec.link_of(n) for n in (*self.spec.state, *(f.name for f in self.spec.act))
        ]
        outputs = [self.spec.link_of(n) for n in (*self.spec.pose, *self.spec.predicted)]
        for name, links_of in (("read", inputs), ("told", outputs)):
            mask = torch.tensor([[float(link == node) for node in self.nodes] for link in links_of])
            self.register_buffer(f"{name}_mask", mask.repeat_interleave(width, 1), persistent=False)
        self.read_mask: Tensor
        self.told_mask: Tensor
        share = max(1.0, len(inputs) / len(self.nodes)) ** 0.5
        self.encode = nn.Parameter(torch.randn(sizes[0], sizes[1]) / share)
        self.messages = nn.Parameter(torch.randn(ROUNDS, 4, width, width) / (2 * width) ** 0.5)
        self.decode = nn.Parameter(torch.randn(sizes[-2], sizes[-1]) / width**0.5)
        self.biases = nn.ParameterList(torch.zeros(o) for o in sizes[1:])

    def prior(self) -> Params:
        """θ*, multiplied out."""
        passed = [sum_of(self.heard, own) for own in self.messages]
        weights = [self.encode * self.read_mask, *passed, self.decode * self.told_mask.mT]
        return [Affine(w, b) for w, b in zip(weights, self.biases, strict=True)]

    def dense(self) -> Dynamics:
        """The same as a plain network, to be adapted and rolled out."""
        plain = Dynamics(self.spec, self.hidden, self.activation)
        plain.load_state_dict(self.state_dict(), strict=False)
        with torch.no_grad():
            for mine, layer in zip(plain.weights, self.prior(), strict=True):
                mine.copy_(layer.weight)
        return plain


def sum_of(
    heard: Float[Tensor, "k n n"], messages: Float[Tensor, "k d d"]
) -> Float[Tensor, "nd nd"]:
    """Σ A ⊗ M over the k kinds of message, from every node's features to every node's."""
    nodes, width = heard.shape[-1], messages.shape[-1]
    return torch.einsum("knm,kde->ndme", heard, messages).reshape(nodes * width, nodes * width)


NETWORKS: dict[str, type[Dynamics]] = {cls.kind: cls for cls in (Dynamics, GraphDynamics)}
"""Kinds of network, by name."""
