"""Backups in a bucket of moto, which speaks the protocol of S3.

Pushes lines to a server of its own, backs it up twice while it runs, verifies, restores into a
new directory, and exports what is there. Damages an object: that must be told.
"""

import json
import logging
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

import boto3
from moto.server import ThreadedMotoServer

PROGRAM = os.environ["WATCHPOST_PROGRAM"]
LINES = 3_000


def request(method, url, body=None, headers=None):
    asked = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    with urllib.request.urlopen(asked, timeout=20) as answer:
        return answer.read()


def run(*arguments, code=0):
    done = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60)
    if done.returncode != code:
        print(f"bucket: {arguments} ended with {done.returncode}\n{done.stdout}{done.stderr}", file=sys.stderr)
        raise SystemExit(1)
    return done.stdout


def push(port, numbers):
    noise = random.Random(numbers[0])
    start = time.time_ns()
    values = [[str(start + n), f"line {n} {noise.randbytes(400).hex()}"] for n in numbers]
    body = json.dumps({"streams": [{"stream": {"app": "bucket"}, "values": values}]}).encode()
    url = f"http://127.0.0.1:{port}/loki/api/v1/push"
    request("POST", url, body, {"Content-Type": "application/json"})


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def main():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    bucket = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    bucket.start()
    host, bucket_port = bucket.get_host_and_port()
    endpoint = f"http://{host}:{bucket_port}"
    os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="b", AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1",
                      AWS_ENDPOINT_URL=endpoint)
    client = boto3.client("s3", endpoint_url=endpoint)
    client.create_bucket(Bucket="kept")
    target = "s3://kept/some/where"

    with tempfile.TemporaryDirectory() as temporary:
        port = free_port()
        config = f"{temporary}/config.toml"
        everything = ["jaeger.agent.compact", "jaeger.agent.binary", "jaeger.agent.sampling", "jaeger.agent.zipkin",
                      "jaeger.collector.http", "jaeger.collector.grpc", "jaeger.collector.admin", "jaeger.query.http",
                      "jaeger.query.grpc", "jaeger.storage.grpc", "otlp.http", "otlp.grpc", "zipkin.listen"]
        with open(config, "w") as out:
            out.write(f'storage.path = "{temporary}/data"\nloki.listen = "127.0.0.1:{port}"\n')
            out.writelines(f'{key} = "127.0.0.1:0"\n' for key in everything)
        server = subprocess.Popen([PROGRAM, "serve", "--config", config],
                                  stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    request("GET", f"http://127.0.0.1:{port}/ready")
                    break
                except OSError:
                    time.sleep(0.1)
            push(port, range(LINES))
            # Otherwise the second one copies as tables what the first copied as journal.
            request("POST", f"http://127.0.0.1:{port}/flush")
            first = run("backup", "create", "--target", target, "--config", config)
            push(port, range(LINES, LINES + 10))
            second = run("backup", "create", "--target", target, "--config", config)
        finally:
            server.terminate()
            server.wait()
        copied = [int(made.split("copied ")[1].split(" files, ")[1].split(" bytes")[0]) for made in (first, second)]
        if not copied[1] < copied[0] / 4:
            raise SystemExit(f"bucket: the second backup copied much: {first}{second}")
        names = run("backup", "list", "--target", target).split()
        run("backup", "verify", "--target", target)

        for name, lines in zip(names, (LINES, LINES + 10), strict=True):
            restored = f"{temporary}/restored-{lines}"
            run("backup", "restore", "--target", target, "--name", name, "--storage-path", restored)
            exported = run("export", "--query", '{app="bucket"}', "--from", "2020-01-01T00:00:00Z",
                           "--storage-path", restored)
            found = {int(json.loads(line)["line"].split()[1]) for line in exported.splitlines()}
            if found != set(range(lines)):
                raise SystemExit(f"bucket: {len(found)} lines of {lines} after restoring")

        objects = client.list_objects_v2(Bucket="kept", Prefix="some/where/objects/")["Contents"]
        largest = max(objects, key=lambda o: o["Size"])["Key"]
        body = bytearray(client.get_object(Bucket="kept", Key=largest)["Body"].read())
        body[len(body) // 2] ^= 1
        client.put_object(Bucket="kept", Key=largest, Body=bytes(body))
        told = run("backup", "verify", "--target", target, code=1)
        if largest.split("/")[-1] not in told:
            raise SystemExit(f"bucket: the damaged object is not told: {told}")
        missing = run("backup", "list", "--target", "s3://nowhere/x", code=1)
        if missing:
            raise SystemExit(f"bucket: a bucket that is not there has {missing}")
    bucket.stop()
    print("ok: backups in a bucket of moto")


main()
