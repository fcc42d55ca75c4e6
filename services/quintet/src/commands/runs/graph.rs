//! A graph of nodes as text, from top to bottom: a line per node, and between them the edges.
//!
//! Nodes come layer by layer. Each has a rail down to the last node that needs it; a line between two nodes shows which
//! rails a node hangs on. A rail that only passes such a line is drawn through it without a knot.
//!
//! ```text
//! * fetch
//! ├─╮
//! │ * small
//! * │ large
//! ├─╯
//! * join
//! ```

use std::collections::{BTreeMap, BTreeSet};

/// What must be done before what, and in which layers. Nodes are numbers from 0.
#[derive(Clone, Debug, Default)]
pub(super) struct Graph {
    needs: Vec<BTreeSet<usize>>,
    layers: Vec<Vec<usize>>,
}

/// One line of the drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Row {
    /// Left of the node's mark; the whole line when there is no node in it.
    pub(super) left: String,
    /// The node.
    pub(super) node: Option<usize>,
    /// Right of the node's mark.
    pub(super) right: String,
}

impl Row {
    /// How many columns the rails and the mark take.
    pub(super) fn width(&self) -> usize {
        self.left.chars().count() + usize::from(self.node.is_some()) + self.right.chars().count()
    }
}

impl Graph {
    /// The graph of these nodes; an edge whose ends are not among them does not count.
    pub(super) fn new<'a>(
        ids: &[&'a str],
        edges: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let numbers: BTreeMap<&str, usize> = ids.iter().copied().zip(0..).collect();
        let mut needs = vec![BTreeSet::new(); ids.len()];
        for (from, to) in edges {
            if let (Some(&from), Some(&to)) = (numbers.get(from), numbers.get(to)) {
                needs[to].insert(from);
            }
        }
        let layers = layers(&needs);
        Self { needs, layers }
    }

    /// Nodes that can run at the same time, layer after layer.
    pub(super) fn layers(&self) -> &[Vec<usize>] {
        &self.layers
    }

    /// The drawing.
    pub(super) fn rows(&self) -> Vec<Row> {
        let mut drawing = Drawing {
            missing: vec![0; self.needs.len()],
            ..Drawing::default()
        };
        for source in self.needs.iter().flatten() {
            drawing.missing[*source] += 1;
        }
        for node in self.layers.iter().flatten() {
            drawing.add(*node, &self.needs[*node]);
        }
        drawing.rows
    }
}

/// The layer of a node is one more than the last layer of what it needs. A server takes no plan with a cycle; were there
/// one, its nodes would come last, together.
fn layers(needs: &[BTreeSet<usize>]) -> Vec<Vec<usize>> {
    let mut layers: Vec<Vec<usize>> = Vec::new();
    let mut done = BTreeSet::new();
    while done.len() < needs.len() {
        let rest = (0..needs.len()).filter(|node| !done.contains(node));
        let ready: Vec<usize> = rest
            .clone()
            .filter(|node| needs[*node].is_subset(&done))
            .collect();
        let layer = if ready.is_empty() {
            rest.collect()
        } else {
            ready
        };
        done.extend(&layer);
        layers.push(layer);
    }
    layers
}

/// A drawing up to some node.
#[derive(Default)]
struct Drawing {
    rows: Vec<Row>,
    /// By column: the node whose rail goes down there.
    rails: Vec<Option<usize>>,
    /// By node: how many that need it are not drawn.
    missing: Vec<usize>,
}

impl Drawing {
    fn add(&mut self, node: usize, needs: &BTreeSet<usize>) {
        let is_needed = |rail: &Option<usize>| rail.is_some_and(|source| needs.contains(&source));
        let knots: BTreeSet<usize> = (0..self.rails.len())
            .filter(|column| is_needed(&self.rails[*column]))
            .collect();
        for source in needs {
            self.missing[*source] = self.missing[*source].saturating_sub(1);
        }
        let ends: BTreeSet<usize> = knots
            .iter()
            .copied()
            .filter(|column| self.rails[*column].is_some_and(|source| self.missing[source] == 0))
            .collect();
        let column = match ends.first() {
            Some(column) => *column,
            None => self.free(knots.first().map_or(0, |column| column + 1)),
        };
        let hangs_straight = knots.len() == 1 && ends.contains(&column);
        let touches_a_stranger = knots.is_empty() && self.is_node_above(column);
        if !knots.is_empty() && !hangs_straight || touches_a_stranger {
            let line = self.knots(&knots, &ends, column);
            self.rows.push(line);
        }
        for column in ends {
            self.rails[column] = None;
        }
        self.rails[column] = None;
        self.rows.push(Row {
            left: self.passing(0..column),
            node: Some(node),
            right: format!(" {}", self.passing(column + 1..self.rails.len()))
                .trim_end()
                .to_owned(),
        });
        self.rails[column] = (self.missing[node] > 0).then_some(node);
        while self.rails.last() == Some(&None) {
            self.rails.pop();
        }
    }

    /// A free column, this one or the next to the right.
    fn free(&mut self, from: usize) -> usize {
        let free = (from..self.rails.len()).find(|column| self.rails[*column].is_none());
        let column = free.unwrap_or(self.rails.len().max(from));
        if column >= self.rails.len() {
            self.rails.resize(column + 1, None);
        }
        column
    }

    /// Whether the line above has a node there: without a line between them they would look like an edge.
    fn is_node_above(&self, column: usize) -> bool {
        self.rows
            .last()
            .is_some_and(|row| row.node.is_some() && row.left.chars().count() == column * 2)
    }

    /// Rails that continue in these columns, each with a space after it.
    fn passing(&self, columns: std::ops::Range<usize>) -> String {
        let lines = self.rails[columns].iter();
        lines
            .flat_map(|rail| [if rail.is_some() { '│' } else { ' ' }, ' '])
            .collect()
    }

    /// The line that joins the rails in some columns, of which some end, to a column.
    fn knots(&self, knots: &BTreeSet<usize>, ends: &BTreeSet<usize>, column: usize) -> Row {
        let first = knots.first().map_or(column, |first| column.min(*first));
        let last = knots.last().map_or(column, |last| column.max(*last));
        let mut line = String::new();
        for at in 0..self.rails.len() {
            let up = self.rails[at].is_some();
            let inside = (first..last).contains(&at);
            line.push(
                if knots.contains(&at) || (at == column && !knots.is_empty()) {
                    let down = at == column || !ends.contains(&at);
                    knot(up, down, at > first, inside)
                } else if up {
                    '│'
                } else if inside && at > first {
                    '─'
                } else {
                    ' '
                },
            );
            line.push(if inside { '─' } else { ' ' });
        }
        Row {
            left: line.trim_end().to_owned(),
            node: None,
            right: String::new(),
        }
    }
}

/// Where a rail meets others.
fn knot(up: bool, down: bool, left: bool, right: bool) -> char {
    match (up, down, left, right) {
        (true, true, true, true) => '┼',
        (true, true, true, false) => '┤',
        (true, true, false, true) => '├',
        (true, true, false, false) => '│',
        (true, false, true, true) => '┴',
        (true, false, true, false) => '╯',
        (true, false, false, true) => '╰',
        (true, false, false, false) => '╵',
        (false, true, true, true) => '┬',
        (false, true, true, false) => '╮',
        (false, true, false, true) => '╭',
        (false, true, false, false) => '╷',
        (false, false, _, _) => '─',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The drawing of a graph given as `a>b` words; a word without an arrow is a node.
    fn drawn(text: &str) -> String {
        let words = || text.split_whitespace();
        let mut ids: Vec<&str> = Vec::new();
        for id in words().flat_map(|word| word.split('>')) {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        let graph = Graph::new(&ids, words().filter_map(|word| word.split_once('>')));
        let line = |row: &Row| match row.node {
            Some(node) => format!("{}*{} {}", row.left, row.right, ids[node]),
            None => row.left.clone(),
        };
        graph.rows().iter().map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_chain_is_a_column() {
        assert_eq!(drawn("a>b b>c"), "* a\n* b\n* c");
    }

    #[test]
    fn branches_part_and_join() {
        let expected = "\
* fetch
├─╮
│ * small
* │ large
├─╯
* gate
* join";
        assert_eq!(
            drawn("fetch>small fetch>large small>gate large>gate gate>join"),
            expected
        );
    }

    #[test]
    fn nodes_without_edges_do_not_touch() {
        assert_eq!(drawn("a b"), "* a\n\n* b");
    }

    #[test]
    fn a_rail_that_only_passes_has_no_knot() {
        let expected = "\
* a
│ * b
│ │ * c
├─│─│─╮
│ │ │ * d
│ * │ e
├─│─┤
* │ │ f
├─┴─╯
* g";
        let drawn = drawn("a b c a>d b>e a>f c>f e>g c>g f>g");
        assert_eq!(drawn, expected, "\n{drawn}");
    }
}
