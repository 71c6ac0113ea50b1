"""What can end a distillation run early, each with what to do about it.

DistillError
├── ConfigRefused      settings that will not do, or that differ from those the run began with
├── ModelRefused       a folder that cannot be trained or taught from, a server that cannot teach
├── TeacherSilent      the teacher does not answer, or the engine that writes its texts failed
├── FolderBusy         another trainer works in the run's folder
├── StateBroken        the resume state cannot be read
├── RankLost           another process of the run ended or does not answer
├── WaitedTooLong      no worker did its part in time
└── Interrupted        a signal asked for the end; the state is saved
"""


class DistillError(Exception):
    """Base of what ends a run; the message says what happened and what to do."""


class ConfigRefused(DistillError):
    """The settings must be mended."""


class ModelRefused(DistillError):
    """The student or the teacher cannot be used."""


class TeacherSilent(DistillError):
    """The teacher's texts could not be written."""


class FolderBusy(DistillError):
    """Another trainer holds the folder."""


class StateBroken(DistillError):
    """What was saved for resuming cannot be read."""


class RankLost(DistillError):
    """Another process of the run is gone; the state is that of the last saved step."""


class WaitedTooLong(DistillError):
    """Rollout workers did not measure in time."""


class Interrupted(DistillError):
    """Ctrl-C or SIGTERM; `signal_number` says which."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.signal_number = signal_number
