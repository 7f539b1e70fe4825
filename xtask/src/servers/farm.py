"""Starts BuildGrid, PostgreSQL that it needs, and two bots: a farm for tests, on the loopback.

No package has a bot for BuildGrid's protocol (Remote Workers API), so there is one here; BuildGrid's
own package has the messages. Arguments: the port, and a folder for the data. What is started ends
with this program.
"""

import ctypes
import functools
import glob
import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

if sys.argv[1:] == ["--help"]:
    sys.exit(__doc__ and 0)

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as re
from buildgrid._protos.google.bytestream import bytestream_pb2 as stream
from buildgrid._protos.google.bytestream import bytestream_pb2_grpc as stream_grpc
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import bots_pb2 as bots
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import bots_pb2_grpc as bots_grpc
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import worker_pb2 as worker

INSTANCE = "main"
PORT, FOLDER = int(sys.argv[1]), sys.argv[2]
COMPLETED = 4
# An action takes one until it is answered.
THREADS = 300


@functools.cache
def stub(of):
    """Returns a client of the server. There is none before all processes were started: a process
    that is forked beside the threads of gRPC may stand still."""
    return of(grpc.insecure_channel(f"127.0.0.1:{PORT}"))


def read(digest):
    name = f"{INSTANCE}/blobs/{digest.hash}/{digest.size_bytes}"
    parts = stub(stream_grpc.ByteStreamStub).Read(stream.ReadRequest(resource_name=name))
    return b"".join(part.data for part in parts)


def store(data):
    digest = re.Digest(hash=hashlib.sha256(data).hexdigest(), size_bytes=len(data))
    name = f"{INSTANCE}/uploads/{os.urandom(8).hex()}/blobs/{digest.hash}/{digest.size_bytes}"
    step = 1 << 20

    def parts():
        for start in range(0, max(len(data), 1), step):
            part, end = data[start : start + step], start + step >= len(data)
            yield stream.WriteRequest(resource_name=name, write_offset=start, finish_write=end, data=part)

    stub(stream_grpc.ByteStreamStub).Write(parts())
    return digest


def execute(action):
    command = re.Command.FromString(read(action.command_digest))
    root = re.Directory.FromString(read(action.input_root_digest))
    with tempfile.TemporaryDirectory() as folder:
        for file in root.files:
            path = os.path.join(folder, os.path.basename(file.name))
            with open(path, "wb") as output:
                output.write(read(file.digest))
            os.chmod(path, 0o755 if file.is_executable else 0o644)
        try:
            ran = subprocess.run(command.arguments, cwd=folder, env={}, capture_output=True)
            result = re.ActionResult(exit_code=ran.returncode, stderr_raw=ran.stderr[:1000])
        except OSError as error:
            result = re.ActionResult(exit_code=127, stderr_raw=str(error).encode())
        for name in command.output_paths:
            path = os.path.join(folder, os.path.basename(name))
            if os.path.isfile(path):
                with open(path, "rb") as output:
                    result.output_files.add(path=name, digest=store(output.read()))
    return result


def complete(lease):
    if lease.payload.Is(re.Action.DESCRIPTOR):
        action = re.Action()
        lease.payload.Unpack(action)
    else:
        digest = re.Digest()
        lease.payload.Unpack(digest)
        action = re.Action.FromString(read(digest))
    lease.result.Pack(execute(action))
    lease.state = COMPLETED


def bot(name):
    machine = worker.Worker(devices=[worker.Device(handle=name)])
    session = bots.BotSession(bot_id=name, status=bots.OK, worker=machine)
    session = stub(bots_grpc.BotsStub).CreateBotSession(
        bots.CreateBotSessionRequest(parent=INSTANCE, bot_session=session), timeout=60
    )
    while True:
        for lease in session.leases:
            if lease.state != COMPLETED:
                complete(lease)
        request = bots.UpdateBotSessionRequest(name=session.name, bot_session=session)
        session = stub(bots_grpc.BotsStub).UpdateBotSession(request, timeout=60)
        session.status = bots.OK


CONFIG = """
server:
  - !channel
    address: "127.0.0.1:{port}"
    insecure-mode: true
connections:
  - !sql-connection &sql
    connection-string: {sql}
storages:
  - !disk-storage &cas
    path: {folder}/cas
caches:
  - !lru-action-cache &actions
    storage: *cas
    max-cached-refs: 1000
    allow-updates: true
    cache-failed-actions: false
schedulers:
  - !sql-scheduler &scheduler
    sql: *sql
    storage: *cas
    action-cache: *actions
    property-set:
      !dynamic-property-set
      match-property-keys: []
      wildcard-property-keys: []
instances:
  - name: main
    services:
      - !action-cache
        cache: *actions
      - !execution
        scheduler: *scheduler
      - !cas
        storage: *cas
      - !bytestream
        storage: *cas
thread-pool-size: {threads}
"""


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def postgres(port):
    """Starts PostgreSQL, which does not run as root."""
    folders = os.environ.get("PATH", "").split(":") + sorted(glob.glob("/usr/lib/postgresql/*/bin"))
    programs = [shutil.which(name, path=":".join(folders)) for name in ("initdb", "postgres")]
    if None in programs:
        sys.exit("PostgreSQL is not installed: Debian has it as postgresql")
    data = os.path.join(FOLDER, "sql")
    os.mkdir(data)
    user = {}
    if os.geteuid() == 0:
        user = {"user": "postgres", "group": "postgres", "extra_groups": []}
        shutil.chown(data, "postgres", "postgres")
        for folder in (FOLDER, os.path.dirname(FOLDER)):
            os.chmod(folder, 0o711)
    args = [programs[0], "-D", data, "-A", "trust", "-U", "bgd", "--no-sync"]
    subprocess.run(args, cwd="/", check=True, **user)
    args = [programs[1], "-D", data, "-p", str(port), "-k", data, "-h", "127.0.0.1", "-F"]
    subprocess.Popen(args, cwd="/", preexec_fn=end_with_parent, **user)


def wait_for(port):
    for _ in range(600):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except OSError:
            time.sleep(0.1)
    sys.exit(f"nothing answers at port {port}")


def main():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        sql_port = free.getsockname()[1]
    postgres(sql_port)
    wait_for(sql_port)
    sql = f"postgresql+psycopg2://bgd@127.0.0.1:{sql_port}/postgres"
    config = os.path.join(FOLDER, "config.yml")
    with open(config, "w") as output:
        output.write(CONFIG.format(port=PORT, sql=sql, folder=FOLDER, threads=THREADS))
    bgd = os.path.join(os.path.dirname(sys.executable), "bgd")
    for _ in range(50):
        # The port is open before the database takes connections.
        if subprocess.run([bgd, "migrate", "apply", sql]).returncode == 0:
            break
        time.sleep(0.2)
    server = subprocess.Popen([bgd, "server", "start", config], preexec_fn=end_with_parent)
    wait_for(PORT)
    for number in range(2):
        threading.Thread(target=bot, args=[f"bot{number}"], daemon=True).start()
    server.wait()


main()
