"""What an explained image costs and how exact it is, against everyone: `make bench`, or this file with `--help`.

Everything takes turns within a repeat; times are medians over the repeats with the least and the most. All runs in one process,
but for the peers that `make peers` installs: each has a process of its own and times itself (peer.py).
Whole calls are timed, so ours include the scores that a certificate needs and, for a fixed rule, the nodes of its half; our
Grad-CAM comes with probabilities and the gradient of the score, which a night shares with Integrated Gradients. The
foreign engines explain fewer rows, for their cost an image does not depend on how many. The matmul peak takes its turn, too.

The comparison that counts is at equal worst-case gap: how many Gauss-Legendre nodes bring the gap of every row to our worst,
and what those nodes cost each engine, measured. The nodes found are the least that do so on the hardest rows (exact.py):
other rows may need more, so the ratios are lower bounds. xplique, which has another rule, gets as many nodes of that as our worst
gap takes. Rows are random by --seed and nothing is tuned on them.
"""

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

import tasks.process.start_tensorflow  # noqa: F401  before what imports TensorFlow
from bookkeeping import SHAPES, Bookkeeping, measure_bookkeeping
from chain import UnknownChain, chain_of
from contest import Contestant, alibi_batched, alibi_one_by_one, best_alibi_batch, take_turns
from exact import Integrals, Ladder, NodesNeeded, gaps, relative_errors
from flops import MatmulPeak, gradient_flops
from peer import PEERS, Peer, open_peers
from subject import Subject, default_dataset, load_subject
from tasks.numerics.explainer import Explainer, Settings
from tasks.numerics.integrated_gradients import target_gradients
from tasks.numerics.map_layers import find_layer
from tasks.numerics.network.compiled import Compiled
from tasks.numerics.network.scores import Network, score_model
from tasks.numerics.quadrature import Adaptive, Fixed, Rule, Tolerances
from tasks.numerics.references import missing_references, tf_explain_maps

NOTEBOOK_NODES = 50
# Ours by default, and at tighter tolerances of gap and error.
OURS, TIGHTER = "nightlens, adaptive (default)", {"nightlens, .02/.1": (0.02, 0.1), "nightlens, .01/.05": (0.01, 0.05)}
FIXED = f"nightlens, Gauss-Legendre {NOTEBOOK_NODES}"
BATCHED, ONE_BY_ONE = "alibi, batched", "alibi, an image a call"
OUR_CAM, THEIR_CAM = "nightlens, Grad-CAM", "tf-explain, Grad-CAM"
RUNGS = (8, 16, 32, 50, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
FIXED_ROWS, EQUAL_ROWS, EQUAL_GRADIENTS = 256, 256, 8192
DISHONEST = 1.5
AT_LEAST, AT_MOST = "at least", "at most"
# By what is measured: the bound, and its unit.
TARGETS = {
    "equal worst gap: faster than alibi at its best batch": (AT_LEAST, 25.0, "x"),
    "equal worst gap: faster than alibi, an image a call": (AT_LEAST, 42.0, "x"),
    "equal p95 error: faster than alibi at its best batch": (AT_LEAST, 10.0, "x"),
    "a whole call's gradient, over one in a full compiled call": (AT_MOST, 1.08, "x"),
    "a gradient in a full compiled call, over what the matmul peak allows": (AT_MOST, 1.25, "x"),
    "Grad-CAM: faster than tf-explain": (AT_LEAST, 25.0, "x"),
    "bookkeeping a gradient, 8x8x1": (AT_MOST, 6.0, " us"),
    "bookkeeping a gradient, 32x32x3": (AT_MOST, 20.0, " us"),
}


class Bench:
    """The contest on one subject. Every method does one thing that is then printed.

    peers: others in processes of their own, once `invite` has opened them.
    """

    def __init__(self, subject: Subject, batch_size: int, exact_rows: int, slow_rows: int):
        self.subject, self.batch_size = subject, batch_size
        self.model = score_model(subject.network, "probability")
        self.layer = find_layer(Network(subject.network), "auto").label
        self.with_maps = score_model(subject.network, "probability", layer=self.layer)
        self.n_rows = len(subject.images)
        self.n_exact, self.n_slow = min(exact_rows, self.n_rows), min(slow_rows, self.n_rows)
        self.flops, self.peak = gradient_flops(subject.network), MatmulPeak()
        self.peaks: list[float] = []
        self.calls: list[float] = []
        self.peers: list[Peer] = []
        self._gradients = Compiled("gradients", target_gradients(self.model), batch_size)
        self.alibi_batches = best_alibi_batch(
            self.model, subject.images[: self.n_slow], subject.labels[: self.n_slow], NOTEBOOK_NODES
        )
        self.best_batch = min(self.alibi_batches, key=lambda size: self.alibi_batches[size])

    def invite(self, stack: ExitStack, pythons: dict[str, str], say: Callable[[str], object]) -> None:
        """Opens the peers that are installed, each at its fastest on the rows of the foreign engines; stack ends them."""
        try:
            chain = chain_of(self.subject.network)
        except UnknownChain as reason:
            return say(f"{', '.join(pythons)}: left out, {reason}")
        images, labels = self.subject.images[: self.n_slow], self.subject.labels[: self.n_slow]
        probabilities = np.asarray(self.model(images, training=False))
        self.peers = open_peers(stack, pythons, chain, images, probabilities, say)
        for peer in self.peers:
            costs = _costs(peer.choose_way(images, labels, NOTEBOOK_NODES))
            say(f"{peer.name} ({peer.versions}), ms an image by batch: {costs}; the best is {peer.best_way}")
        return None

    def ours(self, rule: Rule, tolerances: Tolerances = Tolerances()) -> Callable[[NDArray, NDArray], Any]:  # noqa: B008 (frozen)
        explainer = self._explainer(rule, tolerances)
        return lambda images, targets: explainer.integrated_gradients(images, np.zeros_like(images), targets)

    def _explainer(self, rule: Rule, tolerances: Tolerances = Tolerances()) -> Explainer:  # noqa: B008 (frozen)
        return Explainer(
            self.subject.network,
            Settings(
                score="probability", rule=rule, tolerances=tolerances, layer=self.layer, batch_size=self.batch_size
            ),
        )

    def _contest(self, contestants: list[Contestant], repeats: int) -> dict[str, Contestant]:
        def between() -> None:
            self.peaks.append(self.peak())
            self.calls.append(self.gradient_seconds())

        take_turns(contestants, self.subject.images, self.subject.labels, repeats, between)
        return {one.name: one for one in contestants}

    def gradient_seconds(self) -> float:
        """Of one gradient in a full compiled call and nothing else: the best of a burst, as of the peak."""
        chosen = np.arange(self.batch_size) % self.n_rows
        points, targets = self.subject.images[chosen] / 2, self.subject.labels[chosen].astype(np.int32)
        self._gradients(points, targets)
        seconds = []
        for _ in range(MatmulPeak.BURST):
            began = time.perf_counter()
            self._gradients(points, targets)
            seconds.append(time.perf_counter() - began)
        return min(seconds) / self.batch_size

    def main_contest(self, repeats: int) -> dict[str, Contestant]:
        """Every engine as it comes: ours by default, everyone by the notebook's 50 nodes, and both Grad-CAMs."""
        fixed, slow = min(FIXED_ROWS, self.n_rows), self.n_slow
        cam = self._explainer(Adaptive())
        return self._contest(
            [
                Contestant(OURS, self.ours(Adaptive()), self.n_rows),
                *(
                    Contestant(name, self.ours(Adaptive(), Tolerances(gap=gap, error=error)), max(fixed, self.n_exact))
                    for name, (gap, error) in TIGHTER.items()
                ),
                Contestant(FIXED, self.ours(Fixed(n_steps=NOTEBOOK_NODES)), max(fixed, self.n_exact), NOTEBOOK_NODES),
                Contestant(BATCHED, alibi_batched(self.model, NOTEBOOK_NODES, self.best_batch), slow, NOTEBOOK_NODES),
                Contestant(ONE_BY_ONE, alibi_one_by_one(self.model, NOTEBOOK_NODES), slow, NOTEBOOK_NODES),
                *(Contestant(peer.name, peer.explain(NOTEBOOK_NODES), slow, NOTEBOOK_NODES) for peer in self.peers),
                Contestant(OUR_CAM, cam.endpoint, self.n_rows),
                Contestant(
                    THEIR_CAM,
                    lambda images, targets: tf_explain_maps(self.with_maps, images, targets),
                    slow,
                ),
            ],
            repeats,
        )

    def equal_contest(self, n_nodes: int, peers_need: dict[str, NodesNeeded], repeats: int) -> dict[str, Contestant]:
        """Ours by default, everyone else by the nodes that reach our worst gap, of its own rule."""
        some = self._affordable(n_nodes)
        return self._contest(
            [
                Contestant(OURS, self.ours(Adaptive()), min(EQUAL_ROWS, self.n_rows)),
                Contestant(FIXED, self.ours(Fixed(n_steps=n_nodes)), some, n_nodes),
                Contestant(BATCHED, alibi_batched(self.model, n_nodes, self.best_batch), some, n_nodes),
                Contestant(ONE_BY_ONE, alibi_one_by_one(self.model, n_nodes), some, n_nodes),
                *(self._peer_with(peer, peers_need[peer.name].n_nodes) for peer in self.peers),
            ],
            repeats,
        )

    def _affordable(self, n_nodes: int) -> int:
        return max(2, min(self.n_slow, EQUAL_GRADIENTS // n_nodes))

    def _peer_with(self, peer: Peer, n_nodes: int) -> Contestant:
        return Contestant(peer.name, peer.explain(n_nodes), self._affordable(n_nodes), n_nodes)


def exactness(contest: dict[str, Contestant], integrals: Integrals, reference: NDArray) -> dict[str, dict[str, Any]]:
    """By engine: gaps of all its rows, relative errors of those that have a reference, and how honest its certificate is."""
    found = {}
    for name, one in contest.items():
        if name in (OUR_CAM, THEIR_CAM):
            continue
        result = one.result
        certified = hasattr(result, "quadrature_error")
        attributions = result.attribution if certified else result
        n = min(len(reference), len(attributions))
        gap = gaps(attributions, integrals.differences[: len(attributions)])
        error = relative_errors(attributions[:n], reference[:n])
        found[name] = {"gap": gap, "error": error, "n_rows": len(attributions)}
        if certified:
            beyond = error > DISHONEST * result.quadrature_error[:n]
            found[name] |= {"converged": float(result.converged.mean()), "dishonest": float(beyond.mean())}
    return found


def gap_needed(ours: dict[str, Any], ladder: Ladder, coarse_gaps: NDArray) -> NodesNeeded:
    """Nodes of the ladder's rule that reach our worst gap on its rows. coarse_gaps: of each row, by the notebook's nodes."""
    integrals, rows = ladder.integrals, np.arange(ours["n_rows"])

    def gap(attributions: NDArray, rows: NDArray) -> NDArray:
        return gaps(attributions, integrals.differences[rows])

    return ladder.needed("worst |gap|", float(ours["gap"].max()), gap, rows, coarse_gaps[rows])


def nodes_needed(ours: dict[str, Any], ladder: Ladder, reference: NDArray, coarse: NDArray) -> list[NodesNeeded]:
    """Gauss-Legendre nodes that reach our worst gap on its rows, and our worst and p95 error on those with a reference.

    coarse: attributions of each row by the notebook's nodes.
    """
    exact = np.arange(len(reference))
    coarse_gaps, coarse_errors = gaps(coarse, ladder.integrals.differences), relative_errors(coarse[exact], reference)

    def error(attributions: NDArray, rows: NDArray) -> NDArray:
        return relative_errors(attributions, reference[rows])

    p95 = float(np.quantile(ours["error"], 0.95))
    return [
        gap_needed(ours, ladder, coarse_gaps),
        ladder.needed("worst L2 error", float(ours["error"].max()), error, exact, coarse_errors),
        ladder.needed("p95 L2 error", p95, error, exact, coarse_errors, allowed=int((ours["error"] > p95).sum())),
    ]


def main(
    dataset: Annotated[
        str | None,
        typer.Option(help="As in `nightlens run`. [default: Fashion-MNIST beside the repository, else digits]"),
    ] = None,
    model: Annotated[
        Path | None, typer.Option(help="A .keras file. [default: the notebook's network, trained once under --root]")
    ] = None,
    root: Annotated[Path, typer.Option(help="Where dataset and model are kept.")] = Path("nightlens-data"),
    epochs: Annotated[int, typer.Option(help="Of the training, where there is no --model.")] = 2,
    rows: Annotated[
        int, typer.Option(help="Random test rows that our default explains; all 10000 take much longer.")
    ] = 1000,
    exact_rows: Annotated[int, typer.Option(help="Of these, rows compared with a 1,500-node reference.")] = 100,
    slow_rows: Annotated[int, typer.Option(help="Of these, rows that the foreign engines explain.")] = 32,
    repeats: int = 3,
    batch_size: Annotated[int, typer.Option(help="Images in one of our compiled calls.")] = 256,
    most_nodes: Annotated[int, typer.Option(help="Gauss-Legendre nodes at which the ladder ends.")] = 1024,
    seed: int = 0,
    captum: Annotated[str, typer.Option(help="The Python that has captum and PyTorch.")] = PEERS["captum"],
    xplique: Annotated[str, typer.Option(help="The Python that has xplique.")] = PEERS["xplique"],
    json_file: Annotated[Path | None, typer.Option("--json", help="Where to write the figures, too.")] = None,
) -> None:
    """Prints cost, exactness, the comparison at equal error and the ratios beside their targets."""
    if missing := missing_references():
        raise typer.BadParameter(f"{', '.join(missing)} not installed; install the extra 'reference'")
    began = time.monotonic()
    source = dataset or default_dataset()
    subject = load_subject(source, model, root, epochs=epochs, rows=rows, seed=seed)
    console = Console(width=150)
    console.print(
        f"{subject.record.name}, {len(subject.images):,} random test rows (seed {seed}), {subject.model.name}, "
        f"{os.cpu_count()} processors, {repeats} repeats"
    )
    bench = Bench(subject, batch_size, exact_rows, slow_rows)
    console.print(
        f"alibi, ms an image by internal_batch_size: {_costs(bench.alibi_batches)}; the best is {bench.best_batch}"
    )
    with ExitStack() as stack:
        bench.invite(stack, {"captum": captum, "xplique": xplique}, console.print)
        contest = bench.main_contest(repeats)
        integrals = Integrals(bench.model, subject.images, subject.labels)
        reference = integrals.midpoint(np.arange(bench.n_exact))
        exact = exactness(contest, integrals, reference)
        coarse = integrals.legendre(np.arange(bench.n_rows), NOTEBOOK_NODES)
        rungs = tuple(rung for rung in RUNGS if rung <= most_nodes)
        ladder = Ladder(integrals, rungs)
        needed = nodes_needed(exact[OURS], ladder, reference, coarse)
        tighter = {name: nodes_needed(exact[name], ladder, reference, coarse) for name in TIGHTER}
        coarse_gaps = gaps(coarse, integrals.differences)
        peers_need = {
            peer.name: gap_needed(exact[OURS], Ladder(integrals, rungs, peer.rule), coarse_gaps) for peer in bench.peers
        }
        equal = bench.equal_contest(needed[0].n_nodes, peers_need, repeats)
    peak, call = float(np.median(bench.peaks)), float(np.median(bench.calls))
    console.print(
        f"a gradient in a full compiled call: {1e3 * call:.3f} ms, where the peak allows {1e3 * bench.flops / peak:.3f}"
    )
    cost = [cost_of(one, bench.flops, peak) for one in contest.values()]
    compared = [compare(one, equal, equal[OURS]) for one in needed]
    compared += [compare(one, equal, contest[name]) for name, all_needed in tighter.items() for one in all_needed]
    bookkeeping = [measure_bookkeeping(shape, batch_size=batch_size) for shape in SHAPES]
    ratios = ratios_of(contest, compared, call, bench.flops / peak, bookkeeping)
    console.print(cost_table(cost, bench.flops, peak))
    console.print(exactness_table(exact, len(reference)))
    console.print(equal_table(compared, equal))
    peers = [compare_peer(peer, peers_need[peer.name], equal) for peer in bench.peers]
    if peers:
        console.print(peers_table(peers, equal[OURS]))
    console.print(target_table(ratios, needed[0].reached))
    console.print(f"{time.monotonic() - began:,.0f} s in all")
    if json_file is not None:
        settings = {
            "dataset": subject.record.name,
            "model": subject.model.name,
            "rows": len(subject.images),
            "seed": seed,
        }
        machine = {"processors": os.cpu_count(), "matmul_gflops": peak / 1e9, "gradient_mflops": bench.flops / 1e6}
        machine["ms_per_compiled_gradient"] = 1e3 * call
        figures = {"cost": cost, "exactness": summaries(exact), "equal": compared, "peers": peers, "ratios": ratios}
        about = (
            settings | machine | {"repeats": repeats, "batch_size": batch_size, "alibi_batches": bench.alibi_batches}
        )
        json_file.write_text(json.dumps(about | figures, indent=1) + "\n")


def cost_of(one: Contestant, flops: int, peak: float) -> dict[str, Any]:
    """gradients: an image; share: of the peak that the network's FLOPs take, nothing for Grad-CAM."""
    row: dict[str, Any] = {"engine": one.name, "rows": one.n_rows, "ms_per_image": asdict(one.ms_per_image)}
    if one.name in (OUR_CAM, THEIR_CAM):
        return row
    gradients = float(one.result.n_gradients.mean()) if hasattr(one.result, "n_gradients") else float(one.n_nodes)
    ms = one.ms_per_image.median / gradients
    return row | {"gradients": gradients, "ms_per_gradient": ms, "share_of_peak": flops / (ms / 1e3) / peak}


def compare(needed: NodesNeeded, equal: dict[str, Contestant], one: Contestant) -> dict[str, Any]:
    """What the nodes cost each engine: measured with as many as our default's gap needs, in proportion with others.

    one: ours, at the tolerances whose figures the nodes reach.
    """
    ours = one.ms_per_image.median
    row: dict[str, Any] = asdict(needed) | {"engine": one.name, "ms_ours": ours}
    for name in (FIXED, BATCHED, ONE_BY_ONE):
        ms = equal[name].ms_per_image.median * needed.n_nodes / equal[name].n_nodes
        row |= {f"ms {name}": ms, f"ratio {name}": ms / ours}
    return row


def compare_peer(peer: Peer, needed: NodesNeeded, equal: dict[str, Contestant]) -> dict[str, Any]:
    """What a peer's nodes for our worst gap cost it, measured."""
    ms, ours = equal[peer.name].ms_per_image, equal[OURS].ms_per_image.median
    about = {"engine": peer.name, "versions": peer.versions, "way": peer.best_way, "rule": peer.rule}
    costs = {"rows": equal[peer.name].n_rows, "ms_per_image": asdict(ms), "ratio": ms.median / ours}
    return about | asdict(needed) | costs


def ratios_of(
    contest: dict[str, Contestant],
    compared: list[dict[str, Any]],
    call_s: float,
    at_peak_s: float,
    bookkeeping: list[Bookkeeping],
) -> dict[str, float]:
    """What the targets are about, in their order. call_s: of a gradient in a full compiled call. at_peak_s: at the peak."""
    at_gap, _, at_p95 = compared[:3]
    ours, cams = contest[OURS], contest[THEIR_CAM].ms_per_image.median / contest[OUR_CAM].ms_per_image.median
    whole_s = ours.ms_per_image.median / 1e3 / float(ours.result.n_gradients.mean())
    alibi = (at_gap[f"ratio {BATCHED}"], at_gap[f"ratio {ONE_BY_ONE}"], at_p95[f"ratio {BATCHED}"])
    measured = (*alibi, whole_s / call_s, call_s / at_peak_s, cams, *(one.beside_us for one in bookkeeping))
    return dict(zip(TARGETS, measured, strict=True))


def _costs(ms_by_way: Mapping[Any, float]) -> str:
    return ", ".join(f"{way}: {ms:.0f}" for way, ms in ms_by_way.items())


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def cost_table(cost: list[dict[str, Any]], flops: int, peak: float) -> Table:
    title = f"Cost; the matmul peak is {peak / 1e9:,.0f} GFLOP/s, a gradient {flops / 1e6:.0f} MFLOP: {1e3 * flops / peak:.3f} ms"
    table = _table(title, "engine", "rows", "ms/image", "least-most", "gradients/image", "ms/gradient", "share of peak")
    for row in cost:
        ms = row["ms_per_image"]
        cells = [row["engine"], f"{row['rows']:,}", f"{ms['median']:.3g}", f"{ms['least']:.3g}-{ms['most']:.3g}"]
        if "gradients" in row:
            cells += [f"{row['gradients']:.1f}", f"{row['ms_per_gradient']:.3f}", f"{row['share_of_peak']:.0%}"]
        table.add_row(*cells)
    return table


def summaries(exact: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of each engine as numbers."""
    rows = []
    for name, found in exact.items():
        gap, error = found["gap"], found["error"]
        row = {
            "engine": name,
            "rows": found["n_rows"],
            "gap_p95": float(np.quantile(gap, 0.95)),
            "gap_max": float(gap.max()),
        }
        row |= {"exact_rows": len(error), "error_median": float(np.median(error)), "error_max": float(error.max())}
        row |= {"error_p95": float(np.quantile(error, 0.95))}
        rows.append(row | {key: found[key] for key in ("converged", "dishonest") if key in found})
    return rows


def exactness_table(exact: dict[str, dict[str, Any]], n_exact: int) -> Table:
    title = f"Exactness; relative L2 error against 1,500 midpoint nodes on at most {n_exact} rows"
    columns = ["engine", "rows", "converged", "|gap| p95", "worst", "exact rows", "L2 median", "p95", "max"]
    table = _table(title, *columns, f"error > {DISHONEST} reported")
    for row in summaries(exact):
        certified = "converged" in row
        table.add_row(
            row["engine"],
            f"{row['rows']:,}",
            f"{row['converged']:.1%}" if certified else "",
            f"{row['gap_p95']:.3f}",
            f"{row['gap_max']:.3f}",
            f"{row['exact_rows']}",
            f"{row['error_median']:.3f}",
            f"{row['error_p95']:.3f}",
            f"{row['error_max']:.3f}",
            f"{row['dishonest']:.1%}" if certified else "",
        )
    return table


def equal_table(compared: list[dict[str, Any]], equal: dict[str, Contestant]) -> Table:
    n_rows = {name: f"{one.n_rows:,}" for name, one in equal.items()}
    title = (
        f"At equal error; ms/image (times ours), ours on {n_rows[OURS]} rows, the others on {n_rows[BATCHED]}, "
        f"measured with {equal[BATCHED].n_nodes} nodes, in proportion to the nodes elsewhere"
    )
    columns = ("of", "what", "is", "Gauss-Legendre nodes", "ours", "nightlens, those nodes", BATCHED, ONE_BY_ONE)
    table = _table(title, *columns)
    for row in compared:
        costs = [f"{row[f'ms {name}']:.3g} ({row[f'ratio {name}']:.1f}x)" for name in (FIXED, BATCHED, ONE_BY_ONE)]
        nodes = f"{row['n_nodes']}" if row["reached"] else f"more than {row['n_nodes']}"
        table.add_row(row["engine"], row["criterion"], f"{row['bound']:.3f}", nodes, f"{row['ms_ours']:.3g}", *costs)
    return table


def peers_table(peers: Sequence[dict[str, Any]], ours: Contestant) -> Table:
    ms = ours.ms_per_image.median
    title = f"Peers at our worst gap, each by its own rule; ours takes {ms:.3g} ms/image on {ours.n_rows:,} rows"
    table = _table(title, "peer", "rule", "nodes", "rows", "ms/image", "least-most", "times ours")
    for row in peers:
        ms, nodes = row["ms_per_image"], f"{row['n_nodes']}" if row["reached"] else f"more than {row['n_nodes']}"
        costs = (f"{ms['median']:.3g}", f"{ms['least']:.3g}-{ms['most']:.3g}", f"{row['ratio']:.1f}x")
        table.add_row(row["engine"], row["rule"], nodes, f"{row['rows']}", *costs)
    return table


def target_table(ratios: dict[str, float], reached: bool) -> Table:
    note = "" if reached else "; our worst gap is beyond the ladder, so the first three are what its last rung gives"
    table = _table(f"Targets{note}", "what", "measured", "target", "")
    for what, (side, bound, unit) in TARGETS.items():
        met = ratios[what] >= bound if side == AT_LEAST else ratios[what] <= bound
        table.add_row(what, f"{ratios[what]:.2f}{unit}", f"{side} {bound:g}{unit}", "met" if met else "not met")
    return table


if __name__ == "__main__":
    typer.run(main)
