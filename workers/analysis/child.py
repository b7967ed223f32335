"""The child process that does the tasks of an analysis: it runs the user's plugin.

A job is a JSON object in a line on standard input, and the parts that belong to it behind it; the
answer is the same on standard output. What the plugin prints goes to standard error, and what it
reads from standard input is empty. The child shows its progress in a shared page, so that its
parent can tell a slow task from one that hangs.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from typing import Any, NoReturn

from ringline.shm._shm import lib as shm
from ringline.shm.control import describe
from ringline.shm.errors import PluginError, RinglineError
from ringline.workers._workers import ffi
from ringline.workers.analysis import parcel
from ringline.workers.analysis.hooks import Hooks
from ringline.workers.analysis.runner import Runner
from ringline.workers.analysis.runs import Store, mappings
from ringline.workers.analysis.shares.merged import Merged
from ringline.workers.analysis.shares.spill import Sharer
from ringline.workers.analysis.tables import writing
from ringline.workers.captures.capture_table import CaptureError, Tally
from ringline.workers.captures.files.access import Access
from ringline.workers.captures.scanner import Range, Scanner, Section
from ringline.workers.named import place, steps
from ringline.workers.named.log import Log
from ringline.workers.named.part import Part
from ringline.workers.tiers import loading
from ringline.workers.tiers.batch_tier import BatchTier
from ringline.workers.tiers.tier import Context, Tier, sentence, where

# The shared page: packets of the present task; the number of steps; what the child does.
PAGE = 4096
PREPARING, RUNNING, JOINING = 0, 1, 2


def main() -> NoReturn:
    """Do jobs until standard input ends."""
    shm.rl_die_with_parent(signal.SIGKILL, os.getppid())
    jobs = os.fdopen(os.dup(0), "rb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # who reads it would take jobs
    os.close(nothing)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    first = json.loads(jobs.readline())
    if first.get("away"):
        place.go_away()
    page = mmap.mmap(first["page"], PAGE)
    child = _Child(first, ffi.cast("uint64_t *", ffi.from_buffer(page)))
    while line := jobs.readline():
        job = json.loads(line)
        parts = [jobs.read(size) for size in job["sizes"]]
        answer, part = child.answer(job, parts)
        answers.write(json.dumps(answer | {"size": len(part)}).encode() + b"\n")
        answers.write(part)
        answers.flush()
    os._exit(0)  # threads of the plugin must not delay the exit


class _Child:
    """The plugin of this child: it is loaded with the first job."""

    def __init__(self, of: Mapping[str, Any], page: Any) -> None:
        self._of = of
        self._page = page
        self._tier: Tier | None = None
        self._found: Any = None
        self._hooks: Hooks | None = None
        self._fingerprint = self._version = ""
        self._mappings: list[mmap.mmap] = []  # of rows that are presented
        steps.show_with(self._step)

    def answer(self, job: Mapping[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], bytes]:
        """The answer to a job, and the part that belongs to it."""
        try:
            self._show(PREPARING)
            self._load(job)
            if self._hooks is not None:
                store = self._of.get("store")
                self._hooks.store = store and Store(*store)
            if job["do"] in ("run", "share"):
                return self._run(job, parts)
            self._show(JOINING)
            if job["do"] == "merge":
                assert self._hooks is not None
                return {}, self._hooks.packed(self._hooks.merge(*map(Part.unpack, parts)))
            if job["do"] == "present":
                return self._present(job, Part.unpack(parts[0]))
            return self._prepared(job)
        except RinglineError as error:
            return {"error": describe(error)}, b""
        except SystemExit:
            raise
        except BaseException as error:  # for instance a panic in a library
            if isinstance(error, Exception) and not where(error):
                raise  # no line of the plugin took part
            failure = PluginError(f"plugin {self._of['plugin']}: {sentence(error)}")
            return {"error": describe(failure)}, b""

    def _show(self, doing: int) -> None:
        self._page[2] = doing
        self._step()

    def _step(self) -> None:
        self._page[1] += 1
        for mapping in self._mappings:  # its pages count as memory of this process
            mapping.madvise(mmap.MADV_DONTNEED)

    def _load(self, job: Mapping[str, Any]) -> None:
        """Load and prepare the plugin, once. Raises PluginError."""
        if self._tier is None:
            spec, folder = self._of["plugin"], self._of["folder"]
            if "search" in self._of:
                sys.path.insert(0, self._of["search"])
            found, file, version = loading.find_with_file(self._of.get("found", spec), folder)
            while isinstance(instead := getattr(found, "analysis", None), str):
                found, file, version = loading.find_with_file(instead, folder)
            self._found, self._version = found, version
            self._tier = self._new_tier()
            self._hooks = _hooks_of(spec, found)
            self._fingerprint = _fingerprint(file, self._tier.options)
            if not place.is_away():  # else the file is perhaps not where `spec` says
                self._fingerprint += f"-{parcel.digest(spec, folder)}"
        asked = job.get("fingerprint")
        if asked and place.is_away():  # what is beside the plugin's file came with the task
            asked = asked.partition("-")[0]
            if self._fingerprint.partition("-")[0] == asked:
                self._fingerprint = asked = job["fingerprint"]
        if asked not in (None, self._fingerprint):
            if "version" in job:
                raise PluginError(self._another(job["version"]))
            raise PluginError(
                f"plugin {self._of['plugin']}, a file beside it that it loads, or a file that its "
                "options name, has changed while the analysis ran: start it again"
            )

    def _another(self, asked: str) -> str:
        """What to say of a plugin that is not the one that is asked for."""
        mine = self._version
        differ = f"version {mine or 'unknown'}, and here it is {asked or 'unknown'}"
        if mine == asked:
            differ = "of the same version, but its file differs"
        return (
            f"plugin {self._of['plugin']} of the worker is {differ}: install the same one on both"
        )

    def _prepared(self, job: Mapping[str, Any]) -> tuple[dict[str, Any], bytes]:
        """What is needed to run the plugin elsewhere, with its parcel if it is asked for."""
        about = {
            "tier": self._tier.tier if self._tier else "",
            "fingerprint": self._fingerprint,
            "version": self._version,
        }
        if not job.get("parcel"):
            return about, b""
        how, content = parcel.packed(self._of["plugin"], self._of["folder"])
        return about | how, content

    def _new_tier(self) -> Tier:
        tier = loading.tier_of(self._of["plugin"], self._found)
        tier.accept(self._of["options"], self._of["folder"])
        tier.prepare(self._context())
        return tier

    def _context(self) -> Context:
        return Context(
            ports=self._of["ports"],
            debug=self._of["debug"],
            state_bytes=self._of["state_bytes"],
        )

    def _run(self, job: Mapping[str, Any], parts: list[bytes]) -> tuple[dict[str, Any], bytes]:
        """Run the plugin on a range of a capture; `parts`: its content, if it is in memory."""
        assert self._tier is not None
        assert self._hooks is not None
        if isinstance(self._tier, BatchTier):
            self._tier = self._new_tier()  # no task may see the object of another one
        tally = Tally(job["path"], to_cut=job["to_cut"])
        log = _log(self._of["plugin"])
        sharer = Sharer(job, self._page) if job["do"] == "share" else None
        context = self._context()
        runner = sharer or Runner(self._tier, self._hooks, context, self._page, log)
        section = job["section"] and Section(*job["section"])
        part = Range(
            job["start"], job["stop"], job["is_guess"], section, job["packets"], job["last"]
        )
        about: dict[str, Any] = {}
        self._page[0] = job["packets"]
        self._show(RUNNING)
        access = job["access"] and Access(**job["access"], waiting=partial(self._show, RUNNING))
        merged = Merged(job, self._page) if "share" in job else None
        try:
            if parts:
                from ringline.workers.captures.files.remote import keep

                keep(job["path"], parts[0], access)
            scanner = Scanner(tally, runner.scan, part, access, merged)
        except CaptureError as error:
            if sharer is not None:
                sharer.close()
            return {"broken": str(error)}, b""
        try:
            if job["identity"] is not None and list(scanner.identity) != job["identity"]:
                return {"broken": tally.changed()}, b""
            about = {"begin": scanner.begin, "section": scanner.section()}
            if scanner.begin is not None:
                runner.run(scanner)
            if scanner.has_changed():
                return {"broken": tally.changed()}, b""
            joined = runner.finish()
            if merged is not None:
                about |= merged.places(runner.complaints)
        except CaptureError as error:
            broken = _why(error, scanner, tally)
            return about | {"broken": broken}, b""
        finally:
            scanner.close()
            if sharer is not None:
                sharer.close()
        log._tell_left_out()
        scan = runner.scan
        about |= {
            "end": scanner.position,
            "end_section": scanner.section(),
            "first": int(scan.first) if scan.begun else None,
            "last": scanner.last,
            "needs_last": scanner.needs_last,
            "fingerprint": self._fingerprint,
            "tier": self._tier.tier,
            "tally": {
                "packets": tally.packets - job["packets"],
                "used": tally.used,
                "cut": tally.cut,
                "overlong": tally.overlong,
                "misdated": tally.misdated,
                "backward": tally.backward,
                "made_up": dict(tally.made_up),
                "left_out": dict(tally.left_out),
                "cut_at": tally.cut_at,
            },
        }
        return runner.numbers() | about, self._hooks.packed(self._hooks.settled(joined))

    def _present(self, job: Mapping[str, Any], part: Part) -> tuple[dict[str, Any], bytes]:
        """Write the tables of the whole analysis; the answer describes them. The part is the whole
        state, if the job wants it and it was on disk."""
        assert self._hooks is not None
        was_on_disk = bool(part.runs)
        part = self._hooks.whole(part)
        self._mappings = mappings(part)
        made: dict[str, Any] = {}
        if self._hooks.present is not None:
            try:
                made = dict(self._hooks.present(part))
            except (Exception, SystemExit) as error:
                raise PluginError(
                    f"plugin {self._of['plugin']}: present failed: {sentence(error)}"
                ) from error
        form = job["format"]
        described = {"tables": writing.write(self._of["plugin"], made, job["folder"], form)}
        self._mappings = []
        return described, part.pack() if was_on_disk and job["state"] else b""


def _why(error: CaptureError, scanner: Scanner, tally: Tally) -> str:
    """Why a capture cannot be used: a file that changes is not damaged."""
    try:
        return tally.changed() if scanner.has_changed() else str(error)
    except CaptureError:  # nobody can tell any more
        return str(error)


def _log(spec: str) -> Log:
    def write(level: str, line: str) -> bool:
        print(f"plugin {spec}: {level}: {line}", file=sys.stderr, flush=True)
        return True

    return Log(write)


def _hooks_of(spec: str, found: Any) -> Hooks:
    """What the plugin declares for analyses. Raises PluginError when it cannot be called."""
    hooks: dict[str, Any] = {}
    for name in ("merge", "collect", "present"):
        hook = getattr(found, name, None)
        if hook is not None and not callable(hook):
            raise PluginError(
                f"plugin {spec}: {name} must be a function, not {type(hook).__name__}"
            )
        hooks[name] = hook
    merge: Any = hooks["merge"]
    code = getattr(merge, "__code__", None)
    if code is not None and (code.co_argcount != 2 or code.co_flags & 0x08):
        raise PluginError(
            f"plugin {spec}: merge must take (a, b){_static(found)}; it takes "
            f"({', '.join(code.co_varnames[: code.co_argcount])}) "
            f"({code.co_filename}, line {code.co_firstlineno})"
        )
    return Hooks(spec, hooks["merge"], hooks["collect"], hooks["present"])


def _static(found: Any) -> str:
    return ", with @staticmethod in a class" if isinstance(found, type) else ""


def _fingerprint(file: str | None, options: Mapping[str, Any]) -> str:
    """A text that changes with the file of the plugin, with the files that its options name, and
    with the versions of Python and ringline."""
    from ringline.shm.version import version

    digest = hashlib.sha256(f"{sys.version_info[:3]} {version()}".encode())
    named = (value for _, value in sorted(options.items()) if isinstance(value, os.PathLike))
    for path in (file, *named):
        if path and os.path.isfile(path):
            with open(path, "rb") as source:
                digest.update(hashlib.file_digest(source, "sha256").digest())
    return digest.hexdigest()[:24]
