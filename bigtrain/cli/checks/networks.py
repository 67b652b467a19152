"""Whether the configuration's networks and processes fit each other, before anything is started."""

from __future__ import annotations

from bigtrain.cli.checks.finding import Finding, ok
from bigtrain.cli.checks.plan import Plan


def compute(plan: Plan) -> list[Finding]:
    """How many processes there will be, and whether they can share the batches."""
    from bigtrain.games.checks import check_batches  # noqa: PLC0415 (lightning)
    from bigtrain.runtime.launch import strategy_of  # noqa: PLC0415

    strategy, _ = strategy_of(plan.compute)
    game, (nodes, devices) = plan.game, plan.compute.layout()
    check_batches(game.schedule, game.accumulation, game.discriminator_network.batch_group, plan.processes)
    on = "GPU" if plan.compute.on_gpu() else "CPU"
    return [ok(f"{strategy}, {nodes} x {devices} on {on}, {plan.compute.precision}")]


def networks(plan: Plan) -> list[Finding]:
    """What the networks are."""
    from bigtrain.networks.cost import cost  # noqa: PLC0415

    return [
        ok(f"{name}: {type(player.network).__name__}, {cost(player.network)}")
        for name, player in plan.game.players.items()
    ]
