"""What the overlay's pods would run does run: its commands, settings and probes, in sandboxes on this machine."""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest
from polymart.order.v1.order_pb2 import ORDER_STATUS_CONFIRMED

from chassis.config import PREFIX
from tests.e2e.shop import Shop, until
from tests.k8s import image as images
from tests.k8s.cluster import Cluster, init_script, mongodb_users, started
from tests.k8s.manifests import Manifests
from tests.k8s.tools import documents

# Services whose readiness waits for a schema that only their migration makes.
WAITING = ("catalog-svc", "customer-svc", "inventory-svc", "notification-svc", "order-svc", "payment-svc")
pytestmark = pytest.mark.timeout(400)


def sandbox_missing() -> str:
    if shutil.which("bwrap") is None:
        return "bwrap is missing (Debian's package bubblewrap)"
    tried = subprocess.run(
        ["bwrap", "--unshare-user", "--unshare-pid", "--ro-bind", "/", "/", "--proc", "/proc", "true"],
        capture_output=True,
        timeout=10,
        check=False,
    )
    return f"bwrap can't make a sandbox here: {tried.stderr.decode().strip()}" if tried.returncode else ""


def test_the_build_has_its_interpreter_wherever_that_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := sandbox_missing():
        pytest.skip(reason)
    python = tmp_path / "python"
    top = tmp_path.parts[1]
    made = {"build": tmp_path / "build", top: tmp_path / top}
    for folder in (python, *made.values()):
        folder.mkdir()
    (python / "mark").touch()
    monkeypatch.setattr(sys, "base_prefix", str(python))
    step = images.Step("RUN", (), f"test -f {python}/mark && ! test -e {tmp_path}/build")
    images.run(step, made, {})


@pytest.fixture(scope="module")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Cluster]:
    """The overlay as `kubectl apply` would leave it: everything started at once, ready once the Jobs have run."""
    if reason := sandbox_missing():
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    manifests = Manifests(documents())
    image = await asyncio.to_thread(images.build, tmp_path_factory.mktemp("image"))
    async with started(manifests, image, tmp_path_factory.mktemp("pods")) as cluster:
        await cluster.start()
        unready = [name for name in WAITING if not await cluster.pods[name].probe("readinessProbe")]
        assert unready == list(WAITING), "who is ready before its schema is there?"
        assert all(await asyncio.gather(*(pod.probe("livenessProbe") for pod in cluster.pods.values())))
        await asyncio.gather(*(job.start() for job in cluster.jobs))
        for job in cluster.jobs:
            assert await job.end(60) == 0, f"{job.workload.title}: {job.tail()}"
        await cluster.ready()
        yield cluster


@pytest.fixture(scope="module")
async def shop(cluster: Cluster) -> AsyncIterator[Shop]:
    shop = Shop(cluster)  # type: ignore[arg-type]  # of a stack it asks for addresses alone
    yield shop
    await shop.close()


async def test_every_pod_answers_its_three_probes(cluster: Cluster) -> None:
    for pod in cluster.pods.values():
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            assert await pod.probe(probe), f"{pod.workload.title}: {probe}"


async def test_a_container_is_the_manifests_user_and_can_write_nowhere(cluster: Cluster, tmp_path: Path) -> None:
    script = (
        "import os, sys\n"
        "assert (os.getuid(), os.getgid(), os.getpid()) == (10001, 10001, 1)\n"
        "for folder in ('/', '/opt/polymart', '/etc', '/usr', '/var', '/tmp', '/home'):\n"
        "    try:\n"
        "        open(f'{folder}/x', 'w')\n"
        "    except OSError:\n"
        "        continue\n"
        "    sys.exit(f'{folder} can be written')\n"
    )
    job = cluster.jobs[0]
    await job.start("python", "-c", script)
    assert await job.end(20) == 0, job.tail()


async def test_a_role_can_connect_to_its_own_database_alone(cluster: Cluster) -> None:
    urls = {
        value
        for pod in cluster.pods.values()
        for name, value in pod.environ.items()
        if name.startswith(PREFIX) and value.startswith("postgresql://")
    }
    assert len(urls) == 6
    for url in urls:
        connection = await asyncpg.connect(url, timeout=10)
        await connection.close()
        for other in urls - {url}:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await asyncpg.connect(f"{url.rpartition('/')[0]}/{other.rpartition('/')[2]}", timeout=10)


def test_mongodbs_script_makes_the_user_that_the_catalog_logs_in_as() -> None:
    if (node := shutil.which("node")) is None:
        pytest.skip("no node, which speaks the language of MongoDB's shell")
    manifests = Manifests(documents())
    shell = "const db = {getSiblingDB: (d) => ({createUser: (u) => console.log(JSON.stringify([d, u]))})};\n"
    told = manifests.environment(next(w for w in manifests.workloads if w.name == "mongodb")).values
    command = [node, "-e", shell + init_script(manifests, "mongodb")]
    made = subprocess.run(command, env=told, capture_output=True, text=True, timeout=30, check=True).stdout
    assert [tuple(json.loads(line)) for line in made.splitlines()] == mongodb_users(manifests)


async def test_an_order_goes_from_start_to_confirmed_and_its_customer_is_told(cluster: Cluster, shop: Shop) -> None:
    (sku,) = await shop.product(price="2.55", stock=10)
    order = await shop.settled(await shop.place(sku, quantity=2, customer=await shop.customer()))
    assert order.status == ORDER_STATUS_CONFIRMED
    level = await shop.stock(sku)
    assert (level.on_hand, level.reserved) == (8, 0)

    async def mailed() -> bool:
        return any(order.order_id in mail.read_text() for mail in cluster.mailbox.glob("*.eml"))

    await until(mailed, "the mail")


async def test_sigterm_ends_a_pod_that_only_starts(cluster: Cluster) -> None:
    pod = cluster.pods["email-svc"]
    await pod.terminate()
    await pod.start()
    await pod.hears(signal.SIGTERM)
    await pod.terminate(128 + signal.SIGTERM)
    await pod.start()
    await pod.until("readinessProbe")


async def test_sigterm_ends_a_job_that_waits_for_its_store(cluster: Cluster) -> None:
    job = next(job for job in cluster.jobs if job.workload.args[0] == "customer_svc")
    nowhere = "POLYMART_POSTGRES_URL=postgresql://polymart_customer@127.0.0.1:1/polymart_customer"
    await job.start("env", nowhere, *cluster.entrypoint, *job.workload.args)

    async def waits() -> bool:
        return '"event": "waiting"' in job.tail()

    await until(waits, "the job")
    await job.terminate(128 + signal.SIGTERM)


async def open_orders(cluster: Cluster) -> int:
    """How many are PENDING, by the store."""
    connection = await asyncpg.connect(cluster.pods["order-svc"].environ["POLYMART_POSTGRES_URL"], timeout=10)
    try:
        return int(await connection.fetchval("SELECT count(*) FROM orders WHERE status = 'PENDING'"))
    finally:
        await connection.close()


async def test_a_pod_drains_within_its_grace_though_the_broker_froze(cluster: Cluster, shop: Shop) -> None:
    (sku,) = await shop.product(stock=10)
    with cluster.broker.frozen():
        order = await shop.place(sku)
        await cluster.pods["order-svc"].terminate()
        assert await open_orders(cluster) == 1
    await cluster.pods["order-svc"].start()
    await cluster.pods["order-svc"].until("readinessProbe")
    assert await shop.outcome(order) == "CONFIRMED"


async def test_pods_drain_within_their_grace_and_lose_no_order(cluster: Cluster, shop: Shop) -> None:
    (sku,) = await shop.product(stock=100)
    orders = await asyncio.gather(*(shop.place(sku) for _ in range(20)))
    took = await asyncio.gather(*(pod.terminate() for pod in cluster.pods.values()))
    assert len(took) == 8
    assert await open_orders(cluster) > 0, "a drain with nothing in hand proves nothing"
    await cluster.start()
    await cluster.ready()
    outcomes = await asyncio.gather(*(shop.outcome(order) for order in orders))
    assert outcomes == ["CONFIRMED"] * 20
    level = await shop.stock(sku)
    assert (level.on_hand, level.reserved) == (80, 0)
