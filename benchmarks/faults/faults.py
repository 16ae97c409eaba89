"""The faults. Each is given a campaign, its jobs and how many to send, and returns its row."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.faults.campaign import ENDED, Campaign, Row
from benchmarks.faults.client import Sent, Work
from benchmarks.faults.rig import API, BROKER, GRACE_SECONDS, LEASE_SECONDS, WORKERS
from benchmarks.faults.trained import CHECKPOINT_EVERY, make_trained
from benchmarks.faults.works import Works

Fault = Callable[[Campaign, Works, int], Row]
CANCEL_SECONDS = 2.0
# Older than any visibility timeout may be.
_AGE = 30 * 24 * 3600
# A job that lost that many workers is spared: the third time would end it.
_MOST_HITS = 2
# So many jobs are being sent as the server or the broker is killed.
_WAVE = 4
_INDEX = "loramend:mq:unacked_index"


def none(campaign: Campaign, works: Works, count: int) -> Row:
    """Undisturbed runs, one of each kind first: their digests are what the others are held against."""
    row = campaign.row("none")
    kinds = [*works.short, *works.medium]
    _undisturbed(campaign, row, kinds)
    campaign.submit(row, works.of(works.medium, count - len(kinds)))
    campaign.finish(row)
    return row


def worker_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """A worker is killed every few seconds, at whatever it is."""

    def kill(name: str) -> bool:
        campaign.rig.kill(name)
        return True

    row = campaign.row("worker killed -9")
    return _struck(campaign, row, works.of(works.medium, count), (4.0, 12.0), kill)


def child_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """The process in which a worker runs its job is killed."""
    row = campaign.row("worker's child killed -9")
    return _struck(campaign, row, works.of(works.medium, count), (5.0, 15.0), campaign.rig.kill_child)


def training_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """A worker is killed in the middle of each training, and another goes on from the checkpoint."""
    trained = make_trained(campaign.rig.outside.models)
    _undisturbed(campaign, campaign.rows[0], [trained])
    row = campaign.row("worker killed -9 in mid-training")
    jobs = [trained] * count
    hits = _struck_in_phase(campaign, row, jobs, "train", (0.0, 1.0), begun=2 * CHECKPOINT_EVERY, most=1)
    for sent in row.jobs:
        if hits.get(sent.id) and sent.outcome == "succeeded":
            (training,) = campaign.client.report(sent.id)["training"]
            if not training["resumed_at"]:
                row.losses.append(f"{sent.id} began its training anew")
    return row


def publishing_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """A worker is killed while it publishes, before the Hub has made the commit or after; some answers of the
    Hub are lost besides."""
    row = campaign.row("worker killed -9 while publishing")
    jobs = works.publishing(count)
    _struck_in_phase(campaign, row, jobs, "publish", (0.0, 1.5))
    for sent in row.jobs:
        repo_id = str(sent.seen["publish"]["repo_id"])
        found = campaign.rig.outside.commits(repo_id, sent.id)
        told = ((sent.seen.get("result") or {}).get("published") or {}).get("commit")
        if found != [told]:
            row.losses.append(f"{sent.id} tells of commit {told}, and {repo_id} has {found or 'none'}")
    return row


def api_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """The API is killed while clients send jobs; they send them again with the same key."""
    row = campaign.row("API killed -9 and restarted")
    _struck_while_sending(campaign, row, works.of(works.short, count), API)
    campaign.finish(row)
    return row


def broker_killed(campaign: Campaign, works: Works, count: int) -> Row:
    """The broker is killed while jobs are sent and run, for a moment or for longer than a lease."""
    row = campaign.row("broker killed -9 and restarted")
    _struck_while_sending(campaign, row, works.of(works.medium, count), BROKER)

    def strike(waiting: list[Sent]) -> None:
        campaign.rig.pause(campaign.chance.uniform(1.0, 8.0))
        campaign.rig.kill(BROKER, down=campaign.chance.choice([0.0, 0.0, 2 * LEASE_SECONDS]))
        row.done += 1

    campaign.finish(row, strike)
    return row


def visibility_passed(campaign: Campaign, works: Works, count: int) -> Row:
    """While a job runs, its message is made so old in the broker's index that it is delivered again, to the
    other worker: that is started anew, since a worker looks for such messages soon after its start, and then
    every two minutes."""
    _undisturbed(campaign, campaign.rows[0], [works.long])
    row = campaign.row("visibility timeout passed during the job")
    redis = campaign.rig.redis
    for _ in range(count):
        (sent,) = campaign.submit(row, [works.long])
        campaign.rig.wait(lambda: campaign.rig.worker_of(sent.id) is not None, 60, "a worker")  # noqa: B023
        busy = campaign.rig.worker_of(sent.id)
        campaign.rig.kill(next(name for name in WORKERS if name != busy))
        tags = [str(tag) for tag in redis.zrange(_INDEX, 0, -1)]
        for tag in tags:
            redis.zadd(_INDEX, {tag: time.time() - _AGE}, xx=True)
        campaign.rig.wait(lambda: not any(redis.zscore(_INDEX, tag) for tag in tags), 60, "the delivery")  # noqa: B023
        if campaign.open_jobs(row):
            row.done += 1
        campaign.finish(row)
    return row


def delivered_twice(campaign: Campaign, works: Works, count: int) -> Row:
    """Every message comes three times, at any moment of the job's life."""
    row = campaign.row("same message delivered again")
    campaign.submit(row, works.of(works.medium, count))
    due = [sent.id for sent in row.jobs] * 2
    campaign.chance.shuffle(due)

    def again(waiting: list[Sent]) -> None:
        if due:
            campaign.dispatcher.send(due.pop(), "spectral")
            row.done += 1

    campaign.finish(row, again)
    for job_id in due:
        campaign.dispatcher.send(job_id, "spectral")
        row.done += 1
    if more := [sent.id for sent in row.jobs if sent.seen.get("attempts") != 1]:
        row.losses.append(f"{len(more)} jobs were run more than once")
    return row


def terminated(campaign: Campaign, works: Works, count: int) -> Row:
    """TERM to a worker in mid-job: the job ends in the grace time, or another worker goes on with it."""
    row = campaign.row("TERM to a worker in mid-job")
    campaign.submit(row, works.of(works.medium, count))

    def strike(waiting: list[Sent]) -> None:
        busy = [name for sent in waiting if (name := campaign.rig.worker_of(sent.id))]
        if busy:
            took = campaign.rig.terminate(busy[0])
            row.done += 1
            if took > GRACE_SECONDS + 5:
                row.losses.append(f"a worker took {took:.1f} s to stop")
            campaign.rig.pause(campaign.chance.uniform(2.0, 7.0))

    campaign.finish(row, strike)
    if more := [sent.id for sent in row.jobs if sent.seen.get("attempts") != 1]:
        row.losses.append(f"{len(more)} jobs lost an attempt to a worker that was stopped in order")
    return row


def poison(campaign: Campaign, works: Works, count: int) -> Row:
    """Jobs that kill whoever runs them, and others that wait behind them."""
    row = campaign.row("poison jobs, and others behind them")
    poisoned = campaign.submit(row, [works.long] * max(1, count // 5), expect=["worker_lost"])
    campaign.submit(row, works.of(works.medium, count - len(poisoned)))

    def strike(waiting: list[Sent]) -> None:
        for sent in poisoned:
            name = campaign.rig.worker_of(sent.id)
            if name is not None and campaign.rig.kill_child(name):
                row.done += 1
                campaign.rig.pause(0.2)

    campaign.finish(row, strike)
    if odd := [sent for sent in poisoned if sent.seen.get("attempts") != 3]:
        row.losses.append(f"{len(odd)} poison jobs did not get 3 attempts")
    return row


def canceled(campaign: Campaign, works: Works, count: int) -> Row:
    """Cancel as soon as a job is in a phase; `queued` is one here, and a long module within a phase."""
    row = campaign.row("cancel, in each phase")
    cases: list[tuple[str, Work]] = [
        ("queued", works.medium[0]),
        ("fetch", works.fetched),
        ("measure", works.long),
        ("repair", works.long),
        ("module", works.dull),
    ]
    row.worst = 0.0
    for index in range(count):
        phase, work = cases[index % len(cases)]
        (sent,) = campaign.submit(row, [work], expect=["canceled"])
        if phase != "queued":
            _until(campaign, sent, phase)
        asked = time.monotonic()
        campaign.client.cancel(sent.id)
        row.done += 1
        while campaign.open_jobs(row) and time.monotonic() - asked < 60:
            campaign.rig.pause(0.02)
        took = time.monotonic() - asked
        row.worst = max(row.worst, took)
        if took > CANCEL_SECONDS:
            row.losses.append(f"cancel in {phase} took {took:.1f} s")
    campaign.finish(row, timed=False)
    return row


def disk_filled(campaign: Campaign, works: Works, count: int) -> Row:
    """The disk that holds broker, storage and work folders is filled while jobs are sent and run. A job that
    meets it three times fails, and says why."""
    either = ("succeeded", "disk_full")
    row = campaign.row("disk filled")
    ballast = campaign.rig.folder.root / "ballast"
    rounds = max(1, count // 8)
    for index in range(rounds):
        share = count // rounds + (index < count % rounds)
        early = campaign.send(row, works.of(works.medium, share // 2), expect=either)
        campaign.rig.pause(campaign.chance.uniform(1.0, 3.0))
        _fill(ballast)
        row.done += 1
        late = campaign.send(row, works.of(works.medium, share - share // 2), expect=either)
        campaign.rig.pause(campaign.chance.uniform(3.0, 8.0))
        ballast.unlink()
        campaign.taken(row, [*early, *late])
    campaign.finish(row)
    return row


def memory_passed(campaign: Campaign, works: Works, count: int) -> Row:
    """Jobs that take more memory than a worker may, and others."""
    row = campaign.row("memory limit passed")
    campaign.submit(row, [works.greedy] * (count // 2), expect=["out_of_memory"])
    campaign.submit(row, works.of(works.short, count - count // 2))
    campaign.finish(row)
    row.done = count // 2
    return row


def _undisturbed(campaign: Campaign, row: Row, works: list[Work]) -> None:
    sents = campaign.submit(row, works)
    campaign.finish(row)
    for sent in sents:
        if sent.outcome == "succeeded":
            campaign.undisturbed[sent.kind] = campaign.client.digest(sent.id)


def _waves(works: Sequence[Work]) -> list[Sequence[Work]]:
    return [works[index : index + _WAVE] for index in range(0, len(works), _WAVE)]


def _struck_while_sending(campaign: Campaign, row: Row, jobs: Sequence[Work], name: str) -> None:
    """Send the jobs, a few at a time, and kill that process at each time."""
    for wave in _waves(jobs):
        futures = campaign.send(row, wave)
        campaign.rig.pause(campaign.chance.uniform(0.0, 0.15))
        campaign.rig.kill(name)
        row.done += 1
        campaign.taken(row, futures)


def _struck(
    campaign: Campaign,
    row: Row,
    jobs: Sequence[Work],
    seconds: tuple[float, float],
    kill: Callable[[str], bool],
) -> Row:
    """Send the jobs, and kill at one of the workers again and again, so many seconds apart."""
    campaign.submit(row, jobs)
    hits: dict[str, int] = {}

    def strike(waiting: list[Sent]) -> None:
        campaign.rig.pause(campaign.chance.uniform(*seconds))
        name = campaign.chance.choice(WORKERS)
        if not _spare(campaign, waiting, hits, name):
            row.done += kill(name)

    campaign.finish(row, strike)
    return row


def _struck_in_phase(
    campaign: Campaign,
    row: Row,
    jobs: Sequence[Work],
    phase: str,
    seconds: tuple[float, float],
    *,
    begun: int = 0,
    most: int = _MOST_HITS,
) -> dict[str, int]:
    """Send the jobs, and kill the worker of one that is in that phase and has done as much there, so many
    seconds after it was seen there. Returns how often each job was hit, which is so often at most."""
    campaign.submit(row, jobs)
    hits: dict[str, int] = {}

    def strike(waiting: list[Sent]) -> None:
        for sent in waiting:
            if hits.get(sent.id, 0) >= most:
                continue
            record = campaign.rig.store.get(sent.id)
            progress = record.progress if record is not None else None
            name = campaign.rig.worker_of(sent.id)
            if name and progress is not None and progress.phase == phase and progress.done >= begun:
                campaign.rig.pause(campaign.chance.uniform(*seconds))
                there = campaign.rig.worker_of(sent.id) == name
                if there and not _spare(campaign, waiting, hits, name, most):
                    campaign.rig.kill(name)
                    row.done += 1
                return

    campaign.finish(row, strike)
    return hits


def _spare(
    campaign: Campaign, waiting: list[Sent], hits: dict[str, int], name: str, most: int = _MOST_HITS
) -> bool:
    """Count a hit on the job that this worker runs; true where that would be one too many."""
    for sent in waiting:
        if campaign.rig.worker_of(sent.id) == name:
            if hits.get(sent.id, 0) >= most:
                return True
            hits[sent.id] = hits.get(sent.id, 0) + 1
    return False


def _until(campaign: Campaign, sent: Sent, phase: str) -> None:
    """Returns once the job is in that phase, as the store has it."""

    def there() -> bool:
        record = campaign.rig.store.get(sent.id)
        if record is None or record.status in ENDED:
            return True
        if phase in ("fetch", "module"):
            # The one tells nothing before the Hub answers, the other nothing before its first module's end.
            return record.status == "running"
        return record.progress is not None and record.progress.phase == phase

    campaign.rig.wait(there, 120, f"phase {phase}")
    if phase == "module":
        campaign.rig.pause(2.0)


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"\0" * size)
            except OSError:
                size //= 2
