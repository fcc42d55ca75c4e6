//! The graph of a plan's nodes: its links, cycles and ancestors.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::problems::Problems;

/// An edge of the graph, and its place in the plan.
pub(super) struct Link<'p> {
    pub(super) from: &'p str,
    pub(super) to: &'p str,
    pub(super) path: &'p str,
}

/// Enters a link into `before`: what each node needs.
pub(super) fn link(
    places: &HashMap<&str, usize>,
    link: &Link<'_>,
    before: &mut BTreeMap<usize, BTreeSet<usize>>,
    problems: &mut Problems,
) {
    let mut find = |id: &str| {
        let found = places.get(id).copied();
        if found.is_none() {
            let text = format!("there is no node {id}");
            problems.add(link.path, "danglingEdge", text);
        }
        found
    };
    if let (Some(from), Some(to)) = (find(link.from), find(link.to)) {
        before.entry(to).or_default().insert(from);
    }
}

/// A way from a node back to itself, that node first and last.
pub(super) fn cycle(count: usize, before: &BTreeMap<usize, BTreeSet<usize>>) -> Option<Vec<usize>> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; count];
    for start in 0..count {
        if marks[start] != Mark::New {
            continue;
        }
        // Depth first without recursion: the nodes on the way, each with its needs that are still to be visited.
        let needs = |at: usize| {
            before
                .get(&at)
                .map(|needs| needs.iter().copied().collect::<Vec<_>>())
                .unwrap_or_default()
        };
        let mut way = vec![(start, needs(start))];
        marks[start] = Mark::Open;
        while let Some((at, left)) = way.last_mut() {
            let at = *at;
            match left.pop() {
                None => {
                    marks[at] = Mark::Done;
                    way.pop();
                }
                Some(next) if marks[next] == Mark::Open => {
                    let from = way.iter().position(|(on, _)| *on == next).unwrap_or(0);
                    let mut found: Vec<usize> = way[from..].iter().map(|(on, _)| *on).collect();
                    found.push(next);
                    // The way follows needs; people read it the other way round.
                    found.reverse();
                    return Some(found);
                }
                Some(next) if marks[next] == Mark::New => {
                    marks[next] = Mark::Open;
                    way.push((next, needs(next)));
                }
                Some(_) => {}
            }
        }
    }
    None
}

/// Every node that has ended when this one begins.
pub(super) fn ancestors(of: usize, before: &BTreeMap<usize, BTreeSet<usize>>) -> BTreeSet<usize> {
    let mut found = BTreeSet::new();
    let mut left = vec![of];
    while let Some(at) = left.pop() {
        for need in before.get(&at).into_iter().flatten() {
            if found.insert(*need) {
                left.push(*need);
            }
        }
    }
    found
}
