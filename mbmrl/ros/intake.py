"""ROS 2 messages as they come, in a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation as rcl
from rclpy.qos import QoSProfile
from rclpy.subscription import Subscription


@dataclass(frozen=True)
class Wanted:
    """One subscription.

    Attributes:
        type: of the messages.
        topic: its name, which may be remapped.
        take: called with every message, by the intake's thread.
        qos: of the subscription.
    """

    type: Any
    topic: str
    take: Callable[[Any], None]
    qos: QoSProfile


class Intake:
    """Waits for messages and hands them over; the node need not be spun for that.

    rclpy's executors gather everything that a node has, in Python, for every single message. With
    three topics at 100 Hz that kept the interpreter from the control loop for a third of the time.
    This thread waits as :mod:`rclpy.wait_for_message` does, for its own subscriptions alone.

    Args:
        node: whose topics these are.
        wanted: what to subscribe to.
    """

    def __init__(self, node: Any, wanted: Sequence[Wanted]) -> None:  # noqa: ANN401
        self._node, self._ending = node, False
        kept = {
            "callback_group": _NotTaken(),
            # waiting for a subscription's events, an executor would wake for its messages too
            "event_callbacks": SubscriptionEventCallbacks(use_default_callbacks=False),
        }
        self._subscriptions = [
            node.create_subscription(w.type, w.topic, w.take, w.qos, **kept) for w in wanted
        ]
        # not the node's: an executor that waited for it too would take what was meant for us
        self._wake = GuardCondition(None, None, node.context)
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Unsubscribe; any number of times."""
        self._ending = True
        if not self._subscriptions:
            return
        self._wake.trigger()
        self._thread.join()
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)
        self._subscriptions = []
        self._wake.destroy()

    def _run(self) -> None:
        count, context = len(self._subscriptions), self._node.context
        with context.handle, self._wake.handle:
            waiting = rcl.WaitSet(count, 1, 0, 0, 0, 0, context.handle)
            while not self._ending and context.ok():
                waiting.clear_entities()
                for subscription in self._subscriptions:
                    waiting.add_subscription(subscription.handle)
                waiting.add_guard_condition(self._wake.handle)
                waiting.wait(-1)
                ready = waiting.get_ready_entities("subscription")
                for subscription in self._subscriptions:
                    if subscription.handle.pointer in ready:
                        self._hand_over(subscription)

    @staticmethod
    def _hand_over(subscription: Subscription) -> None:
        with subscription.handle:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
        if taken is not None:
            subscription.callback(taken[0])


class _NotTaken(ReentrantCallbackGroup):
    """Keeps executors from the messages."""

    def can_execute(self, entity: object) -> bool:
        """Whether an executor may wait for it."""
        return not isinstance(entity, Subscription)
