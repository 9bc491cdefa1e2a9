"""Exact SHAP values of one scored row, in time linear in the size of the model.

The question. A model's score for a row differs from its average score. How much of the
difference is due to each feature? The Shapley value answers it for a game in which a coalition
``S`` of features is *known* and ``v(S)`` is the score the trees then expect: at a test on a known
feature go where the row goes, at a test on an unknown one go both ways, in the shares in which
the training rows went. This is SHAP with ``tree_path_dependent`` perturbation (Lundberg et al.,
"From local explanations to global understanding with explainable AI for trees", 2020), and what
``lightgbm.Booster.predict(pred_contrib=True)`` and ``shap.TreeExplainer`` return.

**From coalitions to an integral.** Among ``n`` features, a coalition of size ``s`` has the Shapley
weight ``s! (n-s-1)! / n!``, which is the Beta integral of ``x^s (1-x)^(n-s-1)`` over (0, 1). Hence
Owen's diagonal formula ("Multilinear extensions of games", 1972): let every feature ``j`` be known
with probability ``x_j``, independently, and let ``F(x_1, ..., x_n)`` be the expected ``v``. Then::

    phi_i  =  integral over x in (0, 1) of  dF/dx_i  at (x, x, ..., x)

**From the integral to a sum.** A leaf adds to ``F`` its value times one factor for each feature
tested on its path: ``r + x (o - r)``, where ``r`` is the share of training rows that pass the
path's tests on that feature and ``o`` is 1 if the explained row passes all of them, else 0. So
``F`` has degree one in each ``x_j``; with ``d`` features on the path the integrand has degree
``d - 1`` in ``x``, and Gauss-Legendre quadrature with ``ceil(d / 2)`` points integrates it without
error. Four points serve paths of up to eight distinct features, eight points up to sixteen.

**From leaves to a walk.** At a fixed ``x``, ``F`` is where a random walk down the tree ends on
average: first draw which features are known, then descend as the game says. At a test on feature
``i`` that sends the share ``s`` of training rows left, and the row left (``a = 1``) or right
(``a = 0``), the walk goes left with probability::

    p  =  a + u (s - a)                u = P(feature i is unknown | the walk came here)

    u  =  1 - x                        i was not tested above
    u  =  1                            i was tested above and the walk left the row's way there
    u  =  (1 - x) r / (r + x (1 - r))  i was tested above and the walk kept to the row's way,
                                       as a share r of training rows do (Bayes' rule)

The second and third lines are all there is to a feature repeated along a path: multiplied along
it, these probabilities give the leaf's factors again. With ``r = 1`` the third line is the first.

**Two passes a tree.** Downwards, the probability to *reach* each node. Upwards, the *worth* of
each node, the expected value from there: ``right + p (left - right)``. By the chain rule, with
``-du/dx`` being 1, 0 or ``r / (r + x (1 - r))^2`` in the three cases::

    phi_i  =  sum over points x, over nodes that test i, of
              weight(x) * reach * (a - s) * (-du/dx) * (worth of left - worth of right)

Cost: a few multiplications per node and point, so O(nodes) where TreeSHAP takes O(leaves depth^2).
Probabilities are multiplied and values averaged, and nothing is divided out again: rounding stays
near 1e-14.

Four points at a time are computed for a tree: a *sweep*. A tree with more than eight distinct
features on a path is swept twice, three times, ..., with four of its 8, 12, ... points each.
Nodes are laid out breadth first, and the children of the tree's k-th test live in the *slots*
2k + 1 and 2k + 2 (the root in slot 0): no address depends on the row, and the processor can run
ahead of the comparisons.

**Small trees.** All that the sums above know of a row is which way it goes at each test. A tree of
seven tests or fewer has 128 such cases at most, so each is explained beforehand, and a row looks up
what the tests of its case add. A model of such trees is explained in less than half the time, for
7 kB a tree.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Self

import lightgbm
import numpy as np
from numpy.typing import NDArray

from features.kernels import compiled, inlined

Floats = NDArray[np.float64]

_POINTS = 4  # quadrature points in a sweep
_FEATURES_PER_SWEEP = 2 * _POINTS  # distinct features on a path that they integrate exactly
_MOST_TABULATED = 7  # tests of a small tree: 128 cases

# LightGBM's own constants (include/LightGBM/tree.h, meta.h; model format v4).
_FORMAT = "v4"
_CATEGORICAL_BIT, _DEFAULT_LEFT_BIT = 1, 2
_MISSING_SHIFT = 2  # missing type: 0 None (NaN reads as zero), 1 Zero, 2 NaN
_ZERO = float(np.float32(1e-35))  # at most this in magnitude is zero

_BITS = 32  # of a word in a set of categories
_IN_SET, _NOT_IN_SET = 0.0, 1.0  # readings of a categorical test; the set goes left

# Rows of a sweep's table of doubts; the features repeated along a path follow.
_SETTLED, _FRESH = 0, 1

_NODE = np.dtype(
    [
        ("threshold", np.float64),  # the row goes left at or below it
        ("share_left", np.float64),  # of the training rows that came here
        ("reading", np.uint32),  # what is compared, see _read_row
        ("feature", np.uint32),
        ("slot", np.uint32),
        ("earlier", np.uint32),  # slot the last test of this feature above led to; 0 for none
        ("doubt", np.uint32),  # row of the doubts, if the walk has kept to the row's way
        ("default_left", np.bool_),  # where a missing value goes
    ],
    align=True,
)
_SWEEP = np.dtype(
    [
        ("node", np.uint32),  # where the tree's nodes, slots and doubts begin
        ("slot", np.uint32),
        ("doubt", np.uint32),
        ("n_nodes", np.uint32),
        ("table", np.uint32),  # where the table of a small tree begins
        ("weight", np.float64, (_POINTS,)),
    ],
    align=True,
)


class _Forest(NamedTuple):
    """All trees of a booster, flat: what the compiled functions read and never write."""

    nodes: NDArray[np.void]  # _NODE, tree after tree, breadth first
    sweeps: NDArray[np.void]  # _SWEEP, of all but the small trees
    small: NDArray[np.void]  # _SWEEP, the one of each small tree
    tables: Floats  # of each small tree (cases, tests), end to end
    values: Floats  # (slots,) of the leaves; 0 in slots that hold a test
    doubts: Floats  # (rows, 2, points): u and -du/dx
    trees: NDArray[np.uint32]  # (trees, 2): where the nodes and slots of each begin
    tests: NDArray[np.int32]  # (slots,): which of the tree's tests a slot holds; -1 for a leaf
    category_words: NDArray[np.uint32]  # sets of categories that go left, as bits, end to end
    category_sets: NDArray[np.uint32]  # (sets, 3): feature, first word, number of words
    max_slots: int  # of one tree
    expected_value: float


class TreeExplainer:
    """Explains the raw score (log-odds, for a binary model) of a LightGBM booster.

    Where the method above does not apply, LightGBM's own, slower ``pred_contrib`` is used, and
    ``fallback_reason`` says why.

    >>> rows = np.random.default_rng(7).normal(size=(500, 3))
    >>> data = lightgbm.Dataset(rows, label=rows[:, 0] > rows[:, 2])
    >>> booster = lightgbm.train({"objective": "binary", "verbosity": -1}, data, 20)
    >>> explainer = TreeExplainer.from_booster(booster)
    >>> explainer.exact_fast
    True
    >>> parts = explainer.contributions(rows[:2])
    >>> parts.shape
    (2, 4)
    >>> bool(np.allclose(parts.sum(axis=1), booster.predict(rows[:2], raw_score=True)))
    True
    >>> explainer.contributions(rows[:2, :2])
    Traceback (most recent call last):
        ...
    ValueError: rows: expected shape (n, 3), one column per feature of the model, got (2, 2)
    """

    def __init__(
        self,
        booster: lightgbm.Booster,
        forest: _Forest | None,
        fallback_reason: str | None,
    ) -> None:
        self.fallback_reason = fallback_reason
        self._booster = booster
        self._forest = forest
        self._n_features = int(booster.num_feature())

    @classmethod
    def from_booster(cls, booster: lightgbm.Booster) -> Self:
        """Lay out the booster's trees, up to its best iteration if it has one.

        Raises ValueError for linear trees, which LightGBM itself cannot explain.
        """
        header, *sections = _sections(booster.model_to_string())
        if (reason := _obstacle_in_header(header)) is not None:
            return cls(booster, None, reason)
        trees = [_parse_tree(section) for section in sections]
        if any(tree.is_linear for tree in trees):
            raise ValueError("booster: linear trees have no SHAP values; train without linear_tree")
        if (reason := _obstacle_in_counts(trees)) is not None:
            return cls(booster, None, reason)
        return cls(booster, _lay_out(trees, int(booster.num_feature())), None)

    @property
    def exact_fast(self) -> bool:
        """Whether the linear-time method is used."""
        return self._forest is not None

    @property
    def nbytes(self) -> int:
        """Memory held beside the booster's own."""
        return sum(part.nbytes for part in self._forest or () if isinstance(part, np.ndarray))

    def contributions(self, rows: Floats) -> Floats:
        """What each feature adds to the raw score of each row.

        ``rows`` has shape (n, features), NaN where unknown; the result has shape
        (n, features + 1), its last column being the expected score, so that a line sums to the
        row's raw score (to LightGBM, of a random forest that is the sum of the trees, not their
        average). A multiclass booster gives (n, classes * (features + 1)), as in LightGBM.
        Raises ValueError for another number of columns. May be called from many threads.
        """
        rows = self._checked(rows)
        if self._forest is None:
            return np.asarray(self._booster.predict(rows, pred_contrib=True), dtype=np.float64)
        result = np.empty((rows.shape[0], self._n_features + 1))
        _explain(self._forest, rows, result)
        return result

    def raw_scores(self, rows: Floats) -> Floats:
        """The raw score (n,) of each row (n, features): the trees' leaves, added up in their order.

        As ``booster.predict(rows, raw_score=True)``, to the bit; that takes 40 µs to begin with.
        Raises ValueError for another number of columns, and where the method does not apply.
        """
        if self._forest is None:
            raise ValueError(f"booster: {self.fallback_reason}")
        rows = self._checked(rows)
        result = np.empty(len(rows))
        _add_up(self._forest, rows, result)
        return result

    def warm_up(self) -> None:
        """Compile, or load what an earlier process compiled, before the first row is waiting."""
        nothing_known = np.full((1, self._n_features), np.nan)
        self.contributions(nothing_known)
        if self.exact_fast:
            self.raw_scores(nothing_known)

    def _checked(self, rows: Floats) -> Floats:
        # Always the same memory layout, so that one compilation serves every caller.
        if rows.dtype != np.float64 or not rows.flags.carray:
            rows = np.require(rows, np.float64, ("C", "W"))
        if rows.ndim != 2 or rows.shape[1] != self._n_features:
            raise ValueError(
                f"rows: expected shape (n, {self._n_features}), one column per feature of the "
                f"model, got {rows.shape}"
            )
        return rows


# ----------------------------------------------------------------------------------------------
# Reading the booster
# ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tree:
    """One tree as LightGBM writes it: test n is node n, leaf k is node ~k (that is, -k - 1)."""

    feature: list[int]
    threshold: list[float]
    decision: list[int]
    left: list[int]
    right: list[int]
    rows_at_test: list[int]  # training rows; what LightGBM's own SHAP weighs by
    rows_at_leaf: list[int]
    leaf_value: list[float]
    category_boundaries: list[int]
    category_words: list[int]
    is_linear: bool

    def categories(self, node: int) -> list[int]:
        """The words of the set of categories that a categorical test sends left."""
        number = int(self.threshold[node])
        start, end = self.category_boundaries[number : number + 2]
        return self.category_words[start:end]

    def rows(self, node: int) -> int:
        return self.rows_at_test[node] if node >= 0 else self.rows_at_leaf[~node]

    def expected_value(self) -> float:
        if len(self.leaf_value) == 1:
            return self.leaf_value[0]
        weighted = np.dot(self.rows_at_leaf, self.leaf_value)
        return float(weighted / self.rows_at_test[0])


def _sections(text: str) -> list[dict[str, str]]:
    """The ``key=value`` lines of a saved model: its header's, then each tree's."""
    return [
        {key: value for key, _, value in (line.partition("=") for line in section.splitlines())}
        for section in text.partition("\nend of trees")[0].split("\nTree=")
    ]


def _parse_tree(entries: dict[str, str]) -> _Tree:
    def integers(key: str) -> list[int]:
        return [int(word) for word in entries.get(key, "").split()]

    def floats(key: str) -> list[float]:
        return [float(word) for word in entries.get(key, "").split()]

    return _Tree(
        feature=integers("split_feature"),
        threshold=floats("threshold"),
        decision=integers("decision_type"),
        left=integers("left_child"),
        right=integers("right_child"),
        rows_at_test=integers("internal_count"),
        rows_at_leaf=integers("leaf_count"),
        leaf_value=floats("leaf_value"),
        category_boundaries=integers("cat_boundaries"),
        category_words=integers("cat_threshold"),
        is_linear=entries.get("is_linear") == "1",
    )


def _obstacle_in_header(header: dict[str, str]) -> str | None:
    """Why the linear-time method cannot read this model, or None if it can."""
    if (version := header.get("version")) != _FORMAT:
        return f"model format {version!r}, expected {_FORMAT!r}"
    if (classes := header.get("num_tree_per_iteration")) != "1":
        return f"{classes} trees an iteration (multiclass), expected 1"
    return None


def _obstacle_in_counts(trees: list[_Tree]) -> str | None:
    """Why the training rows at some test cannot be divided into shares, or None if all can."""
    for number, tree in enumerate(trees):
        for node, total in enumerate(tree.rows_at_test):
            left, right = tree.rows(tree.left[node]), tree.rows(tree.right[node])
            if total <= 0 or left + right != total or min(left, right) < 0:
                return (
                    f"tree {number}, node {node}: {total} training rows, "
                    f"but {left} left and {right} right"
                )
    return None


# ----------------------------------------------------------------------------------------------
# Laying out the trees
# ----------------------------------------------------------------------------------------------


@dataclass
class _Layout:
    """One tree, breadth first."""

    nodes: list[tuple[Any, ...]]  # as _NODE
    values: list[float]  # by slot
    tests: list[int]  # by slot: the place of its test in nodes, -1 for a leaf
    repeated: list[float]  # r of each test of a feature already tested above
    category_sets: list[tuple[int, list[int]]]  # of each categorical test: feature, categories
    n_features: int  # distinct ones on the longest path


def _lay_out(trees: list[_Tree], n_features: int) -> _Forest:
    """The flat arrays of all trees."""
    nodes: list[tuple[Any, ...]] = []
    values: list[float] = []
    sweeps: list[tuple[Any, ...]] = []
    small: list[tuple[Any, ...]] = []
    doubts: list[Floats] = []
    category_sets: list[tuple[int, int, int]] = []
    category_words: list[int] = []
    begins: list[tuple[int, int]] = []
    tests: list[int] = []
    max_slots, n_doubts, n_parts = 1, 0, 0
    for tree in trees:
        layout = _lay_out_tree(tree, n_features, len(category_sets))
        begins.append((len(nodes), len(values)))
        tests += layout.tests
        n_tests = len(layout.nodes)
        is_small = n_tests <= _MOST_TABULATED
        for points, weights in _quadrature(layout.n_features):
            table = _doubts(np.array([1.0, *layout.repeated]), points)
            sweep = (len(nodes), len(values), n_doubts, n_tests, n_parts, weights)
            (small if is_small else sweeps).append(sweep)
            doubts.append(table)
            n_doubts += len(table)
        n_parts += n_tests << n_tests if is_small else 0
        nodes += layout.nodes
        values += layout.values
        max_slots = max(max_slots, len(layout.values))
        for feature, words in layout.category_sets:
            category_sets.append((feature, len(category_words), len(words)))
            category_words += words
    forest = _Forest(
        nodes=np.array(nodes, _NODE),
        sweeps=np.array(sweeps, _SWEEP),
        small=np.array(small, _SWEEP),
        tables=np.zeros(n_parts),
        values=np.array(values),
        doubts=np.concatenate(doubts) if doubts else np.empty((0, 2, _POINTS)),
        trees=np.array(begins, np.uint32).reshape(-1, 2),
        tests=np.array(tests, np.int32),
        category_sets=np.array(category_sets, np.uint32).reshape(-1, 3),
        category_words=np.array(category_words, np.uint32),
        max_slots=max_slots,
        expected_value=float(sum(tree.expected_value() for tree in trees)),
    )
    _tabulate(forest)
    return forest


def _lay_out_tree(tree: _Tree, n_features: int, n_sets: int) -> _Layout:
    """Number the tests breadth first, and note for each where its feature was tested above.

    ``n_sets`` is the number of categorical tests in the trees before this one.
    """
    slots = 2 * len(tree.feature) + 1
    layout = _Layout([], [0.0] * slots, [-1] * slots, [], [], 0)
    # Beside a node and its slot: for each feature tested above, the slot its last test led to and
    # the share of training rows that pass all its tests on this path.
    queue: deque[tuple[int, int, dict[int, tuple[int, float]]]] = deque()
    queue.append((0 if tree.feature else ~0, 0, {}))
    while queue:
        node, slot, tested = queue.popleft()
        layout.n_features = max(layout.n_features, len(tested))
        if node < 0:
            layout.values[slot] = tree.leaf_value[~node]
            continue
        feature, decision = tree.feature[node], tree.decision[node]
        threshold = tree.threshold[node]
        reading = (decision >> _MISSING_SHIFT & 3) * n_features + feature
        if decision & _CATEGORICAL_BIT:
            threshold = _IN_SET
            reading = 3 * n_features + n_sets + len(layout.category_sets)
            layout.category_sets.append((feature, tree.categories(node)))
        share_left = tree.rows(tree.left[node]) / tree.rows(node)
        earlier, share = tested.get(feature, (0, 1.0))
        doubt = _FRESH
        if feature in tested:
            layout.repeated.append(share)
            doubt = _FRESH + len(layout.repeated)
        left, right = 2 * len(layout.nodes) + 1, 2 * len(layout.nodes) + 2
        queue.append((tree.left[node], left, {**tested, feature: (left, share * share_left)}))
        share_right = 1 - share_left
        queue.append((tree.right[node], right, {**tested, feature: (right, share * share_right)}))
        default_left = bool(decision & _DEFAULT_LEFT_BIT)
        layout.tests[slot] = len(layout.nodes)
        layout.nodes.append(
            (threshold, share_left, reading, feature, slot, earlier, doubt, default_left)
        )
    return layout


def _quadrature(n_features: int) -> Iterator[tuple[Floats, Floats]]:
    """Gauss-Legendre points and weights on (0, 1), a sweep at a time; none for a tree of one leaf.

    Exact for products of ``n_features`` factors of degree one, less one.

    >>> [points.round(3).tolist() for points, _ in _quadrature(6)]
    [[0.069, 0.33, 0.67, 0.931]]
    >>> integral = sum(float(weights @ points**15) for points, weights in _quadrature(16))
    >>> round(integral, 14) == 1 / 16
    True
    """
    n_sweeps = -(-n_features // _FEATURES_PER_SWEEP)
    if n_sweeps == 0:
        return
    points, weights = np.polynomial.legendre.leggauss(n_sweeps * _POINTS)
    for start, end in pairwise(range(0, len(points) + 1, _POINTS)):
        yield (points[start:end] + 1) / 2, weights[start:end] / 2


def _doubts(shares: Floats, points: Floats) -> Floats:
    """u and -du/dx, shape (1 + shares, 2, points): first where the walk has left the row's way.

    >>> _doubts(np.array([1.0, 0.25]), np.array([0.5]))[:, :, 0]
    array([[1.  , 0.  ],
           [0.5 , 1.  ],
           [0.2 , 0.64]])
    """
    table = np.empty((1 + len(shares), 2, len(points)))
    table[_SETTLED] = [[1.0], [0.0]]
    r = shares[:, np.newaxis]
    passed = r + points * (1 - r)
    table[_FRESH:, 0] = (1 - points) * r / passed
    table[_FRESH:, 1] = r / passed**2
    return table


# ----------------------------------------------------------------------------------------------
# Explaining rows: compiled
# ----------------------------------------------------------------------------------------------


@compiled
def _read_row(forest: _Forest, row: Floats, readings: Floats) -> None:
    """Fill ``readings``, what the tests compare, so that no test needs to know its kind.

    First the row as each of the three missing types reads it, NaN standing for missing; then
    for each categorical test whether the row's category is in its set.
    """
    n = len(row)
    for feature in range(n):
        value = row[feature]
        unknown = np.isnan(value)
        zero = abs(value) <= _ZERO
        readings[feature] = 0.0 if zero or unknown else value
        readings[n + feature] = np.nan if zero or unknown else value
        readings[2 * n + feature] = 0.0 if zero else value
    for number in range(len(forest.category_sets)):
        feature, start, n_words = forest.category_sets[number]
        value = row[feature]
        inside = False
        # A category is cut to an integer; NaN and negatives are in no set.
        if -1.0 < value < n_words * _BITS:
            category = np.uint32(value)
            word = forest.category_words[start + category // _BITS]
            inside = bool(word >> category % _BITS & 1)
        readings[3 * n + number] = _IN_SET if inside else _NOT_IN_SET


@inlined
def _goes_left(node: Any, readings: Floats) -> bool:
    value = readings[node.reading]
    # Bitwise, not short-circuit: a comparison is cheaper than a mispredicted branch.
    return bool((value <= node.threshold) | (np.isnan(value) & node.default_left))


@compiled
def _add_up(forest: _Forest, rows: Floats, result: Floats) -> None:
    """Fill ``result`` with the sum of the leaves that each row comes to, tree after tree."""
    n_features = rows.shape[1]
    readings = np.empty(3 * n_features + len(forest.category_sets))
    nodes, values, tests, trees = forest.nodes, forest.values, forest.tests, forest.trees
    for row in range(len(rows)):
        _read_row(forest, rows[row], readings)
        total = 0.0
        for number in range(len(trees)):
            first, root = trees[number, 0], trees[number, 1]
            slot, k = 0, tests[root]
            while k >= 0:
                slot = 2 * k + (1 if _goes_left(nodes[first + k], readings) else 2)
                k = tests[root + slot]
            total += values[root + slot]
        result[row] = total


# In _walk_down and _sum_up a matrix has one column for each quadrature point of the sweep.


@inlined
def _walk_down(
    nodes: Any,
    doubts: Floats,
    readings: Floats,
    kept: NDArray[np.bool_],
    reach: Floats,
    way: Floats,
) -> None:
    """Fill ``way`` with each test's a, and for its children's slots ``reach`` and ``kept``.

    ``reach`` carries the points' weights. ``kept`` says whether the row, too, passes all tests
    on the path to a slot of the feature tested last on it. The root's slot is given.
    """
    for k in range(len(nodes)):
        # Read before anything is written: the compiler does not know that nothing overlaps.
        node = nodes[k]
        left = _goes_left(node, readings)
        agrees = kept[node.earlier]
        unknown = doubts[node.doubt if agrees else _SETTLED, 0]
        slot, a = node.slot, 1.0 if left else 0.0
        step = node.share_left - a
        way[k] = a
        kept[2 * k + 1] = agrees & left
        kept[2 * k + 2] = agrees & (not left)
        for q in range(_POINTS):
            here = reach[slot, q]
            p = a + unknown[q] * step
            reach[2 * k + 1, q] = here * p
            reach[2 * k + 2, q] = here - here * p


@inlined
def _sum_up(
    nodes: Any,
    values: Floats,
    doubts: Floats,
    reach: Floats,
    way: Floats,
    kept: NDArray[np.bool_],
    worth: Floats,
    phi: Floats,
) -> None:
    """From the leaves up, fill the ``worth`` of each slot, and add each test's part to ``phi``."""
    for slot in range(len(values)):
        for q in range(_POINTS):
            worth[slot, q] = values[slot]
    for k in range(len(nodes) - 1, -1, -1):
        node, a = nodes[k], way[k]
        slot, doubt = node.slot, node.doubt if kept[node.earlier] else _SETTLED
        turn = a - node.share_left  # what knowing the feature changes
        part = 0.0
        for q in range(_POINTS):
            right = worth[2 * k + 2, q]
            gap = worth[2 * k + 1, q] - right
            p = a - doubts[doubt, 0, q] * turn
            worth[slot, q] = right + p * gap
            part += reach[slot, q] * doubts[doubt, 1, q] * gap
        phi[node.feature] += part * turn


@inlined
def _sweep_tree(
    forest: _Forest, sweep: Any, nodes: Any, readings: Floats, scratch: Any, phi: Floats
) -> None:
    """Add to ``phi`` what the sweep's points give of its tree, whose tests are ``nodes``."""
    kept, reach, worth, way = scratch
    values = forest.values[sweep.slot : sweep.slot + 2 * len(nodes) + 1]
    doubts = forest.doubts[sweep.doubt :]
    for q in range(_POINTS):
        reach[0, q] = sweep.weight[q]
    _walk_down(nodes, doubts, readings, kept, reach, way)
    _sum_up(nodes, values, doubts, reach, way, kept, worth, phi)


@inlined
def _scratch(n_slots: int) -> Any:
    """``kept``, ``reach``, ``worth`` and ``way`` of one tree, so that they stay in cache."""
    kept = np.ones(n_slots, np.bool_)
    return kept, np.empty((n_slots, _POINTS)), np.empty((n_slots, _POINTS)), np.empty(n_slots)


@compiled
def _tabulate(forest: _Forest) -> None:
    """Fill the tables of small trees: what each test adds in each case.

    Bit k of a case says whether the row goes left at test k: each test is explained as if it were
    of a feature of its own that is 0 or 1.
    """
    scratch = _scratch(forest.max_slots)
    readings = np.empty(_MOST_TABULATED)
    for number in range(len(forest.small)):
        tree = forest.small[number]
        nodes = forest.nodes[tree.node : tree.node + tree.n_nodes].copy()
        for k in range(len(nodes)):
            nodes[k].reading = nodes[k].feature = k
            nodes[k].threshold = _IN_SET
        for case in range(1 << len(nodes)):
            for k in range(len(nodes)):
                readings[k] = _IN_SET if case >> k & 1 else _NOT_IN_SET
            start = tree.table + case * len(nodes)
            parts = forest.tables[start : start + len(nodes)]
            _sweep_tree(forest, tree, nodes, readings, scratch, parts)


@compiled
def _explain(forest: _Forest, rows: Floats, result: Floats) -> None:
    """Fill ``result``, one line for each row."""
    n_rows, n_features = rows.shape
    readings = np.empty(3 * n_features + len(forest.category_sets))
    scratch = _scratch(forest.max_slots)
    for row in range(n_rows):
        _read_row(forest, rows[row], readings)
        phi = result[row]
        phi[:] = 0.0
        for number in range(len(forest.small)):
            tree = forest.small[number]
            case = 0
            for k in range(tree.n_nodes):
                case |= int(_goes_left(forest.nodes[tree.node + k], readings)) << k
            start = tree.table + case * tree.n_nodes
            for k in range(tree.n_nodes):
                phi[forest.nodes[tree.node + k].feature] += forest.tables[start + k]
        for number in range(len(forest.sweeps)):
            sweep = forest.sweeps[number]
            nodes = forest.nodes[sweep.node : sweep.node + sweep.n_nodes]
            _sweep_tree(forest, sweep, nodes, readings, scratch, phi)
        phi[n_features] = forest.expected_value
