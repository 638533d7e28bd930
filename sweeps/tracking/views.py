"""A sweep as MLflow's page of runs shows it: a saved view that is its leaderboard, and the address that opens it.

A saved view is a tag of the experiment; pages of ``compat.PAGES`` were seen to read it. What they are asked to show is
stored with it: which runs, by what they are sorted, the columns, and the first charts.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from carcls.catalog import FAMILIES
from sweeps.tracking.names import BEST_DERIVED, JOB, NOTE, STATE, of_sweep

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Experiment

    from sweeps.spec.spec import SweepSpec

# Before the key of a saved view, the tag that holds it.
VIEW, _SECTION = "mlflow.sharedViewState.", "carsweep"
# MLflow opens an experiment on pages for language models unless this says that models are trained in it.
_KIND = {"mlflow.experimentKind": "custom_model_development"}
_WORKFLOW = {"workflowType": "machine_learning"}
_OF_NEIGHBOURS, _OF_LOGITS = ("val_recall_at_5", "val_map_at_r"), ("val_top5", "val_loss")


@dataclass(frozen=True, slots=True)
class SavedView:
    """What the page of runs is to show of one sweep, or of a job's sweeps together.

    Attributes:
        name: of the sweep or the job, in the page's menu of views.
        key: names the view in an address.
        query: MLflow's filter of the runs.
        metric: by which the runs are sorted.
        is_loss: whether less is better in it.
        settings: what is searched.
        columns: of the table, from the left.
    """

    name: str
    key: str
    query: str
    metric: str
    is_loss: bool
    settings: tuple[str, ...]
    columns: tuple[str, ...]

    def tag(self, made: int) -> dict[str, str]:
        """Return the tag of an experiment that stores it; ``made`` in milliseconds since 1970."""
        state = base64.b64encode(zlib.compress(json.dumps(self.state()).encode())).decode()
        view = {"name": self.name, "createdAt": made, "updatedAt": made, "state": f"deflate;{state}"}
        return {VIEW + self.key: json.dumps(view)}

    def state(self) -> dict[str, Any]:
        """Return what the page is asked to show, in its own words; what is left out is as the page has it anyway."""
        return {
            **{name: value == "true" if name == "orderByAsc" else value for name, value in self._facets().items()},
            "selectedColumns": self.columns,
            "columnOrder": self.columns,
            "columnWidths": {f"tags.`{BEST_DERIVED}`": 260},
            "compareRunCharts": self._charts(),
            # Further charts go behind these only in a section that somebody has put in order.
            "compareRunSections": [{"uuid": _SECTION, "name": "Model metrics", "display": True, "isReordered": True}],
        }

    def address(self, experiments: Sequence[str], *, saved: bool) -> str:
        """Return the address of the page, behind the server's.

        Args:
            experiments: ids of those that hold the runs.
            saved: whether it is, and the server's pages read it; otherwise the address itself filters and sorts.
        """
        asked = {"viewStateShareKey": self.key} if saved else self._facets()
        if len(experiments) == 1:
            return f"#/experiments/{experiments[0]}/runs?{urlencode({**_WORKFLOW, **asked}, quote_via=quote)}"
        several = {"experiments": json.dumps(list(experiments), separators=(",", ":"))}
        return f"#/compare-experiments/s?{urlencode({**several, **_WORKFLOW, **asked}, quote_via=quote)}"

    def _facets(self) -> dict[str, str]:
        order = {"orderByKey": f"metrics.`{self.metric}`", "orderByAsc": str(self.is_loss).lower()}
        return {"searchFilter": self.query, **order}

    def _charts(self) -> list[dict[str, Any]]:
        place = {"metricSectionId": _SECTION, "deleted": False}
        curves = {"type": "LINE", "uuid": "curves", "isGenerated": True, "runsCountToCompare": 10}
        axes = {"xAxisKey": "step", "xAxisScaleType": "linear", "scaleType": "linear", "yAxisKey": "metric"}
        line = {"metricKey": self.metric, "lineSmoothness": 0, "range": {}, "yAxisExpressions": []}
        parallel = {"type": "PARALLEL", "uuid": "settings", "isGenerated": False, "runsCountToCompare": 100}
        lines = {"selectedParams": list(self.settings), "selectedMetrics": [self.metric], "showAllRuns": True}
        follow = {"useGlobalXaxisKey": True, "useGlobalLineSmoothing": True}
        charts = [{**curves, **axes, **line, **follow, **place}]
        return [*charts, {**parallel, **lines, **place}] if self.settings else charts


def saved_in(experiment: Experiment) -> set[str]:
    """Return the keys of the views that an experiment has."""
    return {name.removeprefix(VIEW) for name in experiment.tags if name.startswith(VIEW)}


def show(client: MlflowClient, experiment: Experiment, view: SavedView, note: str | None = None) -> None:
    """Tell the page of an experiment that models are trained in it, a view, and what to say on its top."""
    wanted = {**_KIND, **view.tag(experiment.creation_time), **({} if note is None else {NOTE: note})}
    for name, text in wanted.items():
        if experiment.tags.get(name) != text:
            client.set_experiment_tag(experiment.experiment_id, name, text)


def view_of(specs: Sequence[SweepSpec], name: str, known: str, *, is_job: bool = False) -> SavedView:
    """Return the view of a sweep, or of a job's sweeps together.

    Args:
        specs: of the sweeps.
        name, known: of the sweep or the job, and the id by which MLflow knows it.
        is_job: whether it is a job.
    """
    first = specs[0].goals.first
    neighbours = [FAMILIES[spec.family].neighbours for spec in specs]
    metrics = [quantity.metric for spec in specs for quantity in spec.goals.objectives]
    metrics += [
        "val_accuracy",
        *(_OF_LOGITS if not all(neighbours) else ()),
        *(_OF_NEIGHBOURS if any(neighbours) else ()),
    ]
    settings = dict.fromkeys(setting for spec in specs for setting in spec.search)
    columns = [
        *(["attributes.`Experiment Name`"] if is_job else []),
        *(f"metrics.`{metric}`" for metric in dict.fromkeys(metrics)),
        *(f"tags.`{tag}`" for tag in (STATE, *([BEST_DERIVED] if any(neighbours) else []))),
        "duration",
        *(f"params.`{setting}`" for setting in settings),
    ]
    query = f"tags.`{JOB}` = '{known}'" if is_job else of_sweep(known)  # there is no "or" in MLflow's filters
    return SavedView(name, known, query, metrics[0], first.direction == "minimize", tuple(settings), tuple(columns))
