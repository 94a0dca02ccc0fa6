"""prepare: raw files to a store, in parallel, resumable, each subject whole or not at all."""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from vitaepp.data.labels import count_other, join_labels, say_missing
from vitaepp.data.masks import IGNORED, apart
from vitaepp.data.store import Store
from vitaepp.data.storetable import RESERVED_COLUMNS, Failure
from vitaepp.data.storewriter import StoreWriter
from vitaepp.data.suffixes import suffix_of
from vitaepp.errors import RecipeError, SourceError, StoreError, one_line
from vitaepp.ingest.fetching import prepare_remote_subject
from vitaepp.ingest.layouts import Cohort, left_out_in_words, recognise
from vitaepp.ingest.layouts.masks import fits
from vitaepp.ingest.layouts.series import series_rules
from vitaepp.ingest.planning.account import DryRun, account, account_of, files_in_words, note_lines
from vitaepp.ingest.planning.fingerprint import fingerprint, voxel_sample
from vitaepp.ingest.planning.grid import choose_grid
from vitaepp.ingest.planning.spec import arrays_of, sampled, spec_in_words, spec_of
from vitaepp.ingest.pseudonyms import pseudonym, pseudonymized, pseudonymized_table, read_secret
from vitaepp.ingest.readers.items import SeriesItem, files_of, own_files, place_of
from vitaepp.ingest.recipes import prepare_settings
from vitaepp.ingest.sources.archives import labels_in, opened, tables_in
from vitaepp.ingest.sources.remote import Remote, local_file, local_source
from vitaepp.ingest.subject import prepare_subject
from vitaepp.ingest.task import ImageSpec, Task
from vitaepp.ingest.workers.cluster import run_on_cluster
from vitaepp.ingest.workers.pool import run_each
from vitaepp.recipe.choices import Choice
from vitaepp.recipe.sections import PrepareSettings
from vitaepp.system.paths import kind_of, swapped
from vitaepp.system.progress import counted, say, track
from vitaepp.system.storage import folder_at
from vitaepp.system.text import fact_list, first_few
from vitaepp.system.urls import Location, in_one_process, location_of

#: What the system says when a disk, a quota or a limit on file sizes is reached.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

#: Formats that are checked so well before the image library sees them that none has crashed it.
STURDY = (".nii", ".nii.gz", ".npy", ".npz")

#: Tasks that travel to a process together: scans take seconds, pictures milliseconds.
BATCH = {"scans": 1, "pictures": 32, "arrays": 8}


#: Stands for a store that has no name yet.
STORE_TO_BE = Path(os.devnull)


@dataclass(frozen=True)
class PrepareResult:
    """What a call of `prepare` did.

    Attributes:
        store: the store's folder.
        prepared: subjects that were made in this run.
        skipped: subjects that were there already, from the same files and settings.
        failures: subjects that could not be prepared, as in the store's failures.csv.
        account: what was taken for what, as text.
        notes: what had to be decided about files, with the number of subjects.
        dry_run: what a dry run found; None where the store was made.
    """

    store: Path | str
    prepared: int
    skipped: int
    failures: tuple[Failure, ...]
    account: str = ""
    notes: Mapping[str, int] = field(default_factory=dict)
    dry_run: DryRun | None = None

    def __str__(self) -> str:
        if self.dry_run is not None:
            return str(self.dry_run)
        text = (
            f"{self.store}: {counted(self.prepared, 'subject')} prepared, {self.skipped} "
            f"{'was' if self.skipped == 1 else 'were'} there already"
        )
        if self.failures:
            first = self.failures[0]
            text += f", {len(self.failures)} failed: see {self.store}/failures.csv"
            text += f"\nfirst failure: {first.subject}: {first.reason}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """What a program wants to know of it, JSON throughout."""
        if self.dry_run is not None:
            return self.dry_run.to_dict()
        return {
            "store": str(self.store),
            "prepared": self.prepared,
            "skipped": self.skipped,
            "failures": [asdict(failure) for failure in self.failures],
            "notes": dict(self.notes),
        }

    def __repr__(self) -> str:
        if self.dry_run is not None:
            return "PrepareResult(a dry run; print it to see what was found)"
        return f"PrepareResult({'; '.join(str(self).splitlines())})"


def prepare(
    source: Location,
    store: Location | None = None,
    *,
    settings: PrepareSettings | Mapping[str, Any] | str | Sequence[str] = (),
    recipe: str | os.PathLike[str] | None = None,
    labels: Location | None = None,
    id_column: str | None = None,
    workers: int | None = None,
    dask: str | None = None,
    dry_run: bool = False,
    show_series: bool = False,
    **changes: Any,
) -> PrepareResult:
    """Turn raw files into a store.

    Scans are put on a grid of RAS axes with the given spacing by one linear interpolation from
    their native grid, cropped around the centre; where the crop leaves the volume it is filled
    with background, what becomes 0. The minimum and maximum of each whole modality become 0 and
    255, unless `clip`, `window` or `statistics` say otherwise. Pictures and bare arrays without a
    spacing are scaled as a whole to fit into the size; with one, in pixels, they are cropped like
    scans. 8-bit pictures keep their values.

    A modality that a subject lacks is zero, and marked so in the store's table.

    Run again, it prepares what is new or changed, and what failed before. A store that was begun
    keeps its size, spacing and masks where these are unset.

    Args:
        source: manifest, folder in a known layout, archive (`.zip`, `.tar`, `.tar.gz`, …) of one,
            a single scan or picture, or `.npz` with MedMNIST's keys; or the URL of one, as `s3://bucket/scans`.
        store: folder to make or to add to, or its URL; a dry run needs none.
        settings: settings as `"prepare.clip=0.5,99.5"`, one or several, as a mapping, or all of
            them as an object.
        recipe: where settings come from that are given nowhere else: a shipped recipe's name, a
            YAML file, or a run folder, whose encoder needs scans that are prepared like those of
            its training. Where a run's crops are centred on masks, subjects without are centred on
            their foreground, and a modality of the run that no subject has is zero; both are told.
        labels: CSV, TSV or XLSX with a column of subjects; its other columns become labels. Of an
            archive, also the name of a table inside it.
        id_column: what this column is called, of the labels or else of a manifest. Unset:
            `subject`, `subject_id`, `participant_id` or `patient`.
        workers: processes. Unset: one a core.
        dask: address of a Dask scheduler, as `tcp://host:8786`, whose workers do the work; they
            must see the source and the store by the same names.
        dry_run: look only, at the headers and a few images, and write nothing.
        show_series: with a dry run, show the descriptions of DICOM series that no pattern knows.
            They are free text and may hold names, so that they are shown, and kept nowhere.
        changes: any setting of `vitaepp.recipe.sections.PrepareSettings` by its name, such as
            `size=96`, `center="foreground"` or `window={"ct": "lung"}`; what is None is unset.

    Returns:
        Counts, and the subjects that failed; of a dry run, what it found.

    Raises:
        RecipeError: a setting that is not valid or does not fit this source.
        ClusterError: the Dask cluster cannot be used.
        SourceError: no known layout, a broken manifest or label file, an unknown modality.
        StoreError: the target holds something else, is in use, or cannot be written.
        StorageError: a URL cannot be opened.
    """
    if store is None and not dry_run:
        raise RecipeError("prepare needs a store to make; only `dry_run` goes without")
    if store is not None and kind_of(source) == "store" and Path(store).is_dir():
        exchanged = swapped("prepare", {"source": source, "store": store})
        if exchanged is not None:
            raise SourceError(exchanged)
    if show_series and not dry_run:
        raise RecipeError(
            "`show_series` goes with `dry_run` alone: descriptions may hold names, and are shown "
            "but never kept"
        )
    if dask is not None and workers is not None:
        raise RecipeError("give `workers` (processes here) or `dask` (a cluster), not both")
    target = STORE_TO_BE if store is None else location_of(store)
    chosen, of_run, own_modalities = prepare_settings(recipe, settings, changes)
    if chosen.series is not None:
        series_rules(Path(chosen.series))  # refused if it cannot be read, whatever the source is
    with (
        local_source(source) as (path, remote),
        local_file(labels) as label_file,
        opened(path, chosen) as opened_path,
    ):
        folder, name = Path(opened_path), path.absolute().name
        label_file = labels_in(label_file, path, folder)
        if dask is not None:
            # The workers run in folders of their own.
            folder = folder.absolute()
            target = target.absolute() if isinstance(target, Path) else target
        if in_one_process(target) or (remote is not None and in_one_process(remote.url)):
            if dask is not None:
                raise RecipeError(
                    "memory:// is seen by one process alone, and not by Dask's workers"
                )
            workers = 1
        cohort = _cohort(folder, remote, chosen, label_file, id_column, show_series)
        table = _labelled(cohort, chosen, label_file, id_column)
        if label_file is None and folder != path and set(table) <= {"subject", "split"}:
            _say_tables(name, folder)
        spec = spec_of(cohort, chosen, target, without_masks=of_run, of_run=own_modalities)
        unused = tuple(_unused(cohort, chosen, spec, is_archive=folder != path))
        cohort = replace(cohort, notes=(*cohort.notes, *unused))
        if spec.secret is not None:
            cohort = pseudonymized(cohort, spec.secret)
            table = pseudonymized_table(table, spec.secret)
        spec, choices = choose_grid(spec, cohort, chosen)
        if dry_run:
            if remote is not None:
                remote.fetch(_looked_at(cohort), remote.root)
            headers = fingerprint(spec, cohort, workers)
            looked = DryRun(cohort, table, spec, choices, headers, show_series)
            return PrepareResult(target, 0, 0, headers.unreadable, dry_run=looked)
        _say_plan(name, cohort, spec, choices, of_run)
        before = _table(target)
        total = len(cohort.subjects)
        run = (
            partial(run_each, total=total, workers=workers, apart=_may_crash(cohort))
            if dask is None
            else partial(run_on_cluster, address=dask)
        )
        try:
            prepared, failures = _prepared(cohort, table, spec, remote, run)
            after = _table(target)
            notes = _notes(after, cohort)
        except OSError as error:
            reason = f"{target}: cannot be written: {error.strerror or one_line(error)}"
            if error.errno in FULL:
                reason += "; make room and run prepare again, it goes on from what is finished"
            elif error.errno == errno.ENOENT and dask is not None:
                reason += "; every worker of the cluster must see it by this path, or give a URL"
            raise StoreError(reason) from error
        if label_file is not None and before is not None and after is not None:
            say(_labels_in_words(before, after, label_file.name))
        if before is not None and after is not None:
            _say_same(target, before, after)
        if spec.info.masks and after is not None:
            _say_labels(Store(target))
        text = fact_list([*account(cohort, table, spec), *note_lines(notes, total)])
        skipped = total - prepared - len(failures)
        return PrepareResult(target, prepared, skipped, failures, text, notes)


def _cohort(
    folder: Path,
    remote: Remote | None,
    settings: PrepareSettings,
    labels: Path | None,
    id_column: str | None,
    show_series: bool,
) -> Cohort:
    """The subjects of a source that for the time being is, or whose stand-ins are, in `folder`."""
    cohort = recognise(
        folder,
        settings.modalities,
        settings.series,
        layout=settings.layout,
        mask_pattern=settings.mask_pattern,
        id_column=None if labels is not None else id_column,
        show_series=show_series,
    )
    if id_column is not None and labels is None and cohort.layout != "a manifest":
        raise RecipeError("`id_column` names a column of `labels` or of a manifest; give one")
    if remote is not None and cohort.kind == "pictures":
        for modality in {*cohort.modalities, *(settings.modalities or ())}:
            files = map(files_of, sampled(cohort, modality))
            remote.fetch(chain.from_iterable(files), remote.root)
    return cohort if settings.classes is None else cohort.of_first_classes(settings.classes)


def _unused(
    cohort: Cohort, settings: PrepareSettings, spec: ImageSpec, is_archive: bool
) -> Iterator[str]:
    """Settings that the user gave and that have no effect on this source, a line each."""
    if settings.mask_values is not None and (center := spec.info.center) != "mask":
        yield f"`mask_values` has no effect: crops are centred on the {center}, not on masks"
    if pattern := settings.mask_pattern:
        masks = [place_of(s.mask, spec.root) for s in cohort.subjects if s.mask is not None]
        files = [place_of(item, spec.root) for s in cohort.subjects for item in s.files.values()]
        if not any(map(partial(fits, pattern), (*masks, *files, *dict(cohort.left_out)))):
            yield "`mask_pattern` fits no file"
        elif not all(map(partial(fits, pattern), masks)):
            yield f"`mask_pattern` has no effect: {cohort.layout} has its own rule for masks"
    series = (i for s in cohort.subjects for i in s.files.values() if isinstance(i, SeriesItem))
    if settings.series is not None and next(series, None) is None:
        yield "`series` has no effect: there are no DICOM series"
    if settings.archive_gib is not None and not is_archive:
        yield "`archive_gib` has no effect: the source is not an archive"


def _labelled(
    cohort: Cohort, settings: PrepareSettings, labels: Path | None, id_column: str | None
) -> pd.DataFrame:
    """The table of a cohort, with the columns of a table of labels."""
    if labels is None:
        return cohort.table()
    table, without = join_labels(cohort.table(), labels, cohort.unlabelled, id_column=id_column)
    if settings.secret is not None:
        without = [pseudonym(read_secret(settings.secret), subject) for subject in without]
    say_missing(labels.name, without, len(table))
    return table


def _say_tables(archive: str, folder: Path) -> None:
    """Say which tables an archive holds, where no label is taken."""
    if tables := tables_in(folder):
        remedy = f"`labels={tables[0]}` takes its columns as labels"
        say(f"{archive}: holds {first_few(tables)}; {remedy}")


def _say_plan(
    name: str, cohort: Cohort, spec: ImageSpec, choices: Iterable[Choice], of_run: bool
) -> None:
    """Say what will be made of a source, and what a user should check."""
    for choice in choices:
        say(f"{choice}: {choice.reason}")
    say(f"{name}: {cohort.layout}, {files_in_words(cohort)}; {spec_in_words(spec)}")
    if cohort.left_out:
        say(f"{name}: {left_out_in_words(cohort)}")
    for note in cohort.told:
        say(f"{name}: {note}")
    if lacking := cohort.lacking(spec.files):
        counts = ", ".join(f"{modality} in {count}" for modality, count in lacking.items())
        line = f"missing modalities: {counts} of {len(cohort.subjects)} subjects; zero in the store"
        unused = {m for s in cohort.subjects for m in s.files} - {*spec.files}
        say(line + (f"; not used: {', '.join(sorted(unused))}" if unused else ""))
    no_mask = sum(s.mask is None for s in cohort.subjects)
    if spec.info.masks and no_mask:
        say(f"masks: {no_mask} of {len(cohort.subjects)} subjects have none; zero in the store")
    if of_run and spec.info.center == "mask" and no_mask:
        say(
            "the run's crops are centred on masks; without one, and centred on the foreground: "
            f"{no_mask} of {counted(len(cohort.subjects), 'subject')}"
        )


def _prepared(
    cohort: Cohort,
    table: pd.DataFrame,
    spec: ImageSpec,
    remote: Remote | None,
    run: Callable[..., Iterator[bool | Failure]],
) -> tuple[int, tuple[Failure, ...]]:
    """Make a store of a cohort, or add to it; how many were made anew, and which failed."""
    one = prepare_subject if remote is None else partial(prepare_remote_subject, remote)
    failures: list[Failure] = []
    prepared = 0
    with StoreWriter(spec.store, spec.info) as writer:
        known = writer.checksums()
        if lost := [subject for subject, checksums in known.items() if not any(checksums)]:
            say(
                f"{spec.store}: lacks the images of {counted(len(lost), 'subject')} "
                f"({first_few(lost)}); those in this source are prepared again"
            )
        tasks = _tasks(cohort, spec, known)
        outcomes = run(partial(one, spec), tasks, died=_died, batch=BATCH[cohort.kind])
        for outcome in track(outcomes, "preparing", len(cohort.subjects)):
            if isinstance(outcome, Failure):
                failures.append(outcome)
            else:
                prepared += outcome
        rank = {s.subject: i for i, s in enumerate(cohort.subjects)}
        if others := writer.checksums().keys() - rank.keys():
            are, they = ("is", "it stays") if len(others) == 1 else ("are", "they stay")
            say(f"{counted(len(others), 'subject')} of the store {are} not in this source; {they}")
        failures.sort(key=lambda f: rank[f.subject])
        writer.commit(table, failures, account_of(cohort, failures, spec))
    return prepared, tuple(failures)


def _table(store: Path | str) -> pd.DataFrame | None:
    """The table of a store that has subjects already; None of any other."""
    return Store(store).table if folder_at(store).exists("table.parquet") else None


def _say_same(store: Path | str, before: pd.DataFrame, after: pd.DataFrame) -> None:
    """Say which subjects that were added are images that the store had, under another name."""
    new = after[~after["subject"].isin(before["subject"])]
    had = dict(zip(before["checksum"], before["subject"], strict=True))
    if same := [
        f"{subject} is {had[checksum]}"
        for subject, checksum in zip(new["subject"], new["checksum"], strict=True)
        if checksum in had
    ]:
        say(
            f"{store}: {len(same)} of {counted(len(new), 'new subject')} have exactly the same "
            f"content as others that were there ({first_few(same)}); if they are the same images, "
            "prepare one of the sources into another store"
        )


def _say_labels(store: Store) -> None:
    """Say where masks may have one tissue under several numbers, and what 255 is taken for.

    Labels that the source names are tissues of their own.
    """
    ignored, named = {*store.ignored}, {value for value, _ in store.info.mask_names}
    if blank := store.values_of_masks.count([*ignored - named]) if ignored - named else 0:
        say(
            f"masks: {IGNORED} is an ignore label, because some have it beside small values; it is "
            f"all that {counted(blank, 'subject')} of {len(store)} have: if it is a label there, "
            "write the number that it has in the others"
        )
    numbers = apart([{*values} - ignored for values in store.values_of_masks])
    if numbers and not named:
        each = [f"{counted(n, 'subject')} only label {label}" for label, n in numbers.items()]
        say(f"masks: {', '.join(each)}: if that is the same tissue, write one value")


def _notes(table: pd.DataFrame | None, cohort: Cohort) -> Counter[str]:
    """What had to be decided about the files of a cohort's subjects, with how often."""
    if table is None:
        return Counter()
    rows = table.set_index("subject")["prepare_notes"]
    return Counter(note for s in cohort.subjects for note in rows.get(s.subject, ()))


def _labels_in_words(before: pd.DataFrame, after: pd.DataFrame, file: str) -> str:
    """What a label table has added to the subjects that a store had, and which step is next."""
    old, new = before.set_index("subject"), after.set_index("subject")
    new = new.loc[old.index]
    changes, label = [], ""
    for name in (c for c in new.columns if c not in RESERVED_COLUMNS or c == "split"):
        if name in old:
            count, verb = count_other(old[name], new[name]), "changed"
        else:
            count, verb = int(new[name].notna().sum()), "added"
        if count:
            changes.append(f"{name} {verb} for {count} of {counted(len(old), 'subject')}")
            label = label if name == "split" else name
    if not changes:
        return f"{file}: the store has these labels already"
    return (
        f"{file}: {', '.join(changes)}; embeddings made before do not have this: embed the store "
        f"again, or evaluate them with `labels={file}` `label={label or 'COLUMN'}`"
    )


def _looked_at(cohort: Cohort) -> Iterator[Path]:
    """The files whose voxels a dry run reads; of scans, stand-ins have the headers."""
    sample = voxel_sample(len(cohort.subjects))
    for i, subject in enumerate(cohort.subjects):
        if cohort.kind == "pictures" or i in sample:
            for item in subject.files.values():
                yield from files_of(item)


def _may_crash(cohort: Cohort) -> bool:
    """Whether files are read by libraries that damaged ones are known to crash."""
    return cohort.kind == "scans" and any(
        not suffix_of(file.name, STURDY)
        for subject in cohort.subjects
        for item in subject.files.values()
        for file in own_files(item)
    )


def _tasks(cohort: Cohort, spec: ImageSpec, known: Mapping[str, tuple[str, str]]) -> Iterator[Task]:
    arrays: Iterator[npt.NDArray[Any] | None] = repeat(None)
    if cohort.kind == "arrays":
        arrays = arrays_of(s.files[spec.files[0]] for s in cohort.subjects)
    for subject, array in zip(cohort.subjects, arrays, strict=False):
        yield Task(subject, array, known.get(subject.subject))


def _died(task: Task) -> bool | Failure:
    return Failure(
        task.files.subject,
        "the process that read it died twice: not enough memory, or a crash of the image library",
    )
