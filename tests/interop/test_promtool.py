# SPDX-License-Identifier: Apache-2.0
"""Prometheus' own tool judges what a hub shows, and the alert rules and dashboard that are given with it."""

import asyncio
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from api_client import web_of
from inputs import Input
from made_up_series import FIRING, WELL, Case
from pages import ROOT, blocks
from privyseal.hub.config import TsaTable
from privyseal.hub.services.timestamps import Timestamps
from privyseal.wire.link import TokenHealth
from witnessed import running_site

pytestmark = pytest.mark.interop

PAGE = ROOT / "docs" / "monitoring.md"
RULES = ROOT / "deploy" / "prometheus" / "privyseal-alerts.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "privyseal.json"
TOKEN = TokenHealth(name="etoken", state="ready", pin_state="ok", sign_counts=(1, 2, 3), sign_seconds=0.1)
#: Added by Prometheus to what it scrapes.
OF_THE_SCRAPE = {"instance", "job"}


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = shutil.which("promtool")
    if found:
        return Path(found)
    program = tmp_path_factory.mktemp("promtool") / "promtool"
    shutil.copyfile(Input(name="prometheus-promtool").path, program)
    program.chmod(0o700)
    return program


def judged(promtool: Path, *arguments: str | Path, told: str = "") -> str:
    """What promtool said of something that it must find sound."""
    done = subprocess.run([promtool, *arguments], input=told, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
async def shown(tmp_path: Path) -> AsyncIterator[str]:
    """/metrics of a hub with a token, a TSA and a witness."""
    async with running_site(tmp_path, level="async") as site:
        await site.rely_on("other")
        hub = site.hub.hub
        await site.agents["signer"].links.report((TOKEN,))
        await site.until(lambda: "signer" in hub.token_board.tokens)
        hub.timestamps = Timestamps(
            store=hub.store,
            denials=hub.denials,
            tables=(TsaTable(url="http://tsa.example"),),
            ask=hub._tsa_client.ask,
            clock=hub.clock,
        )
        await site.send(await site.ask())
        yield (await asyncio.to_thread(web_of(site.client), "GET", "/metrics")).body.decode()


def rules() -> list[dict[str, Any]]:
    document = YAML(typ="safe").load(RULES.read_text("utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def panels() -> list[tuple[str, str]]:
    """Title and expression of each query of the dashboard, as Grafana would fill it in."""
    document = json.loads(DASHBOARD.read_text("utf-8"))
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", "5m").replace("$instance", ".*"))
        for panel in document["panels"]
        for target in panel["targets"]
    ]


def label_names(shown: str) -> dict[str, set[frozenset[str]]]:
    """Which labels the series of each name have."""
    found: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(shown):
        for sample in family.samples:
            found.setdefault(sample.name, set()).add(frozenset(sample.labels))
    return found


def split(series: str) -> tuple[str, dict[str, str]]:
    name, _, labels = series.removesuffix("}").partition("{")
    return name, dict(one.split("=", 1) for one in labels.split(",") if one)


def series(made_up: dict[str, str]) -> list[dict[str, str]]:
    """Made-up series as `promtool test rules` wants them."""
    rows = []
    for text, values in made_up.items():
        name, labels = split(text)
        inside = ",".join(f'{key}="{value}"' for key, value in {**labels, "instance": "hub"}.items())
        rows.append({"series": f"{name}{{{inside}}}", "values": values})
    return rows


def test_what_a_hub_shows_is_well_formed_and_well_named(shown: str, promtool: Path) -> None:
    assert judged(promtool, "check", "metrics", told=shown) == ""


def test_rules_and_dashboard_name_only_what_a_hub_shows(shown: str) -> None:
    known = set(label_names(shown))
    texts = [str(rule["expr"]) for rule in rules()] + [expression for _, expression in panels()]
    texts += [str(variable["query"]) for variable in json.loads(DASHBOARD.read_text("utf-8"))["templating"]["list"]]
    named = {name for text in texts for name in re.findall(r"\b(?:privyseal|process)_[a-z_]+", text)}

    assert len(named) > 20
    assert named - known == set()


def test_the_made_up_series_are_as_a_hub_shows_them(shown: str) -> None:
    known = label_names(shown)
    made_up = [text for case in FIRING.values() for text in case.series] + list(WELL)

    wrong = [text for text in made_up if frozenset(split(text)[1]) not in known.get(split(text)[0], set())]
    assert wrong == []


def test_the_page_explains_every_metric_and_no_other(shown: str) -> None:
    known = {family.name for family in text_string_to_metric_families(shown) if family.name.startswith("privyseal_")}
    rows = dict(re.findall(r"^\| `(privyseal_\w+)` \| ([^|]*)\|", PAGE.read_text("utf-8"), re.MULTILINE))
    labels = label_names(shown)

    assert {name.removesuffix("_total") for name in rows} == known
    for name, said in rows.items():
        (found,) = labels.get(name) or labels[f"{name}_bucket"]
        assert set(re.findall(r"\w+", said)) == found, name


def test_prometheus_would_take_the_configuration_that_the_page_shows(promtool: Path, tmp_path: Path) -> None:
    (example,) = blocks(PAGE, "yaml")
    file = tmp_path / "prometheus.yml"
    file.write_text(example.text)

    assert "SUCCESS" in judged(promtool, "check", "config", "--syntax-only", file)


def test_rules_are_sound(promtool: Path) -> None:
    assert "SUCCESS" in judged(promtool, "check", "rules", RULES)


def test_the_dashboard_s_queries_are_sound(promtool: Path, tmp_path: Path) -> None:
    recorded = [{"record": f"panel:{place}", "expr": expression} for place, (_, expression) in enumerate(panels())]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": recorded}]}))

    assert f"{len(recorded)} rules found" in judged(promtool, "check", "rules", file)


def annotations(rule: dict[str, Any], case: Case) -> dict[str, str]:
    following = re.sub(r"{{ \$labels\.(\w+) }}", lambda found: case.labels[found[1]], rule["annotations"]["next"])
    return {"summary": case.summary, "next": following}


def trial(name: str, rule: dict[str, Any]) -> dict[str, Any]:
    case = FIRING[name]
    instance = {} if name == "PrivysealHubAbsent" else {"instance": "hub"}
    fires = {
        "exp_labels": {**instance, **case.labels, "severity": case.severity},
        "exp_annotations": annotations(rule, case),
    }
    expected = [{"eval_time": f"{case.minute}m", "alertname": name, "exp_alerts": [fires]}]
    if case.quiet is not None:
        expected.append({"eval_time": f"{case.quiet}m", "alertname": name, "exp_alerts": []})
    return {"interval": "1m", "input_series": series(case.series), "alert_rule_test": expected}


def test_each_alert_fires_on_what_it_is_for_and_none_at_a_hub_that_is_well(promtool: Path, tmp_path: Path) -> None:
    by_name = {str(rule["alert"]): rule for rule in rules()}
    assert by_name.keys() == FIRING.keys()
    well = [
        {"eval_time": f"{minute}m", "alertname": name, "exp_alerts": []} for name in by_name for minute in (3, 20, 80)
    ]
    groups = [trial(name, rule) for name, rule in by_name.items()]
    groups.append({"interval": "1m", "input_series": series(WELL), "alert_rule_test": well})
    file = tmp_path / "alerts.test.yml"
    file.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": groups}))

    assert "SUCCESS" in judged(promtool, "test", "rules", file)


def test_promtool_would_notice(promtool: Path) -> None:
    """A name with another unit than seconds, which is why certificates have a moment and not days."""
    told = "# HELP privyseal_certificate_days Days.\n# TYPE privyseal_certificate_days gauge\n"
    done = subprocess.run(
        [promtool, "check", "metrics"],
        input=told + "privyseal_certificate_days 3\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
