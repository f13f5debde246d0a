"""`make images-check`: builds the images without Docker and without a registry, and serves the demo model from them.

Path of the check: bases → images → contents → container → client. As root, on Debian. Everything it keeps is in
build/images; a second run takes bases and layers from there.

The whole check runs in mount and process namespaces of its own (`unshare`): however it ends, its mounts and processes
end with it. The containers run in a network namespace that has nothing but loopback.
"""

import argparse
import ctypes
import fcntl
import os
import pathlib
import shutil
import subprocess
import sys
import tomllib

from deploy.docker.check import bases, container, contents, images, steps

ROOT = pathlib.Path(__file__).resolve().parents[3]
FOLDER = ROOT / "build/images"
TOOLS = {"debootstrap": "debootstrap", "buildah": "buildah", "runc": "runc", "ip": "iproute2", "unshare": "util-linux"}
INSIDE = "FOVEA_IMAGES_CHECK_INSIDE"
# Neither a known user nor a known group: what belongs to root's group is not readable by accident.
USER = (12345, 23456)
CLONE_NEWNET = 0x40000000
# Seen from inside: each must fail with EROFS (30), which also root would get; EACCES would only mean a lack of rights.
WRITES = """
import os, sys
for folder in ("/", "/tmp", "/opt/fovea", "/models", "/usr", "/etc"):
    try:
        os.open(folder + "/written", os.O_CREAT | os.O_WRONLY)
    except OSError as error:
        if error.errno == 30:
            continue
        sys.exit(f"{folder}: {error}")
    sys.exit(f"{folder} can be written to")
status = dict(line.split(":", 1) for line in open("/proc/1/status").read().splitlines())
wrong = [name for name in ("CapPrm", "CapEff", "CapBnd") if int(status[name], 16)]
uids = set(status["Uid"].split() + status["Gid"].split())
if wrong or status["NoNewPrivs"].strip() != "1":
    sys.exit(f"privileges: {wrong} {status['NoNewPrivs']}")
print(*sorted(uids))
"""


def main() -> int:
    """Check the images that the command line names."""
    parser = argparse.ArgumentParser(prog="make images-check", description=__doc__)
    parser.add_argument("--devices", nargs="+", choices=("cpu", "cuda"), default=["cpu"])
    parser.add_argument("--storage", choices=("auto", "overlay", "vfs"), default="auto", help="buildah's driver")
    chosen = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("images-check needs root, for chroot and mounts; run it as root on a machine of its own")
    if INSIDE not in os.environ:
        _install_tools()
        _enter_namespaces()
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit(f"another images-check runs in {FOLDER}; wait for it")
        try:
            _check(chosen.devices, chosen.storage)
        except steps.CheckFailed as error:
            sys.exit(f"images-check failed: {error}")
    return 0


def _install_tools() -> None:
    missing = sorted(package for tool, package in TOOLS.items() if shutil.which(tool) is None)
    if not missing:
        return
    if shutil.which("apt-get") is None:
        sys.exit(f"images-check needs {', '.join(missing)} (names of Debian's packages); install them")
    steps.say(f"• apt-get install {' '.join(missing)}")
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update", "-qq"], ["install", "-qq", "-y", "--no-install-recommends", *missing]):
        ended = subprocess.run(["apt-get", *command], env=environment, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            sys.exit(f"`apt-get {' '.join(command)}` failed:\n{ended.stdout[-2000:]}{ended.stderr[-2000:]}")


def _enter_namespaces() -> None:
    """Start over inside; does not return."""
    os.environ[INSIDE] = "1"
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    os.execvp("unshare", [*unshare, sys.executable, "-m", "deploy.docker.check", *sys.argv[1:]])


def _check(devices: list[str], storage: str) -> None:
    files = bases.make(FOLDER)
    driver = images.choose_driver(FOLDER) if storage == "auto" else storage
    steps.say(f"• buildah stores with {driver}" + (", which copies every layer: some GB" if driver == "vfs" else ""))
    shutil.rmtree(FOLDER / "run", ignore_errors=True)  # says what is mounted; nothing is, in a new namespace
    store = images.Images(FOLDER, driver)
    store.remove_containers()
    container.remove(FOLDER)
    try:
        base = store.take_base(files["debian"])
        small = store.take_base(files["small"])
        built = {}
        for device in devices:
            built[device] = _build(store, device, {"DEVICE": device, "BASE_IMAGE": base})
        if "cpu" in devices:  # of CUDA's gigabytes the base is too small a part
            arguments = {"DEVICE": "cpu", "BASE_IMAGE": base, "SERVE_IMAGE": small}
            built["cpu-small"] = _build(store, "cpu-small", arguments)
        for tag, name in built.items():
            _look_into(store, tag, name)
        repository = _repository()
        _leave_network()
        for name in built.values():
            _serve(store, name, repository)
    finally:
        store.remove_containers()
    steps.say(f"images-check passed: {', '.join(built.values())}")


def _build(store: images.Images, tag: str, arguments: dict[str, str]) -> str:
    name = f"localhost/fovea:{_version()}-{tag}"
    git = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"]
    store.build(name, ROOT, arguments | {"VERSION": _version(), "REVISION": steps.output(git).strip()})
    return name


def _version() -> str:
    return str(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"])


def _look_into(store: images.Images, tag: str, name: str) -> None:
    with steps.step(f"look into {name}"):
        tree = store.mount(name)
        contents.check(tree)
        contents.check_labels(store.configuration(name)["Labels"], _version())
        contents.report(tree, store.compressed_bytes(name), FOLDER / f"packages-{tag}.tsv")


def _repository() -> pathlib.Path:
    """Return a repository with the demo model, trained and exported unless it is there."""
    repository = FOLDER / "models"
    if not (repository / "lenet5/1/evidence/golden.npz").exists():
        fovea = [sys.executable, "-m", "fovea", "export", "lenet5", "--outputs", "probabilities", "--replace"]
        with steps.step("train and export LeNet-5"):
            # One thread takes 16 s of CPU. Two, on a machine with other work, wait for each other by spinning: 132 s.
            environment = os.environ | {"OMP_NUM_THREADS": "1"}
            steps.logged([*fovea, "--repository", str(repository)], FOLDER / "export.log", 1800, environment)
    return repository


def _leave_network() -> None:
    """From here on this process and its children have loopback only, and all ports of it."""
    if ctypes.CDLL(None, use_errno=True).unshare(CLONE_NEWNET) != 0:
        raise steps.CheckFailed(f"no network namespace: {os.strerror(ctypes.get_errno())}")
    steps.output(["ip", "link", "set", "lo", "up"])


def _serve(store: images.Images, name: str, repository: pathlib.Path) -> None:
    configuration = store.configuration(name)
    # Without a GPU the CUDA image has to say so; what else is in it can still be tried.
    environment = {"FOVEA_DEVICE": "cpu"} if "FOVEA_DEVICE=cuda" in configuration["Env"] else {}
    variables = dict(line.split("=", 1) for line in configuration["Env"])
    with (
        steps.step(f"serve from {name} as {USER[0]}:{USER[1]}, root read-only"),
        container.running(
            FOLDER, store.mount(name), configuration, {variables["FOVEA_REPOSITORY"]: repository}, USER, environment
        ) as served,
    ):
        try:
            _ask(served, variables, repository)
        except steps.CheckFailed as error:
            log = (FOLDER / "server.log").read_text()[-3000:]
            raise steps.CheckFailed(f"{name}: {error}\nthe server's log:\n{log}") from error


def _ask(served: container.Container, variables: dict[str, str], repository: pathlib.Path) -> None:
    steps.say(f"  healthy after {served.wait_until_healthy():.1f} s, by the image's own check")
    if served.is_healthy({"FOVEA_METRICS_PORT": "9"}):
        raise steps.CheckFailed("the health check succeeds where nothing listens")
    steps.say(f"  one health check takes {served.health_check_cpu_s() * 1e3:.0f} ms of CPU, runc's share included")
    tried = served.execute("python3", "-ISc", WRITES)
    if tried.returncode != 0 or tried.stdout.split() != sorted(map(str, USER)):
        raise steps.CheckFailed(f"the container is not as it was asked for: {tried.stdout}{tried.stderr}")
    steps.say(f"  user {USER[0]}:{USER[1]}, no capability; /, /tmp, /opt/fovea, /models, /usr, /etc: read-only")
    golden = repository / "lenet5/1/evidence/golden.npz"
    address = f"127.0.0.1:{variables['FOVEA_GRPC_PORT']}"
    client = [sys.executable, "-m", "deploy.docker.check.client", address, str(golden)]
    steps.say(steps.output(client, limit_s=120).rstrip())
    if (code := served.stop()) != 0:
        raise steps.CheckFailed(f"after SIGTERM the server ended with {code}; expected 0")
    last = (FOLDER / "server.log").read_text().strip().splitlines()[-1]
    steps.say(f"  SIGTERM: ended with 0; last line: {last}")


if __name__ == "__main__":
    sys.exit(main())
