"""The normalised MLP that predicts a robot's next observation, and what adapting adds to it."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mbmrl.spec import RobotSpec, view
from mbmrl.types import RolloutFn, Transitions

CLAMP = 5.0
"""Inputs beyond this many standard deviations are clamped: the network never saw such numbers."""


def _relu(z: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(z), (z > 0).to(z.dtype)


def _silu(z: Tensor) -> tuple[Tensor, Tensor]:
    s = torch.sigmoid(z)
    h = z * s
    return h, torch.addcmul(s + h, h, s, value=-1)


def _tanh(z: Tensor) -> tuple[Tensor, Tensor]:
    h = torch.tanh(z)
    return h, 1 - h * h


Activation: TypeAlias = Callable[[Tensor], Tensor]
WithSlope: TypeAlias = Callable[[Tensor], tuple[Tensor, Tensor]]
ACTIVATIONS: dict[str, tuple[Activation, WithSlope]] = {
    "relu": (torch.relu, _relu),
    "silu": (nn.functional.silu, _silu),
    "tanh": (torch.tanh, _tanh),
}
"""Each activation alone, and with its derivative: together they share the exponential."""


class Affine(NamedTuple):
    """One layer, shared by all robots, and what adapting to each robot's window added to it.

    ``y = x W + b + (x keysᵀ) values``: a gradient step or a ridge update on m transitions has
    rank m, so the m keys and values say all of it, and per-robot weights need not be built.

    Attributes:
        weight: W, shared or per robot.
        bias: b, shared ``(o,)`` or per robot ``(*b, 1, o)``.
        keys: None where nothing was added.
        values: None where nothing was added.
    """

    weight: Float[Tensor, "*#b i o"]
    bias: Float[Tensor, "*#c o"]
    keys: Float[Tensor, "*b m i"] | None = None
    values: Float[Tensor, "*b m o"] | None = None

    def __call__(self, x: Float[Tensor, "*b n i"]) -> Float[Tensor, "*b n o"]:
        """Apply the layer."""
        y = x @ self.weight + self.bias
        if self.keys is None or self.values is None:
            return y
        return y + (x @ self.keys.mT) @ self.values

    def back(self, error: Float[Tensor, "*b n o"]) -> Float[Tensor, "*b n i"]:
        """The gradient at the layer's inputs from the one at its outputs."""
        before = error @ self.weight.mT
        if self.keys is None or self.values is None:
            return before
        return before + (error @ self.values.mT) @ self.keys

    def plus(
        self,
        shift: Float[Tensor, "*b 1 o"],
        keys: Float[Tensor, "*b m i"] | None = None,
        values: Float[Tensor, "*b m o"] | None = None,
    ) -> Affine:
        """The layer with a shift of its bias, and keys and values, added to what it has."""
        if keys is None or values is None:
            return Affine(self.weight, self.bias + shift, self.keys, self.values)
        if self.keys is not None and self.values is not None:
            keys, values = torch.cat([self.keys, keys], -2), torch.cat([self.values, values], -2)
        return Affine(self.weight, self.bias + shift, keys, values)

    def merged(self) -> Affine:
        """The same layer with the addition multiplied out: cheaper where it is used often."""
        if self.keys is None or self.values is None:
            return self
        return Affine(self.weight + self.keys.mT @ self.values, self.bias)


Params: TypeAlias = list[Affine]
"""The layers of a network, first to last."""


class Dynamics(nn.Module):
    """f_θ(obs, act) → change of the state, and of the pose in the body frame, normalised.

    The state is every obs field but the pose; fields that the spec calls known are computed,
    not predicted. Statistics are buffers, made from all stored data
    by :meth:`fit_normaliser`.

    Args:
        spec: of the robot.
        hidden: widths of the hidden layers.
        activation: ``relu``, ``silu`` or ``tanh``.
    """

    kind: ClassVar[str] = "mlp"

    def __init__(
        self, spec: RobotSpec, hidden: tuple[int, ...] = (128, 128), activation: str = "silu"
    ) -> None:
        super().__init__()
        self.spec, self.hidden, self.activation = spec, tuple(hidden), activation
        self.act_fn, self.act_and_slope = ACTIVATIONS[activation]
        self.pose_at = spec.index(spec.pose)
        self.state_at = spec.index(spec.state)
        self.predicted_at = [spec.state.index(n) for n in spec.predicted]
        self.pose_view, self.state_view = view(self.pose_at), view(self.state_at)
        self.predicted_view = view(self.predicted_at)
        self.predicted_fields = view(spec.index(spec.predicted))
        places = [*self.pose_at, *self.state_at]
        self.fields_view = view([places.index(i) for i in range(spec.num_obs)])
        num_in = len(self.state_at) + spec.num_act
        num_out = len(self.pose_at) + len(self.predicted_at)
        sizes = [num_in, *self.hidden, num_out]
        self.make_layers(sizes)
        for name, size in (("input", num_in), ("target", num_out)):
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_std", torch.ones(size))
        self.input_mean: Tensor
        self.input_std: Tensor
        self.target_mean: Tensor
        self.target_std: Tensor
        self.register_buffer("carry_over", self._known_map(), persistent=False)
        self.carry_over: Tensor
        placing = torch.eye(len(self.state_at))[self.predicted_at]
        placing = torch.cat([torch.zeros(len(self.pose_at), len(self.state_at)), placing])
        self.register_buffer("placing", placing, persistent=False)
        self.placing: Tensor
        turn = torch.tensor([2 * math.pi if n in spec.turns else 0.0 for n in spec.predicted])
        self.register_buffer("turn", turn, persistent=False)
        self.turn: Tensor

    def make_layers(self, sizes: list[int]) -> None:
        """The parameters of :meth:`prior`, between layers of these sizes."""
        self.weights = nn.ParameterList(
            torch.randn(i, o) / i**0.5 for i, o in zip(sizes, sizes[1:], strict=False)
        )
        self.biases = nn.ParameterList(torch.zeros(o) for o in sizes[1:])

    def _known_map(self) -> Float[Tensor, "i s"]:
        """Next state before the prediction is added: itself, or the spec's known linear map."""
        spec = self.spec
        names = [*spec.state, *(f.name for f in spec.act)]
        carry = torch.zeros(len(names), len(spec.state))
        for column, name in enumerate(spec.state):
            for source, coefficient in spec.known.get(name, {name: 1.0}).items():
                carry[names.index(source), column] = coefficient
        return carry

    # --- normalised inputs and targets ----------------------------------------------------

    @torch.no_grad()
    def fit_normaliser(self, data: Transitions) -> None:
        """Take means and deviations over ALL the data there is, never over the newest part."""
        inputs = torch.cat([data.obs[..., self.state_view], data.act], -1).flatten(0, -2)
        targets = self.changes(data).flatten(0, -2)
        for name, rows in (("input", inputs), ("target", targets)):
            getattr(self, f"{name}_mean").copy_(rows.mean(0))
            getattr(self, f"{name}_std").copy_(rows.std(0).clamp_min(1e-4))

    def inputs(
        self, obs: Float[Tensor, "*b o"], act: Float[Tensor, "*b u"]
    ) -> Float[Tensor, "*b i"]:
        """What the network sees, normalised and clamped."""
        raw = torch.cat([obs[..., self.state_view], act], -1)
        return self._normalise(raw)

    def _normalise(self, raw: Tensor) -> Tensor:
        return ((raw - self.input_mean) / self.input_std).clamp(-CLAMP, CLAMP)

    def changes(self, data: Transitions) -> Float[Tensor, "*b t"]:
        """What is to be predicted, raw: body-frame motion of the pose, change of the state."""
        change = self.apart(data.next_obs, data.obs)
        if not self.pose_at:
            return change
        motion = body_motion(data.obs[..., self.pose_view], data.next_obs[..., self.pose_view])
        return torch.cat([motion, change], -1)

    def apart(
        self, obs: Float[Tensor, "*#b o"], other: Float[Tensor, "*#b o"]
    ) -> Float[Tensor, "*b p"]:
        """``obs − other`` of the predicted fields, raw; angles that go round the short way."""
        change = (obs - other)[..., self.predicted_fields]
        return change - self.turn * (change / (2 * math.pi)).round()

    def targets(self, data: Transitions) -> Float[Tensor, "*b t"]:
        """:meth:`changes`, normalised."""
        return (self.changes(data) - self.target_mean) / self.target_std

    def obs_scale(self) -> Float[Tensor, " o"]:
        """How much each observation varies: the state's deviation, the pose's in one step."""
        scale = self.input_mean.new_ones(self.spec.num_obs)
        scale[self.state_at] = self.input_std[: len(self.state_at)]
        scale[self.pose_at] = self.target_std[: len(self.pose_at)]
        return scale

    # --- the network ------------------------------------------------------------------------

    def prior(self) -> Params:
        """θ*, the un-adapted layers."""
        return [Affine(w, b) for w, b in zip(self.weights, self.biases, strict=True)]

    def dense(self) -> Dynamics:
        """The same with nothing but :attr:`weights` and :attr:`biases`: itself."""
        return self

    def features(self, params: Params, x: Float[Tensor, "*b n i"]) -> Float[Tensor, "*b n d"]:
        """What the last layer sees."""
        for layer in params[:-1]:
            x = self.act_fn(layer(x))
        return x

    def predict(self, params: Params, x: Float[Tensor, "*b n i"]) -> Float[Tensor, "*b n t"]:
        """Normalised change from normalised inputs."""
        return params[-1](self.features(params, x))

    def forward(
        self, obs: Float[Tensor, "*b n o"], act: Float[Tensor, "*b n u"]
    ) -> Float[Tensor, "*b n t"]:
        """The prior's prediction of :meth:`changes`, in SI units."""
        y = self.predict(self.prior(), self.inputs(obs, act))
        return y * self.target_std + self.target_mean

    # --- open-loop prediction -----------------------------------------------------------------

    def unroll(
        self,
        params: Params,
        obs: Float[Tensor, "*b n o"],
        acts: Float[Tensor, "*b n h u"],
    ) -> Float[Tensor, "*b n h o"]:
        """Predict h steps ahead under given actions; the pose is integrated outside the network."""
        return self.unroll_with(partial(self.predict, params), obs, acts)

    def unroll_with(
        self,
        predict: Callable[[Float[Tensor, "*b n i"]], Float[Tensor, "*b n t"]],
        obs: Float[Tensor, "*b n o"],
        acts: Float[Tensor, "*b n h u"],
    ) -> Float[Tensor, "*b n h o"]:
        """:meth:`unroll` with whatever computes :meth:`predict`."""
        poses = len(self.pose_at)
        to_state = self.target_std[:, None] * self.placing
        drift = self.target_mean @ self.placing
        state = obs[..., self.state_view]
        states, motions = [], []
        for act in acts.unbind(-2):
            raw = torch.cat([state, act], -1)
            y = predict(self._normalise(raw))
            state = raw @ self.carry_over + y @ to_state + drift
            states.append(state)
            motions.append(y[..., :poses])
        future = torch.stack(states, -2)
        if poses:
            motion = torch.stack(motions, -2) * self.target_std[:poses] + self.target_mean[:poses]
            future = torch.cat([integrate(obs[..., self.pose_view], motion), future], -1)
        return future[..., self.fields_view]

    def rollout(self, params: Params) -> RolloutFn:
        """The planner's view of the model: every candidate of every robot, h steps ahead."""
        merged = [layer.merged() for layer in params]

        def roll(obs: Float[Tensor, "r o"], acts: Float[Tensor, "r n h u"]) -> Tensor:
            return self.unroll(merged, obs[:, None].expand(-1, acts.shape[1], -1), acts)

        return roll


def wrap(angle: Tensor) -> Tensor:
    """An angle [rad] in (−π, π]."""
    return torch.atan2(torch.sin(angle), torch.cos(angle))


def body_motion(pose: Float[Tensor, "*b 3"], later: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3"]:
    """Motion between two planar poses, seen from the first: forward, left [m], turn [rad]."""
    dx, dy = (later - pose)[..., 0], (later - pose)[..., 1]
    cos, sin = torch.cos(pose[..., 2]), torch.sin(pose[..., 2])
    return torch.stack(
        [cos * dx + sin * dy, cos * dy - sin * dx, wrap(later[..., 2] - pose[..., 2])], -1
    )


def integrate(
    pose: Float[Tensor, "*b 3"], motion: Float[Tensor, "*b h 3"]
) -> Float[Tensor, "*b h 3"]:
    """The poses that body-frame motions lead through; the inverse of :func:`body_motion`."""
    turned = torch.cumsum(motion[..., 2], -1)
    yaw = pose[..., 2:] + turned
    before = yaw - motion[..., 2]
    cos, sin = torch.cos(before), torch.sin(before)
    x = pose[..., :1] + torch.cumsum(cos * motion[..., 0] - sin * motion[..., 1], -1)
    y = pose[..., 1:2] + torch.cumsum(sin * motion[..., 0] + cos * motion[..., 1], -1)
    return torch.stack([x, y, yaw], -1)
