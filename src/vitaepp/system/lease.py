"""Locks on folders behind URLs, where no operating system lets go of what a dead process held."""

from __future__ import annotations

import secrets
import threading
from typing import TYPE_CHECKING

from vitaepp.errors import StorageError

if TYPE_CHECKING:
    import vitaepp.system.storage

#: A holder writes its lock anew after this time ...
SECONDS_BETWEEN_BEATS = 5.0
#: ... and one that has not done so for this long is dead.
SECONDS_TO_DIE = 30.0


class Lock:
    """A lock that the operating system releases when the process dies."""

    def check(self) -> None:
        """Make sure that it is still held, which it always is.

        Raises:
            StorageError: another process has taken it over; a `Lease` can be.
        """


class Lease(Lock):
    """A lock that is a file, and lasts as long as its holder writes it again and again.

    Machines need not agree on the time: a process that finds the file watches whether it changes.
    """

    def __init__(self, folder: vitaepp.system.storage.RemoteFolder) -> None:
        self.folder = folder
        self._token = secrets.token_hex(8)
        self._ended = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def take(self) -> None:
        """Take the lock; from a dead holder, after watching that it is dead.

        Raises:
            BlockingIOError: another process holds it.
        """
        try:
            self.folder.create(".lock", self._content(0))
        except FileExistsError:
            self._watch()
            self.folder.write(".lock", self._content(0))
            self._ended.wait(SECONDS_BETWEEN_BEATS / 2)  # others that watched may write it, too
        self.check()
        self._thread.start()

    def check(self) -> None:
        """Make sure that the lock is still held.

        Raises:
            StorageError: another process has taken it over.
        """
        if self._lost or not self._is_ours():
            raise StorageError(
                f"{self.folder}: another prepare has taken over, because this one gave no sign for "
                f"{SECONDS_TO_DIE:g} s; run it again when the other has ended"
            )

    def let_go(self) -> None:
        """Let others take the lock."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        if not self._lost and self._is_ours():
            self.folder.remove(".lock")

    def _watch(self) -> None:
        """Return when the holder is dead.

        Raises:
            BlockingIOError: it is alive.
        """
        first = self._content_now()
        waited = 0.0
        while waited < SECONDS_TO_DIE:
            self._ended.wait(SECONDS_BETWEEN_BEATS / 4)
            waited += SECONDS_BETWEEN_BEATS / 4
            now = self._content_now()
            if now is None:
                return
            if now != first:
                raise BlockingIOError(f"{self.folder}: held by another process")

    def _beat(self) -> None:
        count = 0
        while not self._ended.wait(SECONDS_BETWEEN_BEATS):
            count += 1
            try:
                if not self._is_ours():
                    self._lost = True
                    return
                self.folder.write(".lock", self._content(count))
            except (OSError, StorageError):
                continue  # the network failed for a moment; try again at the next beat

    def _content(self, count: int) -> bytes:
        return f"{self._token} {count}\n".encode()

    def _content_now(self) -> bytes | None:
        try:
            return self.folder.read(".lock")
        except FileNotFoundError:
            return None

    def _is_ours(self) -> bool:
        return (self._content_now() or b"").startswith(self._token.encode())
