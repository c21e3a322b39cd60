"""Gets and builds what a stack needs, into target/oracle. Does nothing where it is there and no older than its source."""

import os
import shutil
import subprocess
import sys

from . import HERE, WORK

JAVA_AGENT = "io.opentelemetry.javaagent:opentelemetry-javaagent:2.20.1"


class Missing(Exception):
    """A tool of the machine that a stack needs."""


def run(arguments, **options):
    log = WORK / "fetch.log"
    with log.open("a") as file:
        print("$", *arguments, file=file, flush=True)
        if subprocess.run(arguments, stdout=file, stderr=file, stdin=subprocess.DEVNULL, **options).returncode:
            raise SystemExit(f"{' '.join(map(str, arguments))} failed; see {log}")


def need(*programs):
    for program in programs:
        if not shutil.which(program):
            raise Missing(f"{program} is not there")


def is_fresh(made, *sources):
    """Whether `made` is newer than all its sources: files, or folders of them."""
    if not made.exists():
        return False
    files = [file for source in sources for file in (source.iterdir() if source.is_dir() else [source])]
    return all(file.stat().st_mtime <= made.stat().st_mtime for file in files)


def driver():
    need("cc")
    made, source = WORK / "driver", HERE / "driver.c"
    if not is_fresh(made, source):
        run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", made, source])
    return made


def go():
    need("go")
    made, source = WORK / "oracle-go", HERE / "apps" / "go"
    if not is_fresh(made, source):
        run(["go", "build", "-o", made, "."], cwd=source)
    return made


def python():
    """The interpreter of an environment with the applications' packages."""
    environment, wanted = WORK / "python", HERE / "apps" / "python" / "requirements.txt"
    interpreter, done = environment / "bin" / "python", environment / "done"
    if not is_fresh(done, wanted):
        run([sys.executable, "-m", "venv", environment])
        run([interpreter, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted])
        done.touch()
    return interpreter


def node():
    """The folder with the application and its packages."""
    need("node", "npm")
    source, made = HERE / "apps" / "node", WORK / "node"
    done = made / "done"
    if not is_fresh(done, source):
        made.mkdir(parents=True, exist_ok=True)
        for file in source.iterdir():
            shutil.copy(file, made)
        run(["npm", "ci", "--no-audit", "--no-fund"], cwd=made)
        done.touch()
    return made


def java():
    """The folder with the application's classes and the agent."""
    need("javac", "mvn")
    source, made = HERE / "apps" / "java", WORK / "java"
    agent = made / "opentelemetry-javaagent.jar"
    made.mkdir(parents=True, exist_ok=True)
    if not agent.exists():
        run(["mvn", "--batch-mode", "--quiet", "dependency:copy", f"-Dartifact={JAVA_AGENT}",
             f"-DoutputDirectory={made}", "-Dmdep.stripVersion=true"], cwd=made)
    if not is_fresh(made / "Work.class", source):
        run(["javac", "-d", made, source / "Work.java"])
    return made


def rust():
    need("cargo")
    source = HERE / "apps" / "rust"
    environment = {**os.environ, "CARGO_TARGET_DIR": str(WORK / "rust")}
    run(["cargo", "build", "--release", "--locked", "--quiet"], cwd=source, env=environment)
    return WORK / "rust" / "release" / "oracle-rust"


def nginx():
    need("nginx")
    return shutil.which("nginx")
