"""An emulated bus of X-series servos on a pseudo-terminal, in a process of its own.

``python servo_bus.py ID …`` prints the terminal's name, then obeys lines on its standard input:

- ``crc N``: garble the next N answers;          ``silent ID``: that servo answers no more;
- ``overload ID``: it shuts down;                ``gone``: the terminal is closed;
- ``state``: print every servo's registers as JSON.

It speaks DYNAMIXEL protocol 2.0 as the manual describes it, and shares no code with the SDK.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
import tty

BROADCAST = 0xFE
SPEED = 2000.0  # of a servo [positions/s]
RESULT, CRC_ERROR, ACCESS = 1, 3, 7


def shifted(crc: int) -> int:
    """A byte through the CRC-16 of polynomial 0x8005, bit by bit."""
    for _ in range(8):
        crc = (crc << 1 ^ (0x8005 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


TABLE = [shifted(byte << 8) for byte in range(256)]


def crc16(data: bytes) -> int:
    crc = 0
    for byte in data:
        crc = (crc << 8 & 0xFFFF) ^ TABLE[crc >> 8 ^ byte]
    return crc


class Servo:
    def __init__(self, number: int) -> None:
        self.id = number
        self.table = bytearray(147)
        self.table[0:2] = (1020).to_bytes(2, "little")
        self.table[11] = 1  # velocity mode, as nobody wants it
        self.put(132, 2048 + 10 * number)
        self.put(116, 0)
        self.heard = self.moved = time.monotonic()
        self.silent = False

    def put(self, at: int, value: int) -> None:
        self.table[at : at + 4] = value.to_bytes(4, "little", signed=True)

    def get(self, at: int) -> int:
        return int.from_bytes(self.table[at : at + 4], "little", signed=True)

    def write(self, at: int, data: bytes) -> int:
        """The error number."""
        if at < 64 and self.table[64]:
            return ACCESS
        if 100 <= at < 120 and self.table[98] == 0xFF:
            return ACCESS
        self.table[at : at + len(data)] = data
        return 0

    def move(self, now: float) -> None:
        step, self.moved = SPEED * (now - self.moved), now
        if self.table[98] not in (0, 0xFF) and now - self.heard > 0.02 * self.table[98]:
            self.table[98] = 0xFF
            self.put(116, self.get(132))
        gap = self.get(116) - self.get(132)
        going = self.table[64] and abs(gap) > 0
        moved = int(max(-step, min(step, gap))) if going else 0
        self.put(132, self.get(132) + moved)
        self.put(128, int(SPEED / 4096 * 60 / 0.229) * (gap > 0 or -1) if moved else 0)


class Bus:
    def __init__(self, ids: list[int]) -> None:
        self.servos = {i: Servo(i) for i in ids}
        self.garbled = 0
        self.master, slave = os.openpty()
        tty.setraw(slave)
        tty.setraw(self.master)
        self.slave = slave
        self.buffer = b""
        print(os.ttyname(slave), flush=True)

    def answer(self, servo: Servo, error: int, data: bytes = b"") -> None:
        if servo.silent:
            return
        alert = 0x80 if servo.table[70] else 0
        body = bytes([0x55, error | alert]) + data.replace(b"\xff\xff\xfd", b"\xff\xff\xfd\xfd")
        head = b"\xff\xff\xfd\x00" + bytes([servo.id]) + (len(body) + 2).to_bytes(2, "little")
        packet = head + body
        crc = crc16(packet)
        if self.garbled:
            self.garbled -= 1
            crc ^= 0x0101
        os.write(self.master, packet + crc.to_bytes(2, "little"))

    def serve(self) -> None:
        while True:
            ready, _, _ = select.select([self.master, sys.stdin], [], [], 0.004)
            now = time.monotonic()
            for servo in self.servos.values():
                servo.move(now)
            if self.master in ready:
                self.buffer += os.read(self.master, 4096)
                self.parse()
            elif sys.stdin in ready:
                line = sys.stdin.readline()
                if not line:
                    return
                self.obey(*line.split())

    def obey(self, what: str, number: str = "0") -> None:
        if what == "crc":
            self.garbled = int(number)
        elif what == "silent":
            self.servos[int(number)].silent = True
        elif what == "overload":
            servo = self.servos[int(number)]
            servo.table[70], servo.table[64] = 1 << 5, 0
        elif what == "gone":
            os.close(self.slave)
            os.close(self.master)
            self.master, self.slave = os.openpty()
        elif what == "state":
            told = {i: list(s.table) for i, s in self.servos.items()}
            print(json.dumps(told), flush=True)

    def parse(self) -> None:
        while True:
            start = self.buffer.find(b"\xff\xff\xfd\x00")
            if start < 0 or len(self.buffer) < start + 7:
                return
            self.buffer = self.buffer[start:]
            end = 7 + int.from_bytes(self.buffer[5:7], "little")
            if len(self.buffer) < end:
                return
            packet, self.buffer = self.buffer[:end], self.buffer[end:]
            if crc16(packet[:-2]) == int.from_bytes(packet[-2:], "little"):
                body = packet[8:-2].replace(b"\xff\xff\xfd\xfd", b"\xff\xff\xfd")
                self.instruct(packet[4], packet[7], body)

    def instruct(self, number: int, instruction: int, body: bytes) -> None:
        now = time.monotonic()
        for servo in self.servos.values():
            servo.heard = now
        if instruction in (0x82, 0x83):  # sync read, sync write
            at, length = (int.from_bytes(body[i : i + 2], "little") for i in (0, 2))
            rest = body[4:]
            if instruction == 0x82:
                for i in rest:
                    if i not in self.servos or self.servos[i].silent:
                        break  # those after it wait for its answer
                    self.answer(self.servos[i], 0, bytes(self.servos[i].table[at : at + length]))
                return
            for k in range(0, len(rest), 1 + length):
                if rest[k] in self.servos:
                    self.servos[rest[k]].write(at, rest[k + 1 : k + 1 + length])
            return
        if number == BROADCAST or number not in self.servos:
            return
        servo = self.servos[number]
        if instruction == 1:
            self.answer(servo, 0, bytes(servo.table[0:2]) + b"\x2a")
        elif instruction == 2:
            at, length = (int.from_bytes(body[i : i + 2], "little") for i in (0, 2))
            self.answer(servo, 0, bytes(servo.table[at : at + length]))
        elif instruction == 3:
            self.answer(servo, servo.write(int.from_bytes(body[:2], "little"), body[2:]))


if __name__ == "__main__":
    Bus([int(i) for i in sys.argv[1:]]).serve()
