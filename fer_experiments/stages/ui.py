"""`ui`: MLflow's pages, and where to look in them."""

from __future__ import annotations

from fer_experiments import console
from fer_experiments.tracking import pages, store
from fer_experiments.tracking.runs import experiments_of_suite
from fer_experiments.tracking.views import links


def run(*, host: str, port: int) -> None:
    """Serves the pages of a store on this machine until it is ended; a server has its own.

    Raises:
        UsageError: the port is taken.
        RunError: there is no store yet.
    """
    if pages.has_server():
        console.say(f"{store.address()} is a server, which shows its pages by itself")
        _say_links()
    else:
        pages.serve(host, port, ready=_say_links)


def _say_links() -> None:
    experiments = experiments_of_suite()
    views = {name: links(experiment_id) for name, experiment_id in experiments.items()}
    console.say(f"store   {store.address()}")
    for name, experiment_id in experiments.items():
        console.say(f"runs    {pages.experiment(experiment_id)}  {name}")
        for view, link in views[name].items():
            console.say(f"view    {link}  {view}")
    console.say(f"models  {pages.models()}")
    if console.is_for_scripts():
        console.result(
            {
                "store": store.address(),
                "models": pages.models(),
                "experiments": {name: pages.experiment(i) for name, i in experiments.items()},
                "views": views,
            }
        )
