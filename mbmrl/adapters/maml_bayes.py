"""The gradient step on the body, then the ridge on the last layer."""

from __future__ import annotations

from typing import ClassVar

from mbmrl.adapters.base import Adapter
from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.maml import Maml, Rates
from mbmrl.dynamics import Dynamics, Params
from mbmrl.types import Transitions


class MamlBayes(Adapter):
    """One MAML step on all layers but the last, then Bayesian ridge on the features it gives."""

    name: ClassVar[str] = "maml_bayes"

    def __init__(
        self, dynamics: Dynamics, rates: Rates = "factored", initial: float = 0.15
    ) -> None:
        super().__init__()
        self.body: Adapter = Maml(dynamics, rates, initial, layers=range(len(dynamics.hidden)))
        self.head = Bayes(dynamics)

    def adapt(self, prior: Dynamics, window: Transitions) -> Params:
        """See :class:`Adapter`."""
        params = self.body.adapt(prior, window)
        if window.act.shape[-2] == 0:
            return params
        phi = prior.features(params, prior.inputs(window.obs, window.act))
        return [*params[:-1], self.head.regress(params[-1], phi, prior.targets(window))]
