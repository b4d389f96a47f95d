//! Where the boxes of the graph are: clients to the left of their servers, in columns.

use crate::view::Edge;

/// A box that is drawn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    pub(crate) column: usize,
    pub(crate) row: usize,
}

/// Where boxes are, and what edges pass on their way.
pub(crate) struct Layout {
    /// One for each node.
    pub(crate) places: Vec<Place>,
    /// One for each edge: free places between the columns of its nodes, in the order from client to server.
    pub(crate) ways: Vec<Vec<Place>>,
}

/// A layout of `count` nodes. Edges may form circles.
pub(crate) fn layout(count: usize, edges: &[Edge]) -> Layout {
    let forward = without_circles(count, edges);
    let mut columns = columns(count, &forward);
    // An edge over several columns keeps a place in each of them free: nodes that are not drawn.
    let (mut links, mut ways) = (Vec::new(), Vec::new());
    for edge in edges {
        let mut way = Vec::new();
        let ends = columns.get(edge.from).zip(columns.get(edge.to)).map(|(from, to)| (*from, *to));
        if let Some((first, last)) = ends.filter(|(first, last)| first < last) {
            let mut previous = edge.from;
            for column in first + 1..last {
                let next = columns.len();
                columns.push(column);
                links.push((previous, next));
                way.push(next);
                previous = next;
            }
            links.push((previous, edge.to));
        }
        ways.push(way);
    }
    let mut places = order(&columns, &links);
    let ways = ways.into_iter().map(|way| way.iter().filter_map(|n| places.get(*n).copied()).collect()).collect();
    places.truncate(count);
    Layout { places, ways }
}

/// The edges as pairs, without those that lead back to where a walk came from.
fn without_circles(count: usize, edges: &[Edge]) -> Vec<(usize, usize)> {
    let mut kept: Vec<(usize, usize)> = Vec::new();
    for edge in edges {
        let pair = (edge.from, edge.to);
        let exists = edge.from < count && edge.to < count && edge.from != edge.to;
        if exists && !kept.contains(&pair) && !reaches(&kept, edge.to, edge.from, count) {
            kept.push(pair);
        }
    }
    kept
}

/// Whether a walk along the edges leads from one node to the other.
fn reaches(edges: &[(usize, usize)], from: usize, to: usize, count: usize) -> bool {
    let mut seen = vec![false; count];
    let mut pending = vec![from];
    while let Some(node) = pending.pop() {
        if node == to {
            return true;
        }
        if let Some(seen) = seen.get_mut(node).filter(|seen| !**seen) {
            *seen = true;
            pending.extend(edges.iter().filter(|(from, _)| *from == node).map(|(_, to)| *to));
        }
    }
    false
}

/// The column of each node: the longest way to it.
fn columns(count: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut columns = vec![0_usize; count];
    // Without circles the longest way has fewer than `count` edges.
    for _ in 0..count {
        for (from, to) in edges {
            let next = columns.get(*from).map_or(0, |column| column + 1);
            if let Some(column) = columns.get_mut(*to) {
                *column = next.max(*column);
            }
        }
    }
    columns
}

/// Rows that keep neighbours at the same height, by the mean of the rows that a node is connected with.
fn order(columns: &[usize], edges: &[(usize, usize)]) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let mut used = vec![0_usize; columns.iter().max().map_or(0, |column| column + 1)];
    for column in columns {
        let row = used.get_mut(*column);
        places.push(Place { column: *column, row: row.as_ref().map_or(0, |row| **row) });
        row.into_iter().for_each(|row| *row += 1);
    }
    for sweep in 0..6 {
        let mut wanted: Vec<(usize, usize, usize)> = (0..places.len()).map(|n| desired(n, &places, edges)).collect();
        // Leftwards and rightwards in turn, so that both neighbours have a say.
        wanted.sort_unstable_by_key(|(column, row, n)| {
            (*column, *row, if sweep % 2 == 0 { *n } else { usize::MAX - *n })
        });
        let (mut column, mut row) = (usize::MAX, 0);
        for (of, _, n) in wanted {
            row = if of == column { row + 1 } else { 0 };
            column = of;
            if let Some(place) = places.get_mut(n) {
                place.row = row;
            }
        }
    }
    places
}

/// The column of a node, a thousandfold of the row that it would like, and its number.
fn desired(node: usize, places: &[Place], edges: &[(usize, usize)]) -> (usize, usize, usize) {
    let rows: Vec<usize> = edges
        .iter()
        .filter_map(|(from, to)| match () {
            () if *from == node => places.get(*to),
            () if *to == node => places.get(*from),
            () => None,
        })
        .map(|place| place.row)
        .collect();
    let own = places.get(node).copied().unwrap_or(Place { column: 0, row: 0 });
    let mean = (rows.iter().sum::<usize>() * 1000).checked_div(rows.len());
    (own.column, mean.unwrap_or(own.row * 1000), node)
}

#[cfg(test)]
mod tests {
    use portcullis_api::Timestamp;
    use proptest::prelude::*;

    use super::*;

    fn edges(pairs: &[(usize, usize)]) -> Vec<Edge> {
        let edge = |(from, to): &(usize, usize)| Edge {
            from: *from,
            to: *to,
            port: 80,
            mtls: 1,
            plaintext: 0,
            refused: 0,
            last_seen: Timestamp::default(),
            is_exception: false,
        };
        pairs.iter().map(edge).collect()
    }

    #[test]
    fn clients_are_left_of_their_servers() {
        let layout = layout(4, &edges(&[(2, 1), (1, 0), (2, 0)]));
        assert_eq!(layout.places.iter().map(|place| place.column).collect::<Vec<_>>(), [2, 1, 0, 0]);
        // The edge over two columns goes around the box between them.
        let [_, _, long] = layout.ways.as_slice() else { panic!() };
        assert!(long.len() == 1 && long[0].column == 1 && long[0] != layout.places[1]);
    }

    proptest! {
        #[test]
        fn no_two_boxes_share_a_place(count in 0_usize..12, pairs in prop::collection::vec((0_usize..14, 0_usize..14), 0..40)) {
            let Layout { places, ways } = layout(count, &edges(&pairs));
            prop_assert_eq!((places.len(), ways.len()), (count, pairs.len()));
            let all: Vec<_> = places.iter().chain(ways.iter().flatten()).collect();
            for (n, place) in all.iter().enumerate() {
                prop_assert!(place.column < count && place.row < all.len());
                prop_assert!(!all.iter().skip(n + 1).any(|other| other == place));
            }
        }
    }
}
