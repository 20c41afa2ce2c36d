"""The one folder for all that the app writes down in passing: uploads, and files that visitors save."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from app.web.checks import Refused

AGE = 120.0
"""Seconds that a file stays that nobody has written to or read since."""
LOOK = 60.0
"""Seconds between two looks for such files: together, what the README promises."""
MOST_BYTES = 2_000_000_000


class TemporaryFolder:
    """A folder of this user's, for the files of all apps of theirs; what is old in it goes, also after a crash.

    Parameters
    ----------
    path : Path, optional
        By default one in the system's folder for such files.

    Raises
    ------
    OSError
        If it can't be made, or is somebody else's.
    """

    def __init__(self, path: Path | None = None, most_bytes: int = MOST_BYTES) -> None:
        user = os.getuid() if hasattr(os, "getuid") else "lab"
        name, given = f"lampe-lab-{user}", Path(tempfile.gettempdir())
        self.path = path or (given if given.name == name else given / name)  # another page of this process has it
        self.most_bytes = most_bytes
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = self.path.lstat()
        if not stat.S_ISDIR(about.st_mode) or (hasattr(os, "getuid") and about.st_uid != os.getuid()):
            raise OSError(f"{self.path} is there already and isn't this user's folder: remove it, or set TMPDIR.")
        self.path.chmod(0o700)
        self.sweep()

    def take_over(self) -> None:
        """Have all of this process's temporary files written here, gradio's too, and swept from now on."""
        tempfile.tempdir = str(self.path)
        os.environ["GRADIO_TEMP_DIR"] = str(self.path)
        threading.Thread(target=self._keep_swept, name="temporary files", daemon=True).start()

    def sweep(self, age: float = AGE, room: int = 0) -> None:
        """Delete what is older, and the oldest of what leaves no room; a file's age is that of its last use."""
        files = sorted(self._files())
        now = time.time()  # after the look: what came meanwhile isn't from the future
        total = sum(size for _, size, _ in files)
        for used, size, file in files:
            # A clock that was set back leaves files from the future.
            if not 0 <= now - used <= age or total + room > self.most_bytes:
                with suppress(OSError):
                    file.unlink()
                total -= size
        for folder, folders, names in os.walk(self.path, topdown=False):
            if not folders and not names and Path(folder) != self.path:
                with suppress(OSError):
                    if now - Path(folder).stat().st_mtime > age:
                        Path(folder).rmdir()

    def check_room(self, needed: int) -> None:
        """Make room for an upload, or refuse it.

        Raises
        ------
        Refused
        """
        self.path.mkdir(mode=0o700, exist_ok=True)  # whoever tidies the disk may have taken it
        if sum(size for _, size, _ in self._files()) + needed > self.most_bytes:
            self.sweep(room=needed)
        if shutil.disk_usage(self.path).free < needed:
            raise Refused(507, "There is no room for uploads on this server just now: try again in a few minutes.")

    def _files(self) -> Iterator[tuple[float, int, Path]]:
        for folder, _, names in os.walk(self.path):
            for name in names:
                file = Path(folder) / name
                with suppress(OSError):
                    about = file.lstat()
                    yield max(about.st_mtime, about.st_atime), about.st_size, file

    def _keep_swept(self) -> None:
        while True:
            time.sleep(LOOK)
            with suppress(OSError):
                self.sweep()
