"""Commands that are crashed at each of their file operations, and where they begin."""

import errno
import shutil
import tempfile
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from crash.forked import Fault, Job, Server
from crash.run_states import contents, leftovers, require_old_or_new

RUN = "run"
"""The folder of the run, or of all seeds, in a command's working folder."""


class Blow(NamedTuple):
    """What happens to a command at one of its operations."""

    fault: Fault
    error: int = 0

    def __str__(self):
        return f"{self.fault.name} {errno.errorcode.get(self.error, '')}".strip()


BLOWS = (
    Blow(Fault.KILL),
    Blow(Fault.TEAR),
    Blow(Fault.FAIL_FROM, errno.ENOSPC),
    Blow(Fault.FAIL_ONCE, errno.ENOSPC),
    Blow(Fault.FAIL_FROM, errno.EIO),
    Blow(Fault.FAIL_ONCE, errno.EIO),
    Blow(Fault.SHORT),
)


@dataclass(frozen=True)
class Scenario:
    """A command, in a folder that earlier ones have filled.

    Attributes:
        server: what runs commands.
        place: an empty folder.
        argv: of the command.
        before: the commands before it, and what happens to each.
        pictures: whether the command draws them.
    """

    server: Server
    place: Path
    argv: tuple[str, ...]
    before: tuple[Job, ...] = ()
    pictures: bool = False

    def job(self, folder, argv=None, **changes):
        """A command in a folder; the scenario's own, if no other is said."""
        return Job(argv or self.argv, folder, pictures=self.pictures, **changes)

    @cached_property
    def start(self):
        """The folder in which the command begins."""
        start = self.place / "start"
        start.mkdir()
        for job in self.before:
            self.server.run(replace(job, folder=start, pictures=self.pictures))
        return start

    @cached_property
    def undisturbed(self):
        """What the undisturbed command leaves, and its operations."""
        folder = self.place / "undisturbed"
        shutil.copytree(self.start, folder)
        (done,) = self.server.run(self.job(folder))
        assert done.code == 0, done.err
        assert not leftovers(folder)
        return contents(folder), done.operations

    def strike(self, blow, at):
        """Do the command with a blow at operation `at`, go on, and compare with what is right.

        Returns:
            The operation; None if the command ended before it.
        """
        after, _ = self.undisturbed
        with tempfile.TemporaryDirectory(dir=self.place) as temporary:
            folder = Path(temporary) / "work"
            shutil.copytree(self.start, folder)
            (done,) = self.server.run(self.job(folder, fault=blow.fault, at=at, error=blow.error))
            require_documented_end(done, blow)
            require_old_or_new(folder, contents(self.start), after)
            if done.code == 0:
                found = contents(folder)
                for name in after.keys() - found.keys():
                    assert name.endswith(".png") and "picture" in done.err, (name, done.err)
                assert found == {name: after[name] for name in found}
            argv = self.to_go_on(folder)
            (last,) = self.server.run(self.job(folder, argv))
            assert last.code == 0, (argv, last.err)
            assert contents(folder) == after
            assert not leftovers(folder)
        return done.operations[at - 1] if len(done.operations) >= at else None

    def to_go_on(self, folder):
        """The command with which a user goes on: the same again, where it made no run."""
        of_one, of_seeds = (folder / RUN / name for name in ("config.json", "seeds.json"))
        if not (of_one.exists() or of_seeds.exists()):
            return self.argv
        argv = ["train", "--resume", RUN, "--quiet"]
        if "--epochs" in self.argv and "--resume" in self.argv:
            argv += ["--epochs", self.argv[self.argv.index("--epochs") + 1]]
        return tuple(argv)


def require_documented_end(done, blow):
    """Assert that a command was killed, or told in one line why it did not end well."""
    assert "Traceback" not in done.err and "Exception ignored" not in done.err, done.err
    if done.code == -9:
        assert blow.fault in (Fault.KILL, Fault.TEAR)
        return
    assert done.code in (0, 2, 3), (done.code, done.err)
    if done.code:
        assert len(done.err.splitlines()) == 1, done.err


SMALL = (
    *("train", "--dataset", "digits", "--limit-train", "60", "--limit-test", "20", "--quiet"),
    *("--batch-size", "25", "--width", "6", "--depth", "1", "--rule", "fg-a"),
    *("--optimizer", "sgd", "--grad-stats", "2", "--checkpoint-every", "2"),
)
"""Three steps an epoch, whose gradients are compared with exact ones."""


def scenarios(server, place, pictures=False):
    """The scenarios by their names."""
    made = {}

    def add(name, argv, *before):
        folder = place / name
        folder.mkdir()
        made[name] = Scenario(server, folder, argv, before, pictures)

    alone = (*SMALL, "--epochs", "2", "--run-dir", RUN)
    several = (*SMALL, "--epochs", "1", "--run-dir", RUN, "--seeds", "0", "1")
    go_on = ("train", "--resume", RUN, "--quiet")
    add("a run", alone)
    add("a run that goes on", go_on, Job(alone, place, Fault.KILL, 90))
    add("more epochs", (*go_on, "--epochs", "3"), Job(alone, place))
    add("seeds", several)
    add("seeds that go on", go_on, Job(several, place, Fault.KILL, 150))
    return made
