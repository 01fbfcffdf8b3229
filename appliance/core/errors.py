"""Every error a person may meet: what failed, then what to do next.

Messages never contain the text of a record. The CLI prints two lines and exits with the
family's code; the TUI shows the same two lines.
"""

from __future__ import annotations


class ApplianceError(Exception):
    """An expected failure: `message` says what failed, `hint` what to do next."""

    code = "failed"
    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigWrong(ApplianceError):
    """A setting, flag or name that cannot be used."""

    code = "config-wrong"
    exit_code = 2


class NotFound(ApplianceError):
    """A dataset, model, job or file that is not there."""

    code = "not-found"
    exit_code = 3


class DataRejected(ApplianceError):
    """Records that cannot be read or used as asked."""

    code = "data-rejected"
    exit_code = 4


class BudgetSpent(ApplianceError):
    """The privacy budget does not allow what was asked."""

    code = "budget-spent"
    exit_code = 5


class PrivacyRefused(ApplianceError):
    """A training set-up whose privacy claim would not hold."""

    code = "privacy-refused"
    exit_code = 5


class GateFailed(ApplianceError):
    """A model that did not pass the rule asked of it."""

    code = "gate-failed"
    exit_code = 6


class ModelRejected(ApplianceError):
    """A base, adapter or GGUF that is damaged, unsafe or of an unknown kind."""

    code = "model-rejected"
    exit_code = 7


class ModelChanged(ModelRejected):
    """A file that is not the one that was registered."""


class ProofFailed(ApplianceError):
    """A converted file that is not, provably, the model it came from."""

    code = "proof-failed"
    exit_code = 7


class NoRoom(ApplianceError):
    """Not enough disk or memory for the step."""

    code = "no-room"
    exit_code = 8


class NoMemory(NoRoom):
    """Not enough memory for this model with these settings; other settings may do."""


class Busy(ApplianceError):
    """A port, job or file that something else holds."""

    code = "busy"
    exit_code = 9


class EngineFailed(ApplianceError):
    """The model engine stopped, crashed or did not answer."""

    code = "engine-failed"
    exit_code = 10


class JobFailed(ApplianceError):
    """A child process that ended without its result."""

    code = "job-failed"
    exit_code = 11


class Diverged(ApplianceError):
    """A training run whose loss or weights stopped being numbers."""

    code = "diverged"
    exit_code = 11


class InstallationAltered(ApplianceError):
    """Installed files that are not what was installed."""

    code = "installation-altered"
    exit_code = 12


class LogDamaged(ApplianceError):
    """The audit log is not what it was: an entry, its tree or a signed checkpoint of it."""

    code = "log-damaged"
    exit_code = 12


class NotAllowed(ApplianceError):
    """What this person's role does not allow, or what nobody proved to have ordered."""

    code = "not-allowed"
    exit_code = 13


class NeedsApproval(NotAllowed):
    """What two people must have agreed to first; `request` is what they are asked."""

    code = "needs-approval"

    def __init__(self, message: str, hint: str = "", *, request: str = "") -> None:
        super().__init__(message, hint)
        self.request = request


class JailRefused(ApplianceError):
    """A process that may not run because nothing would keep it from the network."""

    code = "jail-refused"
    exit_code = 14


class BundleRefused(ApplianceError):
    """A bundle that may not come in or go out; `reason` is one word or two, and part of the code."""

    code = "bundle-refused"
    exit_code = 12

    def __init__(self, message: str, hint: str = "", *, reason: str = "refused") -> None:
        super().__init__(message, hint)
        self.reason = reason
        self.code = f"bundle-{reason}"


class TrustRefused(ApplianceError):
    """A card, a root document or a change of the clock that nobody vouches for."""

    code = "trust-refused"
    exit_code = 12


class Stopped(ApplianceError):
    """The job was asked to stop and did."""

    code = "stopped"
    exit_code = 130


def out_of_memory(problem: BaseException) -> bool:
    """Whether memory ran out: torch raises RuntimeError for it on a CPU, a subclass of its own on a GPU."""
    words = str(problem).lower()
    return isinstance(problem, MemoryError) or "out of memory" in words or "can't allocate memory" in words


def lacking(problem: ModuleNotFoundError) -> ConfigWrong:
    """What to tell where a package is missing that only the site profile brings."""
    return ConfigWrong(
        f"This installation lacks {(problem.name or 'a package').partition('.')[0]}.",
        "The edge profile only serves. Do this where the site profile is: make install PROFILE=site",
    )
