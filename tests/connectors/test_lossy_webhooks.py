"""GitHub and Slack while a fifth of all deliveries is lost, a fifth comes twice and all come in any order: what was announced,
then one delta, then one complete listing bring an index to the provider's last state, and each says how far it gets alone."""

from __future__ import annotations

import json
import random
from contextlib import closing

import pytest

from sourcebus.connectors import Connector
from sourcebus.connectors.github import GithubConnector
from sourcebus.connectors.slack import SlackConnector
from sourcebus.model import WHOLE_SOURCE
from sourcebus.testing.connector_suite import Hook, Index
from sourcebus.testing.providers.courier import Faults
from sourcebus.testing.providers.github import TOKEN as GITHUB_TOKEN
from sourcebus.testing.providers.github import GithubServer
from sourcebus.testing.providers.github_repository import SimulatedRepository
from sourcebus.testing.providers.slack import SIGNING_SECRET, SlackServer
from sourcebus.testing.providers.slack import TOKEN as SLACK_TOKEN

SEEDS = range(3)
STEPS = 60


def drain(hook: Hook, index: Index) -> None:
    """Follow what has arrived, in the order in which it came."""
    with hook.lock:
        arrived = [*hook.deliveries]
        hook.clear()
    for delivery in arrived:
        index.take(hook.hear(delivery).changes)


def truth(connector: Connector) -> dict[str, str]:
    index = Index(connector)
    index.scan()
    return index.versions


def faults(seed: int) -> Faults:
    return Faults(seed=seed, lose=0.2, duplicate=0.2, delay_ms=(0, 20))


# GitHub


def github_step(repo: SimulatedRepository, chance: random.Random) -> None:
    """One thing that people do, at random."""
    paths = [f"{folder}{number}.md" for folder in ("", "a/", "a/b/") for number in range(4)]
    issues = [number for number, thread in repo.threads.items() if thread.head is None]
    what = chance.random()
    if what < 0.4:
        chosen = chance.sample(paths, chance.randint(1, 4))
        repo.push({path: chance.choice([None, f"text {chance.random()}"]) for path in chosen})
    elif what < 0.47:
        repo.force_push(dict.fromkeys(chance.sample(paths, 5), "rewritten"), onto=chance.choice([*repo.git.commits, None]))
    elif what < 0.6 or not issues:
        repo.open(f"thread {chance.random()}", head="a" * 40 if chance.random() < 0.3 else None)
    elif what < 0.65:
        repo.delete(chance.choice(issues))
    else:
        number = chance.choice([*repo.threads])
        comments = repo.threads[number].comments
        if comments and chance.random() < 0.5:
            repo.edit_comment(
                number, chance.choice(comments)["id"], f"edit {chance.random()}", dates_issue=chance.random() < 0.5
            )
        else:
            repo.comment(number, f"comment {chance.random()}")


@pytest.mark.parametrize("seed", SEEDS)
def test_github_converges(seed: int) -> None:
    chance = random.Random(seed)
    secret = json.dumps({"token": GITHUB_TOKEN, "webhook": "s"})
    with GithubServer(faults=faults(seed)) as github:
        repo = github.repository("octo/docs")
        config = {"owner": "octo", "repo": "docs", "api": github.url}
        with (
            closing(GithubConnector.create(config, secret)) as connector,
            closing(GithubConnector.create(config, secret)) as judge,
        ):
            index = Index(connector)
            index.scan()
            with Hook(connector) as hook:
                github.add_hook("octo/docs", hook.address, "s")
                for step in range(STEPS):
                    github_step(repo, chance)
                    if step % 10 == 9:
                        drain(hook, index)
                    if step == STEPS // 2:
                        index.scan()
                github.courier.settle()
                drain(hook, index)
            assert any(sent.lost for _event, _guid, sent in github.delivered)
            before = repo.git.files(json.loads(index.cursors[WHOLE_SOURCE] or "{}")["contents"]["head"])
            index.scan()
            lasting, now = truth(judge), repo.git.files(repo.git.branches["main"])
            for ref in index.versions.keys() | lasting.keys():
                if index.versions.get(ref) != lasting.get(ref):
                    path = ref.removeprefix("contents/")
                    there_and_back = path != ref and before.get(path) == now.get(path)
                    gone_issue = ref.startswith("issues/") and ref not in lasting
                    assert there_and_back or gone_issue, f"the delta should have told of {ref}"
            index.scan(anew=True)
            assert index.versions == lasting


# Slack


def slack_step(slack: SlackServer, channel: str, chance: random.Random) -> None:
    """One thing that people do, at random."""
    held = slack.messages(channel)
    roots = [ts for ts, message in held.items() if message.get("thread_ts") in (None, ts) and message.get("subtype") is None]
    what = chance.random()
    if what < 0.35 or not roots:
        slack.post(channel, f"message {chance.random()}")
    elif what < 0.65:
        slack.post(channel, f"reply {chance.random()}", thread=chance.choice(roots))
    else:
        written = chance.choice([ts for ts, message in held.items() if message.get("subtype") is None])
        if what < 0.85:
            slack.edit(channel, written, f"edit {chance.random()}")
        else:
            slack.delete(channel, written)


@pytest.mark.parametrize("seed", SEEDS)
def test_slack_converges(seed: int) -> None:
    chance = random.Random(seed)
    secret = json.dumps({"token": SLACK_TOKEN, "signing": SIGNING_SECRET})
    with SlackServer(faults=faults(seed), pace=10_000) as slack:
        slack.channel("C0ONE")
        config = {"api": slack.api}
        with (
            closing(SlackConnector.create(config, secret)) as connector,
            closing(SlackConnector.create(config, secret)) as judge,
        ):
            index = Index(connector)
            index.scan()
            with Hook(connector) as hook:
                slack.set_request_url(hook.address)
                for step in range(STEPS):
                    slack_step(slack, "C0ONE", chance)
                    if step % 10 == 9:
                        drain(hook, index)
                slack.courier.settle()
                drain(hook, index)
            index.scan()
            lasting = truth(judge)
            assert lasting.keys() <= index.versions.keys(), "a delta misses no thread that is there"
            index.scan(anew=True)
            assert index.versions == lasting
