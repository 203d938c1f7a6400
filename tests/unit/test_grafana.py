"""Dashboard, alerts and runbooks agree with one another."""

import json
import re
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[2]
GRAFANA = ROOT / "grafana"


def test_dashboard_is_what_its_code_makes() -> None:
    made = runpy.run_path(str(GRAFANA / "dashboard.py"))["dashboard"]()
    stored = json.loads((GRAFANA / "oncelog.json").read_text())
    assert stored == made, "run: python grafana/dashboard.py > grafana/oncelog.json"


def test_panels_have_ids_of_their_own_and_do_not_overlap() -> None:
    panels = json.loads((GRAFANA / "oncelog.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


def test_every_alert_has_a_runbook_and_every_runbook_an_alert() -> None:
    alerts = (GRAFANA / "alerts.yml").read_text()
    named = re.findall(r"runbook: runbooks\.md#(\S+)", alerts)
    assert len(named) == alerts.count("- alert:")
    headings = re.findall(r"^## (.+)$", (GRAFANA / "runbooks.md").read_text(), re.MULTILINE)
    assert sorted(named) == sorted(heading.lower().replace(" ", "-") for heading in headings)


def test_files_that_compose_mounts_exist() -> None:
    deploy = ROOT / "deploy"
    mounted = re.findall(r"- (\.[^:\s]+):/", (deploy / "compose.yaml").read_text())
    assert mounted
    for path in mounted:
        assert (deploy / path).exists(), path
