"""The container's recipe names what there is, and its health check asks what the app answers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from lampe.models.candidates import CANDIDATES

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "deploy" / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")


def lines(instruction):
    return re.findall(rf"^{instruction} (.*)$", DOCKERFILE, re.MULTILINE)


def test_what_is_copied_is_there_and_is_let_in():
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = [name for line in lines("COPY") for name in line.split()[:-1]]
    assert {name.removeprefix("./") for name in copied} == let_in
    for name in copied:
        assert (ROOT / name).exists()


def test_the_app_starts_from_what_is_copied_alone(tmp_path):
    for line in lines("COPY"):
        for name in line.split()[:-1]:
            (tmp_path / name).symlink_to(ROOT / name)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = "import runpy; runpy.run_path('app.py')"
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, env=environment, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_it_installs_by_hash_and_runs_without_rights():
    assert any("--require-hashes -r requirements.lock" in line for line in lines("RUN"))
    assert DOCKERFILE.index("USER lab") < DOCKERFILE.index('CMD ["python", "app.py"]')
    assert DOCKERFILE.index("pip install") < DOCKERFILE.index("USER lab")


def test_its_health_check_is_answered(server):
    (check,) = re.findall(r"CMD (\[\"python\", \"-c\".*\])$", DOCKERFILE, re.MULTILINE)
    _, *arguments = json.loads(check)
    port = server.rstrip("/").rpartition(":")[2]
    environment = os.environ | {"GRADIO_SERVER_PORT": port}
    assert subprocess.run([sys.executable, *arguments], env=environment, timeout=60, check=False).returncode == 0
    unanswered = os.environ | {"GRADIO_SERVER_PORT": "1"}
    asked = subprocess.run([sys.executable, *arguments], env=unanswered, capture_output=True, timeout=60, check=False)
    assert asked.returncode != 0


def test_the_compose_file_keeps_models_and_nothing_else():
    given = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text(encoding="utf-8"))
    for service in given["services"].values():
        assert service["volumes"] == ["cache:/cache"]
        assert service["read_only"] is True
        assert service["build"] == {"context": "..", "dockerfile": "deploy/Dockerfile"}


def test_the_models_that_may_be_chosen_are_told_as_they_are():
    told = (ROOT / "deploy" / "README.md").read_text(encoding="utf-8")
    table = [line.strip("| ").split(" | ") for line in told.splitlines() if line.count("|") == 7][2:]
    assert table == [
        [one.model_id, f"{one.parameters:g}", one.licence, f"{one.window:,}", one.preset, f"{one.gigabytes:.0f} GB"]
        for one in CANDIDATES
    ]
