"""Where everything of one site lies: one folder, private to its owner."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from appliance.core.errors import ConfigWrong
from appliance.core.vaulted import has_vault


@dataclass(frozen=True, kw_only=True)
class Home:
    """The folders of one site."""

    path: Path

    @property
    def database(self) -> Path:
        """Registry, ledger, jobs and audit log; holds no record text."""
        return self.path / "cloister.db"

    @property
    def people(self) -> Path:
        """Whether this site has people or one person, and what its list of people must lead back to."""
        return self.path / "people.json"

    @property
    def datasets(self) -> Path:
        """One folder per dataset and version."""
        return self.path / "datasets"

    @property
    def models(self) -> Path:
        """One folder per registry entry."""
        return self.path / "models"

    @property
    def jobs(self) -> Path:
        """One folder per job: spec.json, events.jsonl (and spare room for it), log.txt."""
        return self.path / "jobs"

    @property
    def documents(self) -> Path:
        """One folder per collection of documents that answers may cite."""
        return self.path / "documents"

    @property
    def feedback(self) -> Path:
        """What people said of answers, one JSON file each: record text."""
        return self.path / "feedback"

    @property
    def bundles(self) -> Path:
        """One folder per bundle that came in, named by the hash of its manifest."""
        return self.path / "bundles"

    @property
    def wheelhouses(self) -> Path:
        """Wheelhouses that came in, one folder each, to install from."""
        return self.path / "wheelhouses"

    @property
    def identity(self) -> Path:
        """The site's own signing and receiving keys."""
        return self.path / "keys" / "identity.json"

    @property
    def tls(self) -> Path:
        """The site's own CA and certificate, made when an endpoint needs one."""
        return self.path / "tls"

    @property
    def witnesses(self) -> Path:
        """Signed checkpoints of the audit log that came back from outside, one file each."""
        return self.path / "witnesses"

    @property
    def reports(self) -> Path:
        """Evaluation reports, JSON and HTML."""
        return self.path / "reports"

    @property
    def routes(self) -> Path:
        """What routers have learnt from records, one file each."""
        return self.path / "routes"


def place_of(path: Path | None = None) -> Path:
    """The folder of a home: `path`, else `CLOISTER_HOME`, else `~/.cloister`. Makes nothing."""
    chosen = path or Path(os.environ.get("CLOISTER_HOME") or Path.home() / ".cloister")
    return chosen.expanduser().absolute()


def open_home(path: Path | None = None) -> Home:
    """Return the site's home, made if missing: see `place_of`. It is private if this user owns it.

    Raises:
        ConfigWrong: the folder cannot be made or written. VaultGone: it is sealed, and its vault.json is
            missing or another home's.
    """
    home = Home(path=place_of(path))
    try:
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_private(home.path)
        for folder in (
            home.datasets,
            home.models,
            home.jobs,
            home.reports,
            home.documents,
            home.feedback,
            home.routes,
            home.bundles,
            home.identity.parent,
        ):
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as problem:
        raise ConfigWrong(
            f"The home folder {home.path} cannot be used: {problem.strerror}.",
            "Choose another with --home DIR or CLOISTER_HOME.",
        ) from problem
    has_vault(home.path)  # whatever is done next, it is not done to a sealed home that looks plain
    return home


def _make_private(folder: Path) -> None:
    """Shut out other accounts, unless the folder is someone else's or shared by all, as /tmp."""
    found = folder.stat()
    shared = found.st_mode & stat.S_ISVTX or folder == folder.parent
    if found.st_uid == os.geteuid() and found.st_mode & 0o077 and not shared:
        folder.chmod(0o700)
