"""The process supervisor of the local stack: its configuration, and the calls to it."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import psutil
from supervisor.xmlrpc import SupervisorTransport

from config.settings import PROJECT
from stack.account import MARK, server_folder

STARTED_SECONDS = 60
SERVER_NAMES = ("postgres", "valkey-server")
# supervisord's word, of itself and of its programs.
RUNNING = "RUNNING"
_SAFE = re.compile(r"[\w./-]{1,80}")


class SupervisorError(Exception):
    """The supervisor could not do what it was asked."""


@dataclass(frozen=True)
class Program:
    """A process to keep running. `first` are servers that the others need: they start first and stop last."""

    name: str
    command: list[str]
    first: bool = False
    stop_signal: str = "TERM"
    stop_seconds: int = 30


class Supervisor:
    """supervisord for one state folder."""

    def __init__(self, state_dir: Path) -> None:
        """Nothing is started yet."""
        self._state_dir = state_dir
        self._mark = str(state_dir.resolve())
        # A Unix socket's path may have about 100 bytes, and an ini file takes some characters for its own: for a folder
        # with such a name there is a short one that leads to it.
        digest = hashlib.blake2b(self._mark.encode(), digest_size=8).hexdigest()
        self._private = Path(tempfile.gettempdir()) / f"kasparro-{os.geteuid()}-{digest}"
        self._short = self._state_dir if _SAFE.fullmatch(self._mark) else self._private / "state"
        self._socket = self._short / "supervisor.sock"

    @property
    def running(self) -> bool:
        """True when the supervisor answers."""
        try:
            return bool(self._call().getState()["statename"] == RUNNING)
        except (OSError, xmlrpc.client.Error):
            return False

    def start(self, programs: list[Program], environment: dict[str, str]) -> None:
        """Start the supervisor with the programs that come first; all get this environment besides their own."""
        self._make_short_name()
        (self._state_dir / "logs").mkdir(exist_ok=True)
        config = self._state_dir / "supervisord.conf"
        config.touch(mode=0o600)
        config.write_text(self._config(programs))
        self.sweep()
        self._socket.unlink(missing_ok=True)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
        done = subprocess.run(
            [sys.executable, "-m", "supervisor.supervisord", "-c", self._path(config)],
            cwd=PROJECT,
            env={**inherited, **environment, MARK: self._mark, "STATE_DIR": self._mark},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode or not _within(10, lambda: self.running):
            raise SupervisorError(f"the supervisor did not start: {(done.stderr or done.stdout).strip()}")

    def start_program(self, name: str) -> None:
        """Start a program, unless it runs already, and wait until it has stayed up for a moment."""
        if self.state(name) == RUNNING:
            return
        try:
            self._call().startProcess(name, False)
        except xmlrpc.client.Fault as fault:
            if "ALREADY_STARTED" not in fault.faultString:
                raise SupervisorError(f"{name}: {fault.faultString}") from fault

    def await_program(self, name: str) -> None:
        """Wait until a program runs."""
        if not _within(STARTED_SECONDS, lambda: self.state(name) == RUNNING):
            raise SupervisorError(f"{name} does not stay up; its log: {self._state_dir / 'logs' / (name + '.log')}")

    def state(self, name: str) -> str:
        """The supervisor's word for a program's state."""
        return str(self._call().getProcessInfo(name)["statename"])

    def states(self) -> list[tuple[str, str, str]]:
        """Name, state and description of every program."""
        return [(p["name"], p["statename"], p["description"]) for p in self._call().getAllProcessInfo()]

    def stop(self) -> None:
        """Stop everything, in order, and make sure that nothing is left."""
        if self.running:
            process_id = self._call().getPID()
            self._call().shutdown()
            _within(120, lambda: not psutil.pid_exists(process_id) or _is_zombie(process_id))
        self.sweep()
        self._socket.unlink(missing_ok=True)
        if self._private.is_dir():
            (self._private / "state").unlink(missing_ok=True)
            self._private.rmdir()

    def sweep(self) -> None:
        """End processes of this stack that outlived their supervisor."""
        left = [process for process in psutil.process_iter() if self._is_ours(process)]
        for process in left:
            _ignoring_gone(process.terminate)
        _, stubborn = psutil.wait_procs(left, timeout=20)
        for process in stubborn:
            _ignoring_gone(process.kill)
        psutil.wait_procs(stubborn, timeout=5)

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.pid != os.getpid() and (
                process.environ().get(MARK) == self._mark or self._serves_ours(process)
            )
        except (psutil.Error, OSError):
            return False

    def _serves_ours(self, process: psutil.Process) -> bool:
        """A server in one of our folders: some write over their environment."""
        if process.name() not in SERVER_NAMES:
            return False
        here = Path(process.cwd())
        return any(here.is_relative_to(folder) for folder in (self._mark, server_folder(self._state_dir)))

    def _call(self) -> Any:
        transport = SupervisorTransport(None, None, f"unix://{self._socket}")
        return cast("Any", xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport)).supervisor

    def _config(self, programs: list[Program]) -> str:
        account = "user=root\n" if os.geteuid() == 0 else ""
        head = (
            f"[unix_http_server]\nfile={_escaped(str(self._socket))}\nchmod=0700\n\n"
            f"[supervisord]\n{account}logfile={_escaped(self._path(self._state_dir / 'logs' / 'supervisor.log'))}\n"
            f"pidfile={_escaped(self._path(self._state_dir / 'supervisor.pid'))}\n"
            "logfile_maxbytes=5MB\nlogfile_backups=1\n\n"
            "[rpcinterface:supervisor]\n"
            "supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface\n\n"
        )
        return head + "\n".join(self._section(program) for program in programs)

    def _section(self, program: Program) -> str:
        log = self._path(self._state_dir / "logs" / f"{program.name}.log")
        lines = [
            f"[program:{program.name}]",
            f"command={_escaped(shlex.join(self._path(part) for part in program.command))}",
            f"stdout_logfile={_escaped(log)}",
            "redirect_stderr=true",
            "stdout_logfile_maxbytes=20MB",
            "stdout_logfile_backups=2",
            f"priority={10 if program.first else 100}",
            f"autostart={'true' if program.first else 'false'}",
            "autorestart=true",
            # The default gives up after three quick exits; a database that is slow to come back takes longer.
            "startretries=100000",
            "startsecs=1",
            f"stopsignal={program.stop_signal}",
            f"stopwaitsecs={program.stop_seconds}",
            "killasgroup=true",
        ]
        return "\n".join(lines) + "\n"

    def _make_short_name(self) -> None:
        if self._short == self._state_dir:
            return
        self._private.mkdir(mode=0o700, exist_ok=True)
        status = self._private.lstat()
        if status.st_uid != os.geteuid() or status.st_mode & 0o077 or self._private.is_symlink():
            raise SupervisorError(f"{self._private} belongs to someone else")
        self._short.unlink(missing_ok=True)
        self._short.symlink_to(self._mark)

    def _path(self, path: Path | str) -> str:
        """A path, or a part of a command, as the configuration file can hold it."""
        text = str(path)
        return (
            str(self._short) + text.removeprefix(str(self._state_dir))
            if text.startswith(str(self._state_dir))
            else text
        )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _within(seconds: float, condition: Any) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def _is_zombie(process_id: int) -> bool:
    try:
        return bool(psutil.Process(process_id).status() == psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return True


def _ignoring_gone(action: Any) -> None:
    try:
        action()
    except psutil.NoSuchProcess:
        return
