"""The user's folder as a content-addressed tree, and a tree as a folder.

`git` does the work underneath, with an object store and an index of our own: it knows change
detection, ignore rules, modes and links. The user's repository is only read, never written to.
"""

from .snapshots import Pending, Snapshot, Snapshots
from .update import Progress

__all__ = ["Pending", "Progress", "Snapshot", "Snapshots"]
