//! The graph of who talks to whom, with a lock on each edge.

use std::collections::HashMap;

use crate::html::Html;
use crate::layout::{Layout, Place, layout};
use crate::view::{Edge, Lock, Node, View};
use portcullis_api::Mode;

/// More boxes than these do not fit on a screen.
const MAX_NODES: usize = 20;
const MAX_EDGES: usize = 24;

const BOX_WIDTH: usize = 152;
const BOX_HEIGHT: usize = 46;
const ROW: usize = 84;
const MARGIN: usize = 10;
/// What a page has for a graph; a wider one is made smaller.
const PAGE_WIDTH: usize = 1146;
/// From one column to the next: wide enough for locks and labels between the boxes, and no wider than looks well.
const COLUMNS_APART: std::ops::RangeInclusive<usize> = 232..=320;

/// What is drawn of a view.
pub(crate) struct Drawn {
    /// Indices of the nodes.
    nodes: Vec<usize>,
    /// One for each pair of nodes. The numbers are indices of `nodes`.
    edges: Vec<Edge>,
    /// How many ports each of them stands for.
    ports: Vec<usize>,
    pub(crate) nodes_left_out: usize,
}

/// Chooses what is drawn: what is not protected first, then what was used last.
pub(crate) fn choose(view: &View) -> Drawn {
    let mut known: HashMap<(usize, usize), usize> = HashMap::new();
    let mut pairs: Vec<(Edge, usize)> = Vec::new();
    for edge in view.edges.iter().filter(|edge| edge.from < view.nodes.len() && edge.to < view.nodes.len()) {
        let place = *known.entry((edge.from, edge.to)).or_insert(pairs.len());
        match pairs.get_mut(place) {
            Some((pair, ports)) => {
                pair.mtls = pair.mtls.saturating_add(edge.mtls);
                pair.plaintext = pair.plaintext.saturating_add(edge.plaintext);
                pair.refused = pair.refused.saturating_add(edge.refused);
                pair.last_seen = pair.last_seen.max(edge.last_seen);
                *ports += 1;
            }
            None => pairs.push((edge.clone(), 1)),
        }
    }
    pairs.sort_by_key(|(edge, _)| (urgency(edge), std::cmp::Reverse(edge.last_seen)));
    let (mut nodes, mut edges, mut ports) = (Vec::new(), Vec::new(), Vec::new());
    for (edge, count) in pairs.into_iter().take(MAX_EDGES) {
        let new = [edge.from, edge.to].into_iter().filter(|node| !nodes.contains(node)).count();
        if nodes.len() + new > MAX_NODES {
            continue;
        }
        let (from, to) = (index_of(&mut nodes, edge.from), index_of(&mut nodes, edge.to));
        edges.push(Edge { from, to, ..edge });
        ports.push(count);
    }
    for node in 0..view.nodes.len() {
        if nodes.len() < MAX_NODES {
            index_of(&mut nodes, node);
        }
    }
    let nodes_left_out = view.nodes.len().saturating_sub(nodes.len());
    Drawn { nodes, edges, ports, nodes_left_out }
}

/// The place of a node among those that are drawn; it is added if it is not there.
fn index_of(nodes: &mut Vec<usize>, node: usize) -> usize {
    nodes.iter().position(|drawn| *drawn == node).unwrap_or_else(|| {
        nodes.push(node);
        nodes.len() - 1
    })
}

const fn urgency(edge: &Edge) -> u8 {
    match edge.lock() {
        Some(Lock::Open) => 0,
        Some(Lock::Half) => 1,
        None => 2,
        Some(Lock::Closed) => 3,
    }
}

/// Writes the graph.
pub(crate) fn graph(html: &mut Html, view: &View, drawn: &Drawn) {
    let Layout { places, ways } = layout(drawn.nodes.len(), &drawn.edges);
    let all = || places.iter().chain(ways.iter().flatten());
    let columns = all().map(|place| place.column + 1).max().unwrap_or(0);
    let rows = all().map(|place| place.row + 1).max().unwrap_or(0);
    let grid = Grid::new(columns);
    let width = MARGIN * 2 + columns.saturating_sub(1) * grid.column + BOX_WIDTH;
    let height = MARGIN * 2 + rows.saturating_sub(1) * ROW + BOX_HEIGHT;
    html.raw(
        "<svg class=graph role=img aria-label=\"Graph of the services; the table of connections says the same\" width=",
    );
    html.number(width as u64).raw(" height=").number(height as u64).raw(" viewBox=\"0 0 ");
    html.number(width as u64).raw(" ").number(height as u64).raw("\">");
    let lines: Vec<Line<'_>> = drawn
        .edges
        .iter()
        .zip(&drawn.ports)
        .zip(&ways)
        .filter_map(|((edge, ports), way)| {
            let (from, to) = (places.get(edge.from)?, places.get(edge.to)?);
            Some(Line { edge, path: Path::new(grid, *from, way, *to), label: label(edge, *ports) })
        })
        .collect();
    // Locks after all lines, so that no line crosses one.
    for line in &lines {
        draw_line(html, line);
    }
    for (line, at) in lines.iter().zip(lock_places(&lines)) {
        draw_lock(html, line, at);
    }
    for (node, place) in drawn.nodes.iter().zip(&places) {
        if let Some(node) = view.nodes.get(*node) {
            let has_sidecar_now = view.nodes.iter().any(|other| other.is_meshed && other.name == node.name);
            draw_node(html, node, has_sidecar_now, grid.corner(*place));
        }
    }
    html.raw("</svg>");
}

/// Where places are.
#[derive(Clone, Copy, Debug)]
struct Grid {
    /// From one column to the next.
    column: usize,
}

impl Grid {
    fn new(columns: usize) -> Self {
        let (least, most) = COLUMNS_APART.into_inner();
        let fitting = (PAGE_WIDTH - 2 * MARGIN - BOX_WIDTH).checked_div(columns.saturating_sub(1));
        Self { column: fitting.unwrap_or(most).clamp(least, most) }
    }

    const fn corner(self, place: Place) -> (i64, i64) {
        ((MARGIN + place.column * self.column) as i64, (MARGIN + place.row * ROW) as i64)
    }
}

/// The class of an edge and of its lock.
pub(crate) const fn class(lock: Option<Lock>) -> &'static str {
    match lock {
        Some(Lock::Closed) => "closed",
        Some(Lock::Half) => "half",
        Some(Lock::Open) => "open",
        None => "denied",
    }
}

/// The line of an edge: from the right side of a box to the left side of another, through free places between them.
struct Path {
    start: (i64, i64),
    /// Each is a curve to a point by two control points. Behind each but the last is a straight line past a column.
    curves: Vec<[(i64, i64); 3]>,
}

impl Path {
    fn new(grid: Grid, from: Place, way: &[Place], to: Place) -> Self {
        let width = BOX_WIDTH as i64;
        let left = |place: Place| (grid.corner(place).0, grid.corner(place).1 + BOX_HEIGHT as i64 / 2);
        let right = |place: Place| (left(place).0 + width, left(place).1);
        let start = right(from);
        let (mut at, mut curves) = (start, Vec::new());
        let is_forward = to.column > from.column;
        let mut curve = |from: (i64, i64), to: (i64, i64)| {
            // Backwards and downwards edges leave and arrive on the outer sides too.
            let bend = if is_forward { (to.0 - from.0) / 2 } else { 46 };
            curves.push([(from.0 + bend, from.1), (to.0 - bend, to.1), to]);
        };
        for place in way {
            curve(at, left(*place));
            at = right(*place);
        }
        curve(at, left(to));
        Self { start, curves }
    }

    /// The point on the first curve at so many eighths of its way.
    fn at(&self, eighths: i64) -> (i64, i64) {
        let Some([one, two, end]) = self.curves.first() else { return self.start };
        let left = 8 - eighths;
        let weights = [left.pow(3), 3 * left.pow(2) * eighths, 3 * left * eighths.pow(2), eighths.pow(3)];
        let mean =
            |points: [i64; 4]| points.iter().zip(weights).map(|(point, weight)| point * weight).sum::<i64>() / 512;
        (mean([self.start.0, one.0, two.0, end.0]), mean([self.start.1, one.1, two.1, end.1]))
    }
}

/// What is drawn of an edge.
struct Line<'e> {
    edge: &'e Edge,
    path: Path,
    /// The text below its lock.
    label: String,
}

impl Line<'_> {
    /// What its lock and label cover if the lock is there: left, top, right, bottom.
    fn area(&self, (x, y): (i64, i64)) -> [i64; 4] {
        let half = (self.label.chars().count() as i64 * 7 / 2).max(13);
        [x - half, y - 13, x + half, y + 28]
    }
}

/// Where the lock of each line is: on its first curve, close to the client, where it covers no other lock and label if that can be.
fn lock_places(lines: &[Line<'_>]) -> Vec<(i64, i64)> {
    let mut taken: Vec<[i64; 4]> = Vec::new();
    lines
        .iter()
        .map(|line| {
            let covered = |eighths: &i64| {
                taken.iter().map(|other| overlap(line.area(line.path.at(*eighths)), *other)).sum::<i64>()
            };
            // The first of the best.
            let eighths = [4, 3, 5, 2, 6, 1, 7].into_iter().min_by_key(covered).unwrap_or(4);
            let place = line.path.at(eighths);
            taken.push(line.area(place));
            place
        })
        .collect()
}

/// The area that two rectangles share.
fn overlap(one: [i64; 4], other: [i64; 4]) -> i64 {
    let [left, top, right, bottom] = one;
    let [other_left, other_top, other_right, other_bottom] = other;
    let width = right.min(other_right) - left.max(other_left);
    let height = bottom.min(other_bottom) - top.max(other_top);
    width.max(0) * height.max(0)
}

fn draw_line(html: &mut Html, Line { edge, path, .. }: &Line<'_>) {
    html.raw("<path class=\"e ").raw(class(edge.lock())).raw("\" d=\"M");
    html.number(path.start.0).raw(" ").number(path.start.1);
    for (n, curve) in path.curves.iter().enumerate() {
        if let Some([.., (x, _)]) = n.checked_sub(1).and_then(|before| path.curves.get(before)) {
            html.raw("H").number(*x + BOX_WIDTH as i64);
        }
        html.raw("C");
        for (x, y) in curve {
            html.number(*x).raw(" ").number(*y).raw(" ");
        }
    }
    html.raw("\"/>");
}

fn draw_lock(html: &mut Html, line: &Line<'_>, (x, y): (i64, i64)) {
    let lock = line.edge.lock();
    html.raw("<g class=").raw(class(lock)).raw(" transform=\"translate(").number(x).raw(" ").number(y);
    html.raw(")\"><circle r=11 class=bg />")
        .raw(glyph(lock))
        .raw("<text y=24 class=l>")
        .text(&line.label)
        .raw("</text></g>");
}

/// The port, and how much of the traffic is mTLS if not all is.
fn label(edge: &Edge, ports: usize) -> String {
    let port = match ports {
        1 => format!(":{}", edge.port),
        ports => format!("{ports} ports"),
    };
    match edge.mtls_percent() {
        Some(percent) if percent < 100 => format!("{port} {percent}%"),
        // The cross says what a port without a share is.
        _ => port,
    }
}

/// A lock of about 12 by 14 units around the origin. The shapes differ, not only the colours.
pub(crate) const fn glyph(lock: Option<Lock>) -> &'static str {
    match lock {
        Some(Lock::Closed) => {
            "<path class=k d=\"M-3.2-1v-2.3a3.2 3.2 0 0 1 6.4 0V-1\"/><rect class=b x=-5 y=-1 width=10 height=7.4 rx=1.4 />"
        }
        Some(Lock::Half) => {
            "<path class=k d=\"M-3.2-1v-3.6a3.2 3.2 0 0 1 6.4 0\"/><rect class=o x=-5 y=-1 width=10 height=7.4 rx=1.4 /><path class=b d=\"M-5 2.7h10v2.3a1.4 1.4 0 0 1-1.4 1.4h-7.2a1.4 1.4 0 0 1-1.4-1.4z\"/>"
        }
        Some(Lock::Open) => {
            "<path class=k d=\"M1-1v-2.3a3.2 3.2 0 0 1 6.4 0v1\"/><rect class=o x=-6 y=-1 width=10 height=7.4 rx=1.4 />"
        }
        None => "<path class=k d=\"M-4-4l8 8M4-4l-8 8\"/>",
    }
}

fn draw_node(html: &mut Html, node: &Node, has_sidecar_now: bool, (x, y): (i64, i64)) {
    html.raw("<g class=").raw(if node.is_meshed { "n" } else { "\"n out\"" });
    html.raw(" transform=\"translate(")
        .number(x)
        .raw(" ")
        .number(y)
        .raw(")\"><title>")
        .text(&shortened(&node.name, TOOLTIP_CHARS));
    if !node.namespace.is_empty() {
        html.raw(" in ").text(&shortened(&node.namespace, TOOLTIP_CHARS));
    }
    html.raw("</title><rect width=").number(BOX_WIDTH as u64).raw(" height=").number(BOX_HEIGHT as u64).raw(" rx=7 />");
    html.raw("<text x=11 y=20 class=name>")
        .text(&shortened(&node.name, BOX_CHARS))
        .raw("</text><text x=11 y=36 class=sub>");
    match (node.is_meshed, node.mode) {
        (false, _) if has_sidecar_now => html.raw("before its sidecar"),
        (false, _) => html.raw("no sidecar"),
        (true, Some(Mode::Unknown) | None) => html.raw("has an identity"),
        (true, Some(mode)) => html.raw(mode.as_str()),
    };
    html.raw("</text></g>");
}

/// What fits into a box, and what its tooltip has at most: the table of connections has whole names.
const BOX_CHARS: usize = 18;
const TOOLTIP_CHARS: usize = 63;

fn shortened(name: &str, most: usize) -> String {
    if name.chars().count() <= most {
        return name.to_owned();
    }
    name.chars().take(most - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use portcullis_api::Timestamp;

    use super::*;

    #[test]
    fn locks_of_crossing_edges_are_apart() {
        let edge = |from, to, mtls| Edge {
            from,
            to,
            port: 8080,
            mtls,
            plaintext: 0,
            refused: 1,
            last_seen: Timestamp::default(),
            is_exception: false,
        };
        let edges = [edge(0, 2, 1), edge(0, 3, 1), edge(1, 2, 0), edge(1, 3, 0)];
        let place = |node: usize| Place { column: node / 2, row: node % 2 };
        let line = |edge: &'_ Edge| Path::new(Grid::new(2), place(edge.from), &[], place(edge.to));
        let lines: Vec<Line<'_>> =
            edges.iter().map(|edge| Line { edge, path: line(edge), label: label(edge, 1) }).collect();
        let areas: Vec<_> = lines.iter().zip(lock_places(&lines)).map(|(line, at)| line.area(at)).collect();
        for (n, area) in areas.iter().enumerate() {
            assert!(areas.iter().skip(n + 1).all(|other| overlap(*area, *other) == 0), "{areas:?}");
        }
    }
}
