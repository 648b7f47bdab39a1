"""A bus of DYNAMIXEL X servos (protocol 2.0) as a robot, set up by a YAML file.

.. code-block:: yaml

    name: arm
    port: /dev/ttyUSB0
    baud: 1000000        # as the servos are set
    dt: 0.02             # control period [s]
    watchdog: 0.1        # a servo that hears nothing for so long stops by itself [s]
    servos:              # angle = direction · (position − middle) + offset, all in rad
      - {id: 1, name: hip, low: -1.5, high: 1.5}
      - {id: 2, name: knee, direction: -1, offset: 0.5, low: -1.0, high: 1.2, rest: 0.3}

Each servo gives two fields, its angle ``hip`` [rad] and ``hip_rate`` [rad/s], and takes one, the
goal ``hip_goal`` [rad]. Registers and units are those of the X series' control table
(emanual.robotis.com, XM430-W350). Tested against an emulated bus that speaks the protocol, not
against servos.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import numpy as np
from jaxtyping import Float

from mbmrl.spec import Field, RobotSpec, SpecError
from robots.base import Robot

if TYPE_CHECKING:
    from typing_extensions import Self

T = TypeVar("T")

OPERATING_MODE, TORQUE, HARDWARE_ERROR, WATCHDOG = 11, 64, 70, 98
GOAL, VELOCITY, POSITION = 116, 128, 132
"""Addresses of registers."""
STATE = range(VELOCITY, POSITION + 4)
"""What is read each tick."""
POSITION_MODE = 3
TRIPPED = 0xFF  # the watchdog's register, once it has stopped the servo
ALERT = 128  # the bit of a status packet that tells of a hardware error
MIDDLE = 2048  # the position in the middle of a turn
RAD = 2 * math.pi / 4096  # of one step of position
RAD_S = 0.229 * 2 * math.pi / 60  # of one step of velocity
WATCHDOG_STEP = 0.02  # [s]
HARDWARE = {
    0: "input voltage",
    2: "overheating",
    3: "motor encoder",
    4: "electrical shock",
    5: "overload",
}


class BusError(ConnectionError):
    """The bus or a servo that does not do what it was asked."""


class NoAnswer(BusError):
    """A servo whose answer did not come, or came garbled."""


@dataclass(frozen=True, kw_only=True)
class Servo:
    """One servo of the bus.

    Attributes:
        id: on the bus.
        name: of its fields.
        direction: 1 or −1.
        offset: the angle in the middle of its turn [rad].
        low: smallest angle to go to [rad].
        high: largest such angle [rad].
        rest: the angle that does no harm [rad].
    """

    id: int
    name: str
    direction: int = 1
    offset: float = 0.0
    low: float
    high: float
    rest: float = 0.0

    def __post_init__(self) -> None:
        """Refuse what no servo can be; raises :class:`SpecError`."""
        if self.direction not in (1, -1):
            raise SpecError(f"{self.name}: direction is 1 or -1, not {self.direction}")
        if not 0 <= self.id <= 252:
            raise SpecError(f"{self.name}: an id is between 0 and 252, not {self.id}")
        if not self.low <= self.rest <= self.high:
            raise SpecError(f"{self.name}: rest {self.rest} is not within its limits")
        if min(self.steps) < 0 or max(self.steps) > 4095:
            raise SpecError(f"{self.name}: its limits lie beyond half a turn from the middle")

    @property
    def steps(self) -> tuple[int, int]:
        """The positions at the limits, rounded inwards."""
        a, b = ((x - self.offset) * self.direction / RAD + MIDDLE for x in (self.low, self.high))
        return math.ceil(min(a, b)), math.floor(max(a, b))

    def position(self, angle: float) -> int:
        """The position nearest an angle, within the limits."""
        low, high = self.steps
        return min(high, max(low, round((angle - self.offset) * self.direction / RAD + MIDDLE)))

    def angle(self, position: int) -> float:
        """The angle at a position [rad]."""
        return self.direction * (position - MIDDLE) * RAD + self.offset


class Dynamixel(Robot):
    """Servos in position mode: read and written all at once, torque off when stopped.

    Connecting makes the present positions the goals before the torque comes on, and arms the
    servos' own watchdogs, so that they stop where they are when this program is gone.
    """

    driver: ClassVar[str] = "dynamixel"
    servos: ClassVar[tuple[Servo, ...]]
    port: ClassVar[str]
    baud: ClassVar[int]
    watchdog: ClassVar[float]

    @classmethod
    def from_file(cls, file: Path) -> type[Self]:
        """The robot that a YAML file describes.

        Raises:
            SpecError: for a file that cannot be read, or describes none.
        """
        from ruamel.yaml import YAML, YAMLError

        try:
            about = dict(YAML(typ="safe", pure=True).load(file.read_text()))
            servos = tuple(Servo(**s) for s in about.pop("servos"))
            name, dt = about.pop("name"), float(about.pop("dt"))
            kept = {
                "port": str(about.pop("port")),
                "baud": int(about.pop("baud", 1_000_000)),
                "watchdog": float(about.pop("watchdog", 0.1)),
            }
        except (OSError, YAMLError, TypeError, ValueError, KeyError) as error:
            raise SpecError(f"{file} describes no bus of servos: {error}") from error
        if about:
            raise SpecError(f"{file}: unknown keys {sorted(about)}")
        if not dt < kept["watchdog"] <= 127 * WATCHDOG_STEP:  # type: ignore[operator]
            raise SpecError(f"{file}: watchdog is longer than dt, and 2.54 s at most")
        spec = RobotSpec(
            name=name,
            dt=dt,
            obs=(
                *(Field(s.name, "rad") for s in servos),
                *(Field(f"{s.name}_rate", "rad/s") for s in servos),
            ),
            act=tuple(Field(f"{s.name}_goal", "rad", s.low, s.high) for s in servos),
            safe_act=tuple(s.rest for s in servos),
            command="position",
            stale_after=2 * dt,
        )
        return type(cls.__name__, (cls,), {"servos": servos, "spec": spec, **kept})

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._port: Any = None
        self._bus: Any = None
        self._heard = math.inf  # when the servos last heard something

    def connect(self) -> None:
        """Find every servo, let none jump, torque on, watchdogs armed.

        Raises:
            BusError: where the port or a servo is missing.
        """
        from dynamixel_sdk import PacketHandler, PortHandler

        with self._lock:
            self.stop()
            port, self._bus = PortHandler(self.port), PacketHandler(2.0)
            try:
                opened = port.setBaudRate(self.baud)
            except OSError as error:
                raise BusError(f"{self.port} cannot be opened: {error}") from error
            if not opened:
                raise BusError(f"the SDK knows no rate of {self.baud} baud")
            self._port = port
            try:
                self._set_up()
            except BaseException:
                self.stop()
                raise

    def _set_up(self) -> None:
        for servo in self.servos:
            self._set(servo, TORQUE, 0)
            if self._get(servo, OPERATING_MODE) != POSITION_MODE:  # it wears: only where needed
                self._set(servo, OPERATING_MODE, POSITION_MODE)
            self._set(servo, WATCHDOG, 0)  # a tripped one refuses goals
        self._send_goals([position for position, _ in self._states()])
        for servo in self.servos:
            self._set(servo, TORQUE, 1)
        for servo in self.servos:
            self._set(servo, WATCHDOG, math.ceil(self.watchdog / WATCHDOG_STEP))
        self._heard = time.monotonic()

    def reset(self) -> None:
        """An episode starts wherever the servos are."""

    def read(self) -> Float[np.ndarray, " o"]:
        """Angles and rates of all servos.

        Raises:
            BusError: for a servo that does not answer, has stopped by itself, or a port that is
                gone.
        """
        with self._lock:
            self._check_watchdogs()
            states = self._again(self._states)
            self.stamp = self._heard = time.monotonic()
        angles = [s.angle(position) for s, (position, _) in zip(self.servos, states, strict=True)]
        rates = [s.direction * RAD_S * v for s, (_, v) in zip(self.servos, states, strict=True)]
        return np.array([*angles, *rates])

    def write(self, act: Float[np.ndarray, " u"]) -> Float[np.ndarray, " u"]:
        """Send goals within the limits, in whole steps of the servos.

        Raises:
            ValueError: for an action of the wrong size or with a number that is not finite.
            BusError: where the port is gone.
        """
        if np.shape(act) != (len(self.servos),) or not np.isfinite(act).all():
            raise ValueError(f"{self.spec.name} takes {len(self.servos)} finite goals, not {act}")
        goals = [s.position(float(a)) for s, a in zip(self.servos, act, strict=True)]
        with self._lock:
            self._check_watchdogs()
            self._send_goals(goals)
            self._heard = time.monotonic()
        return np.array([s.angle(goal) for s, goal in zip(self.servos, goals, strict=True)])

    def held(self) -> Float[np.ndarray, " u"]:
        """The angles that the servos have."""
        return self.read()[: len(self.servos)]

    def stop(self) -> None:
        """Torque off, and let go of the port; where it is gone, the watchdogs stop the servos."""
        with self._lock:
            if self._port is None:
                return
            port, self._port = self._port, None
            off = [x for s in self.servos for x in (s.id, 0)]
            with suppress(Exception):  # pyserial's errors differ from system to system
                port.is_using = False  # whatever it was interrupted in
                for _ in range(2):  # nobody acknowledges it
                    self._bus.syncWriteTxOnly(port, TORQUE, 1, off, len(off))
            with suppress(Exception):
                port.closePort()

    # --- the bus --------------------------------------------------------------------------------

    def _send_goals(self, goals: Sequence[int]) -> None:
        params = [
            x
            for servo, goal in zip(self.servos, goals, strict=True)
            for x in (servo.id, *goal.to_bytes(4, "little", signed=True))
        ]
        result = self._ask(self._bus.syncWriteTxOnly, GOAL, 4, params, len(params))
        if result:
            raise BusError(f"the goals were not sent: {self._said(result)}")

    def _states(self) -> list[tuple[int, int]]:
        """Position and velocity of each servo, in its own units."""
        found = []
        for data in self._sync_read(STATE):
            velocity, position = (
                int.from_bytes(data[at - STATE.start :][:4], "little", signed=True)
                for at in (VELOCITY, POSITION)
            )
            found.append((position, velocity))
        return found

    def _sync_read(self, registers: range) -> list[bytes]:
        """The same registers of every servo."""
        ids = [s.id for s in self.servos]
        args = (registers.start, len(registers), ids, len(ids), False)
        result = self._ask(self._bus.syncReadTx, *args)
        if result:
            raise BusError(f"the bus was not asked: {self._said(result)}")
        found = []
        for servo in self.servos:
            data, result, error = self._ask(self._bus.readRx, servo.id, len(registers))
            if result or len(data) != len(registers):
                raise NoAnswer(f"{self._name(servo)} gives no answer: {self._said(result)}")
            if error & ALERT:
                raise BusError(f"{self._name(servo)} stopped itself: {self._hardware_error(servo)}")
            found.append(bytes(data))
        return found

    def _check_watchdogs(self) -> None:
        """Only where there was a pause that may have been too long."""
        if time.monotonic() - self._heard < self.watchdog / 2:
            return
        states = self._again(lambda: self._sync_read(range(WATCHDOG, WATCHDOG + 1)))
        for servo, (state,) in zip(self.servos, states, strict=True):
            if state == TRIPPED:
                raise BusError(
                    f"the watchdog of {self._name(servo)} tripped, as it heard nothing for "
                    f"{self.watchdog:g} s: connect() again"
                )

    def _hardware_error(self, servo: Servo) -> str:
        bits, result, _ = self._ask(self._bus.read1ByteTxRx, servo.id, HARDWARE_ERROR)
        said = [text for bit, text in HARDWARE.items() if not result and bits >> bit & 1]
        return ", ".join(said) or "hardware error"

    def _set(self, servo: Servo, address: int, value: int) -> None:
        def write() -> int:
            result, error = self._ask(self._bus.write1ByteTxRx, servo.id, address, value)
            if result:
                raise NoAnswer(f"{self._name(servo)} gives no answer: {self._said(result)}")
            return int(error)

        error = self._again(write) & ~ALERT
        if error:
            said = self._bus.getRxPacketError(error)
            raise BusError(f"{self._name(servo)}, register {address} to {value}: {said}")

    def _get(self, servo: Servo, address: int) -> int:
        def read() -> int:
            value, result, _ = self._ask(self._bus.read1ByteTxRx, servo.id, address)
            if result:
                raise NoAnswer(f"{self._name(servo)} gives no answer: {self._said(result)}")
            return int(value)

        return self._again(read)

    def _again(self, call: Callable[[], T]) -> T:
        """Once more where a packet was lost or garbled, as one in so many is on a long cable."""
        try:
            return call()
        except NoAnswer:
            return call()

    def _ask(self, call: Callable[..., Any], *args: object) -> Any:  # noqa: ANN401
        """Something of the SDK, on a port that is still there."""
        if self._port is None:
            raise BusError(f"{self.spec.name} is not connected")
        try:
            return call(self._port, *args)
        except Exception as error:  # pyserial's errors differ from system to system
            self._port.is_using = False
            raise BusError(f"{self.port} is gone: {error}") from error

    def _said(self, result: int) -> str:
        return str(self._bus.getTxRxResult(result)).removeprefix("[TxRxResult] ") if result else ""

    def _name(self, servo: Servo) -> str:
        return f"servo {servo.id} ({servo.name})"
