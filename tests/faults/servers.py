"""Real tracking servers that can be killed and started again: `mlflow server`, PostgreSQL."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.faults.results import NotTried

# Seconds; on a quiet machine it takes 10, on one that is busy with other jobs it took minutes.
_READY_WITHIN = 900.0


def free_port() -> int:
    """A port of this machine that nobody uses now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


class MlflowServer:
    """`mlflow server` on this machine alone, always on the same port."""

    def __init__(self, folder: Path, backend: str) -> None:
        """Args: folder, for artifacts and the log; backend, the URI of a database."""
        self._folder, self._backend = folder, backend
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def uri(self) -> str:
        """What MLFLOW_TRACKING_URI is to be."""
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Starts it and waits until it answers.

        Raises:
            NotTried: it does not.
        """
        log = self._folder / "server.log"
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--backend-store-uri", self._backend]
        command += ["--artifacts-destination", str(self._folder / "artifacts")]
        command += ["--host", "127.0.0.1", "--port", str(self._port)]
        environment = {k: v for k, v in os.environ.items() if not k.startswith("MLFLOW_")}
        with log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                cwd=self._folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        until = time.monotonic() + _READY_WITHIN
        while not self._answers():
            code = self._process.poll()
            if code is not None or time.monotonic() > until:
                self.kill()
                lines = log.read_text(errors="replace").strip().splitlines() or ["nothing"]
                how = f"ended with {code}" if code is not None else "does not answer"
                raise NotTried(
                    f"our own mlflow server {how} {_READY_WITHIN - (until - time.monotonic()):.0f} "
                    f"s after its start; its last line: {lines[-1][:300]}"
                )
            time.sleep(0.1)

    def kill(self) -> None:
        """Ends it and its workers with SIGKILL; nothing is put in order."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:  # urllib's own errors are among them
            return False


class PostgreSQL:
    """A database server with a data folder of its own, on this machine alone."""

    def __init__(self, binaries: Path, folder: Path) -> None:
        self._binaries, self._folder = binaries, folder
        self._port = free_port()

    @property
    def uri(self) -> str:
        """What an MLflow server takes as its backend store."""
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self._port}/postgres"

    def make(self) -> None:
        """Writes the data folder."""
        self._run(
            "initdb", "--auth=trust", "--username=postgres", "--encoding=UTF8", "--no-sync",
            f"--pgdata={self._folder / 'data'}",
        )  # fmt: skip

    def start(self) -> None:
        """Starts it and waits until it answers."""
        options = f"-p {self._port} -c listen_addresses=127.0.0.1 -k {self._folder}"
        log = self._folder / "log"
        self._run(
            "pg_ctl", "start", "-w", "-D", str(self._folder / "data"), "-l", str(log), "-o", options
        )

    def kill(self) -> None:
        """Ends it at once; when it starts again it recovers, as after a crash."""
        self._run("pg_ctl", "stop", "-D", str(self._folder / "data"), "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        # The programs refuse to run as root.
        as_other = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        command = [*as_other, str(self._binaries / program), *arguments]
        with tempfile.TemporaryFile("w+") as output:  # a server would keep a pipe open
            done = subprocess.run(command, cwd="/", stdout=output, stderr=output)
            output.seek(0)
            if done.returncode:
                raise NotTried(
                    f"our own {program} ended with {done.returncode}: "
                    f"{' '.join(output.read().split())[-300:]}"
                )


def missing_postgresql() -> str | None:
    """Why there can be no PostgreSQL here, if so."""
    if _binaries() is None:
        return "PostgreSQL is not installed: no initdb on PATH or in /usr/lib/postgresql"
    if importlib.util.find_spec("psycopg2") is None:
        return "psycopg2, by which MLflow reaches PostgreSQL, is not installed"
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        return "PostgreSQL does not run as root, and there is no runuser"
    return None


@contextmanager
def postgresql() -> Iterator[PostgreSQL]:
    """A fresh server that runs, and is gone afterwards."""
    binaries = _binaries()
    if binaries is None:
        raise NotTried("PostgreSQL is not installed")
    # Not below our own folder, which the user `postgres` may not enter.
    folder = Path(tempfile.mkdtemp(prefix="fer-postgresql-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, "postgres", "postgres")
        server = PostgreSQL(binaries, folder)
        server.make()
        server.start()
        try:
            yield server
        finally:
            with suppress(NotTried):
                server.kill()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _binaries() -> Path | None:
    """The folder with initdb and pg_ctl; the newest if there are several."""
    found = shutil.which("initdb")
    if found is not None and shutil.which("pg_ctl") is not None:
        return Path(found).resolve().parent
    folders = [path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")]
    folders = [folder for folder in folders if (folder / "pg_ctl").exists()]
    numbers = {folder: folder.parent.name for folder in folders}
    return max(folders, key=lambda f: float(numbers[f]), default=None)
