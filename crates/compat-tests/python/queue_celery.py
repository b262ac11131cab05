"""Celery against a server: python queue_celery.py PORT. Ends with status 0 and the word "ok".

A worker in a process of its own runs 1,000 jobs; when half of them are done, every other connection to
the server is killed. Broker, results and their pub/sub lie on the server under test.
"""

import os
import subprocess
import sys
import tempfile

import celery
import redis

PORT = int(os.environ.get("QUEUE_PORT") or sys.argv[1])
JOBS = 1000
WITHIN_S = 120

app = celery.Celery(
    "queue_celery",
    broker=f"redis://127.0.0.1:{PORT}/0",
    backend=f"redis://127.0.0.1:{PORT}/1",
)
app.conf.broker_connection_retry_on_startup = True
app.conf.broker_transport_options = {"socket_timeout": 10}
app.conf.result_backend_always_retry = True
app.conf.worker_cancel_long_running_tasks_on_connection_loss = False


@app.task
def add(a, b):
    return a + b


def run(jobs):
    results = [(n, add.apply_async((n, n), retry=True)) for n in jobs]
    for n, result in results:
        assert result.get(timeout=WITHIN_S) == 2 * n, n


def main():
    log = tempfile.TemporaryFile(mode="w+")
    command = [sys.executable, "-m", "celery", "-A", "queue_celery", "worker"]
    command += ["--pool", "solo", "--loglevel", "INFO", "--without-gossip", "--without-mingle"]
    worker = subprocess.Popen(
        command,
        env={**os.environ, "QUEUE_PORT": str(PORT), "C_FORCE_ROOT": "1"},
        cwd=os.path.dirname(os.path.abspath(__file__)),
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        run(range(JOBS // 2))
        control = redis.Redis(port=PORT)
        killed = control.client_kill_filter(_type="normal", skipme=True)
        killed += control.client_kill_filter(_type="pubsub", skipme=True)
        assert killed >= 2, killed
        run(range(JOBS // 2, JOBS))
        assert control.llen("celery") == 0
        assert worker.poll() is None, "the worker ended"
    except BaseException:
        log.seek(0)
        sys.stderr.write(log.read()[-4000:])
        raise
    finally:
        worker.kill()
        worker.wait()
    print("ok")


if __name__ == "__main__":
    main()
