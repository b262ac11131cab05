"""RQ against a server: python queue_rq.py PORT. Ends with status 0 and the word "ok".

A worker in a process of its own runs 1,000 jobs; when half of them are done, every other connection to
the server is killed.
"""

import os
import subprocess
import sys
import tempfile
import time

import redis
import rq

PORT = int(sys.argv[1])
JOBS = 1000
WITHIN_S = 120


def run(queue, jobs):
    connection = queue.connection
    enqueued = [queue.enqueue(pow, n, 2, result_ttl=600) for n in jobs]
    deadline = time.monotonic() + WITHIN_S
    for n, job in zip(jobs, enqueued):
        while job.get_status(refresh=True) != rq.job.JobStatus.FINISHED:
            assert job.get_status(refresh=False) != rq.job.JobStatus.FAILED, job.latest_result()
            assert time.monotonic() < deadline, f"job {n} is {job.get_status()}"
            time.sleep(0.01)
        assert job.return_value() == n * n, n
    assert connection.llen(queue.key) == 0


def main():
    connection = redis.Redis(port=PORT)
    log = tempfile.TemporaryFile(mode="w+")
    command = [sys.executable, "-m", "rq.cli", "worker", "--worker-class", "rq.SimpleWorker"]
    command += ["--url", f"redis://127.0.0.1:{PORT}/0", "default"]
    worker = subprocess.Popen(
        command, cwd=os.path.dirname(os.path.abspath(__file__)), stdout=log, stderr=subprocess.STDOUT
    )
    try:
        queue = rq.Queue("default", connection=connection)
        run(queue, range(JOBS // 2))
        # A worker of RQ survives the loss of its connection where it waits for jobs, and only there.
        deadline = time.monotonic() + WITHIN_S
        while connection.info("clients")["blocked_clients"] == 0:
            assert time.monotonic() < deadline, "the worker does not wait for jobs"
        killed = connection.client_kill_filter(_type="normal", skipme=True)
        killed += connection.client_kill_filter(_type="pubsub", skipme=True)
        assert killed >= 1, killed
        run(queue, range(JOBS // 2, JOBS))
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
