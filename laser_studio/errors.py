"""The error tree of LASER Studio.

Every error a user can cause is a `LaserStudioError`; its message names the cause and the way out. ::

    LaserStudioError
    ├── CheckpointError   a checkpoint or model configuration that cannot be used
    │   └── HubError      a checkpoint on the Hugging Face Hub that cannot be fetched
    ├── PuzzleError       a puzzle that cannot be read or does not fit the model
    ├── PolicyError       tracker settings outside their ranges
    ├── CompressionError  a module whose activations cannot be stored compressed
    ├── RecordingError    a recording that cannot be read or written
    ├── ExpressionError   an expression over frames that cannot be read, or does not fit the run
    ├── BreakpointError   a breakpoint whose other settings cannot be used
    ├── InterventionError an intervention that cannot be made, or not at that step
    ├── ComparisonError   two runs that cannot be compared
    ├── InspectionError   a cell, site, layer or step that cannot be looked into, or a detector's threshold outside its range
    ├── WatchError        a watch whose name cannot be used, or one too many
    ├── BookmarkError     a bookmark that cannot be used, or one too many
    ├── DeviceError       a device that is unknown or not there
    ├── TrainingError     a training run that cannot start, resume or go on
    └── ReportError       an evaluation that cannot be made, or its report not be read
"""


class LaserStudioError(Exception):
    """Base class of all errors raised on purpose; `str(error)` is fit to show to a user."""


class CheckpointError(LaserStudioError):
    """A checkpoint or model configuration that cannot be used."""


class HubError(CheckpointError):
    """A checkpoint on the Hugging Face Hub that cannot be found, reached or stored."""


class PuzzleError(LaserStudioError):
    """A puzzle that cannot be read, or does not fit the model."""


class PolicyError(LaserStudioError):
    """Tracker settings outside their ranges."""


class CompressionError(LaserStudioError):
    """A module, mode or state that activation compression cannot work with."""


class RecordingError(LaserStudioError):
    """A recording that cannot be read or written."""


class ExpressionError(LaserStudioError, ValueError):
    """An expression over frames that cannot be read, or does not fit the run.

    `position` is the character to blame, counted from 0; None where it is no single place.
    """

    def __init__(self, message: str, *, position: int | None = None) -> None:
        super().__init__(message)
        self.position = position


class BreakpointError(LaserStudioError):
    """A breakpoint whose name, hit condition or other settings cannot be used."""


class InterventionError(LaserStudioError):
    """An intervention whose settings cannot be used, or that does not fit the run at that step."""


class ComparisonError(LaserStudioError):
    """Two runs, or two steps of them, that cannot be compared."""


class InspectionError(LaserStudioError):
    """A cell, site, layer or step that cannot be looked into, or a detector's threshold outside its range."""


class WatchError(LaserStudioError):
    """A watch whose name cannot be used, or one too many."""


class BookmarkError(LaserStudioError):
    """A bookmark whose step, name or note cannot be used, or one too many."""


class DeviceError(LaserStudioError):
    """A device that is unknown, or not there on this machine."""


class TrainingError(LaserStudioError):
    """A training run that cannot start, resume or go on."""


class ReportError(LaserStudioError):
    """An evaluation that cannot be made, or its report not be read."""
