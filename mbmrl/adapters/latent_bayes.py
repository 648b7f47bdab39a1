"""The gradient step in a latent code, then the ridge on the last layer."""

from __future__ import annotations

from typing import ClassVar

from mbmrl.adapters.bayes import Bayes
from mbmrl.adapters.latent import Latent
from mbmrl.adapters.maml_bayes import MamlBayes
from mbmrl.dynamics import Dynamics


class LatentBayes(MamlBayes):
    """One gradient step of the code, then Bayesian ridge on the features it gives."""

    name: ClassVar[str] = "latent_bayes"

    def __init__(self, dynamics: Dynamics) -> None:
        super(MamlBayes, self).__init__()
        self.body, self.head = Latent(dynamics, steps=1), Bayes(dynamics)
